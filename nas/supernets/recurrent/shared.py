"""The shared weights: every cell of the recurrent space is a path through one set of them.

The highway cell of ENAS (Pham et al. 2018, section 2.1 and its appendix), for node i with parent j:

    c_0 = sigmoid(x W_xc + h W_hc)    h_0 = c_0 * f_0(x W_xh + h W_hh) + (1 - c_0) * h
    c_i = sigmoid(h_j W_ij^c)         h_i = c_i * f_i(h_j W_ij^h) + (1 - c_i) * h_j

with h = h_{t-1}, the state before the token.

The mean of the loose ends is the output and the next state. Input and output embeddings are tied.
Decisions are traced: one compilation serves every cell. Only the N matrices that a cell uses are
gathered, differentiated, clipped and updated.

Weight gradients are formed once for all time steps (time_loop.py), and the softmax is taken in
blocks (softmax.py). `deferred=False` is plain automatic differentiation of the same loss.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import time_loop
from nas.supernets.recurrent.products import product, settle
from nas.supernets.recurrent.settings import LanguageModelSettings
from nas.supernets.recurrent.softmax import blocked_cross_entropy, cross_entropy
from nas.supernets.recurrent.time_loop import Cell, LoopInputs
from nas.types import Array, Params


class Dropout(NamedTuple):
    """Variational masks, one per sequence, already scaled; None: off."""

    input: Array | None  # [B, H]
    hidden: Array | None  # [B, H]; on h_{t-1}, only where node 0's matrix reads it
    output: Array | None  # [B, H]


def read_cell(space: RecurrentSpace, decisions: Array) -> Cell:
    """The `Cell` of one decision vector [T]."""
    chex.assert_shape(decisions, (space.num_decisions,))
    parents = space.parents(decisions)
    nodes = jnp.arange(1, space.num_nodes, dtype=jnp.int32)
    first = jnp.zeros(1, jnp.int32)
    loose = jnp.ones(space.num_nodes).at[parents].set(0.0)
    return Cell(
        edge=jnp.concatenate([first, 1 + nodes * (nodes - 1) // 2 + parents]),
        slot=jnp.concatenate([first, parents + 1]),
        activation=space.activations(decisions),
        output=loose / jnp.sum(loose),
    )


def init(
    space: RecurrentSpace, config: LanguageModelSettings, vocabulary: int, key: Array
) -> Params:
    """embedding [V, H], bias [V], input [H, 2H], recurrent [1 + N (N - 1) / 2, H, 2H].

    The first recurrent matrix is node 0's; then one per pair (j, i), j < i.
    """
    width, nodes = config.width, space.num_nodes
    shapes = {
        "embedding": (vocabulary, width),
        "input": (width, 2 * width),
        "recurrent": (1 + nodes * (nodes - 1) // 2, width, 2 * width),
    }
    return uniform(key, shapes, config.init_scale) | {"bias": jnp.zeros(vocabulary)}


def uniform(key: Array, shapes: Mapping[str, tuple[int, ...]], scale: float) -> Params:
    """name -> weights of that shape, uniform in [-scale, scale]."""
    keys = jax.random.split(key, len(shapes))
    return {
        n: jax.random.uniform(k, s, minval=-scale, maxval=scale)
        for k, (n, s) in zip(keys, shapes.items(), strict=True)
    }


def gather(params: Params, cell: Cell) -> Params:
    """The weights that a cell uses: `params` with recurrent a tuple of N matrices [H, 2H].

    They are separate arrays: slices of a stack would be copied whenever the time loop multiplies by
    them.
    """
    return params | {"recurrent": tuple(params["recurrent"][edge] for edge in cell.edge)}


def add(params: Params, cell: Cell, updates: Params) -> Params:
    """`params` plus updates of the weights that a cell uses, as `gather` has them. A cell uses no
    matrix twice.

    Each matrix is read from the stack that it is written to: while an older one is still needed,
    XLA copies all of it.
    """
    recurrent = params["recurrent"]
    for edge, update in zip(cell.edge, updates["recurrent"], strict=True):
        recurrent = recurrent.at[edge].add(update)
    return {
        name: params[name] + update for name, update in updates.items() if name != "recurrent"
    } | {"recurrent": recurrent}


def sample_dropout(config: LanguageModelSettings, key: Array, rows: int) -> Dropout:
    """Masks for B = `rows` sequences."""

    def mask(key, rate):
        if rate == 0:
            return None
        return jax.random.bernoulli(key, 1 - rate, (rows, config.width)).astype(jnp.float32) / (
            1 - rate
        )

    rates = (config.dropout_input, config.dropout_hidden, config.dropout_output)
    return Dropout(*map(mask, jax.random.split(key, 3), rates))


def project(
    params: Params, tokens: Array, mask: Array | None = None, *, matmul: str = "float32"
) -> Array:
    """What the inputs tokens [B, steps] add to node 0's pre-activation: [steps, B, 2H], one product
    for all steps and cells.
    """
    inputs = params["embedding"][tokens.T]
    if mask is not None:
        inputs = inputs * mask[None]
    steps, rows, width = inputs.shape
    return product(matmul, inputs.reshape(-1, width), params["input"]).reshape(steps, rows, -1)


def loss(
    used: Params,
    cell: Cell,
    tokens: Array,
    hidden: Array,
    *,
    max_norm: float,
    matmul: str = "float32",
    dropout: Dropout = Dropout(None, None, None),
    deferred: bool = True,
) -> tuple[Array, Array]:
    """Mean cross-entropy of the next token, for training.

    Args:
      used: weights from `gather`.
      tokens: [B, steps + 1] int32.
      hidden: [B, H] state before the first token.
      max_norm: L2 norm to which the state of each sequence is clipped; 0: not clipped.
      matmul: how operands of matrix products are rounded, as in products.py.

    Returns:
      [] nats a token, [B, H] state after the last input.
    """
    chex.assert_rank([tokens, hidden], [2, 2])
    matmul = settle(matmul) if deferred else matmul
    projected = project(used, tokens[:, :-1], dropout.input, matmul=matmul)
    mask = jnp.ones_like(hidden) if dropout.hidden is None else dropout.hidden
    unroll = time_loop.states if deferred else time_loop.plain_states
    states = unroll(max_norm, matmul, LoopInputs(cell, used["recurrent"], projected, mask, hidden))
    outputs = states if dropout.output is None else states * dropout.output[None]
    entropy = blocked_cross_entropy if deferred else cross_entropy
    return entropy(used, outputs, tokens[:, 1:], matmul=matmul), states[-1]


def losses(
    params: Params,
    cells: Cell,
    tokens: Array,
    hidden: Array,
    *,
    max_norm: float,
    matmul: str = "float32",
    chunk: int,
) -> tuple[Array, Array]:
    """`loss` of many cells on the same tokens, without dropout and without gradients.

    Args:
      params: all weights.
      cells: stacked, [A, ...].
      tokens: [B, steps + 1] int32.
      hidden: [A, B, H] state of each cell before the first token.
      chunk: cells computed as one batch on accelerators, to bound the memory. CPUs are busy with
        one.

    Returns:
      [A] nats a token, [A, B, H] states after the last input.
    """
    matmul = settle(matmul)
    projected = project(params, tokens[:, :-1], matmul=matmul)
    mask = jnp.ones_like(hidden[0])

    def one(x):
        cell, hidden = x
        used = gather(params, cell)
        inputs = LoopInputs(cell, used["recurrent"], projected, mask, hidden)
        states = time_loop.states(max_norm, matmul, inputs)
        return blocked_cross_entropy(used, states, tokens[:, 1:], matmul=matmul), states[-1]

    one_by_one = functools.partial(jax.lax.map, one)
    if min(chunk, len(hidden)) == 1:
        return one_by_one((cells, hidden))
    batches = functools.partial(jax.lax.map, one, batch_size=chunk)
    return jax.lax.platform_dependent((cells, hidden), cpu=one_by_one, default=batches)
