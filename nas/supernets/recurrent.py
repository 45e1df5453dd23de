"""The shared-weight recurrent language model: every cell of the recurrent space as a path through one set of weights.

The highway cell of ENAS (Pham et al. 2018, section 2.1 and its appendix), for node i with parent j:

    c_0 = sigmoid(x W_xc + h W_hc)      h_0 = c_0 * f_0(x W_xh + h W_hh) + (1 - c_0) * h        h = h_{t-1}
    c_i = sigmoid(h_j W_ij^c)           h_i = c_i * f_i(h_j W_ij^h) + (1 - c_i) * h_j

The mean of the loose ends is the output and the next state. Input and output embeddings are tied. Decisions are traced:
one compilation serves every cell. Only the N matrices that a cell uses are gathered, differentiated, clipped and updated.

Weight gradients are deferred: the backward pass through time yields the gradient of every pre-activation, and all
weight gradients are formed afterwards, one product over (time x batch) a node. `deferred=False` is plain automatic
differentiation of the same forward pass.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from nas.config import SupernetConfig
from nas.spaces import RecurrentSpace
from nas.types import Array, Params

_BLOCK = 2**22  # logits held at a time: 16 MiB, which a processor's cache holds


class Cell(NamedTuple):
    """One architecture, as the arrays that the time loop reads. Slot 0 is h_{t-1}, slot i + 1 is node i."""

    edge: Array  # [N] int32; row of the stored matrices; row 0 is node 0's
    slot: Array  # [N] int32; the slot that node i reads
    activation: Array  # [N] int32
    output: Array  # [N] float32; weight of node i in the mean of loose ends


class Dropout(NamedTuple):
    """Variational masks, one a sequence, already scaled; None: off."""

    input: Array | None  # [B, H]
    hidden: Array | None  # [B, H]; on h_{t-1} as node 0's matrix sees it
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


def init(space: RecurrentSpace, config: SupernetConfig, vocabulary: int, key: Array) -> Params:
    """embedding [V, H], bias [V], input [H, 2H], recurrent [1 + N (N - 1) / 2, H, 2H].

    The first recurrent matrix is node 0's; then one per pair (j, i), j < i.
    """
    width, nodes = config.width, space.num_nodes
    shapes = {
        "embedding": (vocabulary, width),
        "input": (width, 2 * width),
        "recurrent": (1 + nodes * (nodes - 1) // 2, width, 2 * width),
    }
    uniform = {
        name: jax.random.uniform(k, shape, minval=-config.init_scale, maxval=config.init_scale)
        for k, (name, shape) in zip(jax.random.split(key, len(shapes)), shapes.items(), strict=True)
    }
    return uniform | {"bias": jnp.zeros(vocabulary)}


def gather(params: Params, cell: Cell) -> Params:
    """The weights that a cell uses: `params` with recurrent [N, H, 2H]."""
    return params | {"recurrent": params["recurrent"][cell.edge]}


def scatter(params: Params, cell: Cell, used: Params) -> Params:
    """`params` with the weights that a cell uses replaced; the inverse of `gather`. A cell uses no matrix twice."""
    recurrent = params["recurrent"].at[cell.edge].set(used["recurrent"], unique_indices=True)
    return used | {"recurrent": recurrent}


def sample_dropout(config: SupernetConfig, key: Array, rows: int) -> Dropout:
    """Masks for B = `rows` sequences."""

    def mask(key, rate):
        if rate == 0:
            return None
        return jax.random.bernoulli(key, 1 - rate, (rows, config.width)).astype(jnp.float32) / (1 - rate)

    rates = (config.dropout_input, config.dropout_hidden, config.dropout_output)
    return Dropout(*map(mask, jax.random.split(key, 3), rates))


def project(params: Params, tokens: Array, mask: Array | None = None) -> Array:
    """What the inputs tokens [B, steps] add to node 0's pre-activation: [steps, B, 2H], one product for all steps and cells."""
    inputs = params["embedding"][tokens.T]
    if mask is not None:
        inputs = inputs * mask[None]
    return inputs @ params["input"]


def cross_entropy(params: Params, outputs: Array, targets: Array) -> Array:
    """[] mean nats a token; outputs [steps, B, H], targets [B, steps]."""
    outputs, targets = outputs.reshape(-1, outputs.shape[-1]), targets.T.ravel()
    return jnp.mean(_nats(_logits(params["embedding"], params["bias"], outputs), targets))


