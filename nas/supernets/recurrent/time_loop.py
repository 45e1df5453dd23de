"""The recurrent cell run through a sequence: the state after every token, and its gradient.

Weight gradients are deferred: the backward pass through time yields the gradient of every
pre-activation, and all weight gradients are formed afterwards, by one product over (time x batch)
per node. On CPUs native_loop.py computes both directions where it can; the loops of this file,
compiled by XLA, serve accelerators, bfloat16 and plain differentiation.

`max_norm` is the L2 norm to which each sequence's state is clipped, 0: not clipped; `matmul` is
explained in products.py.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nas.spaces.recurrent import ACTIVATIONS
from nas.supernets.recurrent import native_loop
from nas.supernets.recurrent.products import as_right, by_rows, product, times
from nas.types import Array

_SIGMOID = ACTIVATIONS.index("sigmoid")


class Cell(NamedTuple):
    """One architecture, as the loop reads it. Slot 0 is h_{t-1}, slot i + 1 is node i."""

    edge: Array  # [N] int32; row of the stored matrices; row 0 is node 0's
    slot: Array  # [N] int32; the slot that node i reads
    activation: Array  # [N] int32
    output: Array  # [N] float32; weight of node i in the mean of loose ends


class LoopInputs(NamedTuple):
    """What the loop goes through: T steps of B sequences."""

    cell: Cell
    recurrent: tuple[Array, ...]  # N matrices [H, 2H]
    projected: Array  # [T, B, 2H]; what inputs add to node 0's pre-activation
    mask: Array  # [B, H]; on h_{t-1}, only where node 0's matrix reads it
    hidden: Array  # [B, H]; the first state


def plain_states(max_norm: float, matmul: str, inputs: LoopInputs) -> Array:
    """[T, B, H] states after each token; automatic differentiation goes through all of it."""
    # Stored as by `as_right`, but not rounded: the gradient of a rounded matrix would be rounded.
    matrices = [matrix.T if matmul == "float32" else matrix for matrix in inputs.recurrent]
    return _scan(max_norm, matmul, inputs._replace(recurrent=matrices))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def states(max_norm: float, matmul: str, inputs: LoopInputs) -> Array:
    """`plain_states` with deferred weight gradients."""
    return _unroll(max_norm, matmul, inputs)[0]


def _forward(max_norm, matmul, inputs):
    states, saved = _unroll(max_norm, matmul, inputs, keep=True)
    return states, (inputs._replace(projected=None, hidden=None), saved)


def _backward(max_norm, matmul, residuals, gradient):
    inputs, saved = residuals
    mask = inputs.mask
    back = native_loop.backward if _is_native(matmul, mask) else _scan_back
    of_hidden, of_pre = back(max_norm, matmul, inputs, saved, gradient)
    parents = [parent for parent, _, _ in saved[0]]
    parents[0] = parents[0] * mask[None]
    # As products of two-dimensional operands: einsum would first transpose three-dimensional ones.
    flat = [[leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves] for leaves in (parents, of_pre)]
    of_recurrent = tuple(
        product(matmul, by_rows(matmul, parent.T), of_node)
        for parent, of_node in zip(*flat, strict=True)
    )
    return (LoopInputs(None, of_recurrent, of_pre[0], jnp.zeros_like(mask), of_hidden),)


states.defvjp(_forward, _backward)


def clip_norm(max_norm: float, state: Array) -> Array:
    """States [B, H] with their L2 norm clipped to `max_norm`; 0: not clipped."""
    if max_norm == 0:
        return state
    norm = jnp.sqrt(jnp.sum(state * state, axis=-1, keepdims=True) + 1e-12)
    return state * jnp.minimum(1.0, max_norm / norm)


def _is_native(matmul, hidden):
    return matmul != "bfloat16" and native_loop.available(hidden.dtype.name)


def _unroll(max_norm, matmul, inputs, keep=False):
    """The states, and, if `keep`, what the gradient needs."""
    if _is_native(matmul, inputs.hidden):
        return native_loop.forward(max_norm, matmul, inputs, keep=keep)
    matrices = [as_right(matmul, matrix) for matrix in inputs.recurrent]
    return _scan(max_norm, matmul, inputs._replace(recurrent=matrices), keep)


def _scan(max_norm, matmul, inputs, keep=False):
    """The states, and, if `keep`, what `_scan_back` needs; matrices are from `as_right`."""

    def step(hidden, projected):
        now = inputs._replace(hidden=hidden, projected=projected)
        hidden, saved = _time_step(max_norm, matmul, now)
        return hidden, (hidden, saved if keep else None)

    return jax.lax.scan(step, inputs.hidden, inputs.projected)[1]


def _time_step(max_norm, matmul, inputs):
    """One token: the next state [B, H], and what a backward pass needs.

    That is parent, gate and candidate of every node, [B, H] each, and the output before clipping.
    """
    cell, matrices, projected, mask, hidden = inputs
    nodes, saved = [], []
    for i, matrix in enumerate(matrices):
        parent = _choose(cell.slot[i] - 1, nodes) if nodes else hidden
        pre = (
            times(matmul, parent, matrix)
            if nodes
            else times(matmul, parent * mask, matrix) + projected
        )
        node, gate, candidate = _highway(cell.activation[i], pre, parent)
        nodes.append(node)
        saved.append((parent, gate, candidate))
    raw = sum(weight * node for weight, node in zip(cell.output, nodes, strict=True))
    return clip_norm(max_norm, raw), (tuple(saved), raw)


def _scan_back(max_norm, matmul, inputs, saved, gradient):
    """The gradients of `hidden` [B, H] and of the N pre-activations [T, B, 2H]."""
    cell, recurrent, mask = inputs.cell, inputs.recurrent, inputs.mask
    nodes = len(recurrent)
    transposed = [as_right(matmul, matrix.T) for matrix in recurrent]

    def step(of_hidden, x):
        of_state, (saved, raw) = x
        (of_raw,) = jax.vjp(functools.partial(clip_norm, max_norm), raw)[1](of_state + of_hidden)
        of_pre, of_parents = [None] * nodes, [None] * nodes
        for i in reversed(range(nodes)):
            parent, gate, candidate = saved[i]
            of_node = cell.output[i] * of_raw
            for child in range(i + 1, nodes):
                of_node = jnp.where(cell.slot[child] == i + 1, of_node + of_parents[child], of_node)
            of_gate = of_node * (candidate - parent) * gate * (1 - gate)
            of_candidate = of_node * gate * _slope(cell.activation[i], candidate)
            of_pre[i] = jnp.concatenate([of_gate, of_candidate], axis=-1)
            through = times(matmul, of_pre[i], transposed[i])
            of_parents[i] = of_node * (1 - gate) + (through if i else through * mask)
        return of_parents[0], tuple(of_pre)

    return jax.lax.scan(step, jnp.zeros_like(mask), (gradient, saved), reverse=True)


def _activate(kind: Array, x: Array) -> Array:
    """The activation of number `kind`: tanh, ReLU, identity or sigmoid; one tanh serves both
    functions that need it.
    """
    bent = jnp.tanh(jnp.where(kind == _SIGMOID, x / 2, x))
    return jax.lax.select_n(kind, bent, jnp.maximum(x, 0), x, (1 + bent) / 2)


def _slope(kind: Array, value: Array) -> Array:
    """The derivative of the activation, from its value."""
    ones = jnp.ones_like(value)
    return jax.lax.select_n(
        kind, 1 - value * value, (value > 0).astype(value.dtype), ones, value * (1 - value)
    )


def _highway(kind: Array, pre: Array, parent: Array) -> tuple[Array, Array, Array]:
    """The node [B, H], its gate and its candidate, from their pre-activations [B, 2H]."""
    gate, candidate = jnp.split(pre, 2, axis=-1)
    gate, candidate = (1 + jnp.tanh(gate / 2)) / 2, _activate(kind, candidate)
    return parent + gate * (candidate - parent), gate, candidate


def _choose(number: Array, nodes: list[Array]) -> Array:
    """The node of that number. On CPUs by a branch: for a selection XLA would compute all nodes
    again.
    """
    if len(nodes) == 1:
        return nodes[0]

    def branch(number, *nodes):
        return jax.lax.switch(
            number, [lambda *nodes, j=j: nodes[j] for j in range(len(nodes))], *nodes
        )

    def select(number, chosen, *rest):
        for j, node in enumerate(rest, 1):
            chosen = jnp.where(number == j, node, chosen)
        return chosen

    return jax.lax.platform_dependent(number, *nodes, cpu=branch, default=select)