def blocked_cross_entropy(params: Params, outputs: Array, targets: Array) -> Array:
    """`cross_entropy`, block by block of rows: never are the logits of more than one block held, nor computed twice."""
    outputs, targets = outputs.reshape(-1, outputs.shape[-1]), targets.T.ravel()
    rows, vocabulary = len(targets), len(params["bias"])
    blocks = -(-rows * vocabulary // _BLOCK)
    short = -rows % blocks
    outputs = jnp.pad(outputs, ((0, short), (0, 0))).reshape(blocks, -1, outputs.shape[-1])
    targets = jnp.pad(targets, (0, short)).reshape(blocks, -1)
    counted = (jnp.arange(rows + short) < rows).astype(outputs.dtype).reshape(blocks, -1)
    return _sum_of_nats(params["embedding"], params["bias"], outputs, targets, counted / rows)


def loss(
    used: Params,
    cell: Cell,
    tokens: Array,
    hidden: Array,
    *,
    max_norm: float,
    dropout: Dropout = Dropout(None, None, None),
    deferred: bool = True,
) -> tuple[Array, Array]:
    """Mean cross-entropy of the next token, for training.

    Args:
      used: weights from `gather`.
      tokens: [B, steps + 1] int32.
      hidden: [B, H] state before the first token.
      max_norm: L2 norm to which the state of each sequence is clipped; 0: not.

    Returns:
      [] nats a token, [B, H] state after the last input.
    """
    chex.assert_rank([tokens, hidden], [2, 2])
    projected = project(used, tokens[:, :-1], dropout.input)
    mask = jnp.ones_like(hidden) if dropout.hidden is None else dropout.hidden
    unroll = _deferred_states if deferred else _states
    states = unroll(max_norm, cell, used["recurrent"], projected, mask, hidden)
    outputs = states if dropout.output is None else states * dropout.output[None]
    entropy = blocked_cross_entropy if deferred else cross_entropy
    return entropy(used, outputs, tokens[:, 1:]), states[-1]


def losses(params: Params, cells: Cell, tokens: Array, hidden: Array, *, max_norm: float, chunk: int) -> tuple[Array, Array]:
    """`loss` of many cells on the same tokens, without dropout and without gradients.

    Args:
      params: all weights.
      cells: stacked, [A, ...].
      tokens: [B, steps + 1] int32.
      hidden: [A, B, H] state of each cell before the first token.
      chunk: cells computed side by side; bounds the memory.

    Returns:
      [A] nats a token, [A, B, H] states after the last input.
    """
    projected = project(params, tokens[:, :-1])

    def one(x):
        cell, hidden = x
        recurrent = params["recurrent"][cell.edge]
        states = _states(max_norm, cell, recurrent, projected, jnp.ones_like(hidden), hidden)
        return blocked_cross_entropy(params, states, tokens[:, 1:]), states[-1]

    return jax.lax.map(one, (cells, hidden), batch_size=chunk if chunk > 1 else None)


def _logits(embedding: Array, bias: Array, outputs: Array) -> Array:
    return outputs @ embedding.T + bias[None]


def _nats(logits: Array, targets: Array) -> Array:
    return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]


@jax.custom_vjp
def _sum_of_nats(embedding, bias, outputs, targets, weights):
    """[] over blocks of rows, weighted; outputs [blocks, rows, H], targets and weights [blocks, rows]."""

    def block(total, x):
        outputs, targets, weights = x
        return total + jnp.sum(weights * _nats(_logits(embedding, bias, outputs), targets)), None

    return jax.lax.scan(block, jnp.zeros((), outputs.dtype), (outputs, targets, weights))[0]


def _sum_of_nats_forward(embedding, bias, outputs, targets, weights):
    """The gradients are formed here, while the logits of a block are at hand."""

    def block(carry, x):
        total, of_embedding, of_bias = carry
        outputs, targets, weights = x
        logits = _logits(embedding, bias, outputs)
        total += jnp.sum(weights * _nats(logits, targets))
        of_logits = jax.nn.softmax(logits, axis=-1) * weights[:, None]
        of_logits = of_logits.at[jnp.arange(len(targets)), targets].add(-weights)
        carry = total, of_embedding + of_logits.T @ outputs, of_bias + jnp.sum(of_logits, axis=0)
        return carry, of_logits @ embedding

    start = jnp.zeros((), outputs.dtype), jnp.zeros_like(embedding), jnp.zeros_like(bias)
    (total, *of_weights), of_outputs = jax.lax.scan(block, start, (outputs, targets, weights))
    return total, (*of_weights, of_outputs)


def _sum_of_nats_backward(gradients, gradient):
    of_embedding, of_bias, of_outputs = (gradient * leaf for leaf in gradients)
    return of_embedding, of_bias, of_outputs, None, None


_sum_of_nats.defvjp(_sum_of_nats_forward, _sum_of_nats_backward)


def _activate(index: Array, x: Array) -> Array:
    return jax.lax.switch(index, (jnp.tanh, jax.nn.relu, lambda x: x, jax.nn.sigmoid), x)


def _highway(index: Array, pre: Array, parent: Array) -> Array:
    """[B, H] from the pre-activations [B, 2H] of gate and candidate."""
    gate, candidate = jnp.split(pre, 2, axis=-1)
    return parent + jax.nn.sigmoid(gate) * (_activate(index, candidate) - parent)


def _clip_norm(max_norm: float, state: Array) -> Array:
    if max_norm == 0:
        return state
    norm = jnp.sqrt(jnp.sum(state * state, axis=-1, keepdims=True) + 1e-12)
    return state * jnp.minimum(1.0, max_norm / norm)


def _time_step(max_norm, cell, recurrent, mask, hidden, projected):
    """One token: the next state [B, H], and what a backward pass needs.

    That is node 0's parent [B, H], the others' [N - 1, B, H], pre-activations likewise, and the output before clipping.
    """
    first_pre = (hidden * mask) @ recurrent[0] + projected
    first = _highway(cell.activation[0], first_pre, hidden)
    nodes = len(cell.slot)
    slots = jnp.zeros((nodes + 1, *hidden.shape)).at[0].set(hidden).at[1].set(first)

    def node(slots, x):
        i, slot, activation, matrix = x
        parent = jax.lax.dynamic_index_in_dim(slots, slot, keepdims=False)
        pre = parent @ matrix
        value = _highway(activation, pre, parent)
        return jax.lax.dynamic_update_index_in_dim(slots, value, i + 1, 0), (parent, pre)

    xs = (jnp.arange(1, nodes), cell.slot[1:], cell.activation[1:], recurrent[1:])
    slots, (parents, pres) = jax.lax.scan(node, slots, xs)
    raw = jnp.einsum("n,nbh->bh", cell.output, slots[1:])
    return _clip_norm(max_norm, raw), (hidden, parents, first_pre, pres, raw)


def _states(max_norm, cell, recurrent, projected, mask, hidden):
    """[steps, B, H] states after each token; plain automatic differentiation goes through this."""

    def step(hidden, projected):
        hidden, _ = _time_step(max_norm, cell, recurrent, mask, hidden, projected)
        return hidden, hidden

    return jax.lax.scan(step, hidden, projected)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _deferred_states(max_norm, cell, recurrent, projected, mask, hidden):
    return _states(max_norm, cell, recurrent, projected, mask, hidden)


def _deferred_forward(max_norm, cell, recurrent, projected, mask, hidden):
    def step(hidden, projected):
        hidden, saved = _time_step(max_norm, cell, recurrent, mask, hidden, projected)
        return hidden, (hidden, saved)

    _, (states, saved) = jax.lax.scan(step, hidden, projected)
    return states, (cell, recurrent, mask, saved)


def _deferred_backward(max_norm, residuals, states_gradient):
    cell, recurrent, mask, saved = residuals
    nodes = len(cell.slot)

    def node(slots, x):
        """From the gradient of node i to those of its pre-activation and of the slot it read."""
        i, slot, activation, matrix, parent, pre = x
        value = jax.lax.dynamic_index_in_dim(slots, i + 1, keepdims=False)
        pre_gradient, parent_gradient = jax.vjp(functools.partial(_highway, activation), pre, parent)[1](value)
        return slots.at[slot].add(parent_gradient + pre_gradient @ matrix.T), pre_gradient

    def step(hidden_gradient, x):
        state_gradient, (hidden, parents, first_pre, pres, raw) = x
        (raw_gradient,) = jax.vjp(functools.partial(_clip_norm, max_norm), raw)[1](state_gradient + hidden_gradient)
        slots = jnp.concatenate([jnp.zeros((1, *raw.shape)), cell.output[:, None, None] * raw_gradient[None]])
        xs = (jnp.arange(1, nodes), cell.slot[1:], cell.activation[1:], recurrent[1:], parents, pres)
        slots, pre_gradients = jax.lax.scan(node, slots, xs, reverse=True)
        first_gradient, skip_gradient = jax.vjp(functools.partial(_highway, cell.activation[0]), first_pre, hidden)[1](slots[1])
        hidden_gradient = slots[0] + skip_gradient + (first_gradient @ recurrent[0].T) * mask
        return hidden_gradient, (first_gradient, pre_gradients)

    hidden_gradient, (first_gradients, pre_gradients) = jax.lax.scan(
        step, jnp.zeros_like(mask), (states_gradient, saved), reverse=True
    )
    hiddens, parents = saved[:2]

    def weight_gradient(i):  # node by node: faster than one batched product, which transposes its operands first
        return jnp.einsum("tbh,tbg->hg", parents[:, i], pre_gradients[:, i])

    first = jnp.einsum("tbh,tbg->hg", hiddens * mask[None], first_gradients)
    recurrent_gradient = jnp.concatenate([first[None], jax.lax.map(weight_gradient, jnp.arange(nodes - 1))])
    return None, recurrent_gradient, first_gradients, jnp.zeros_like(mask), hidden_gradient


_deferred_states.defvjp(_deferred_forward, _deferred_backward)
