"""The shared-weight recurrent language model: every cell of the recurrent space as a path through one set of weights.

The highway cell of ENAS (Pham et al. 2018, section 2.1 and its appendix), for node i with parent j:

    c_0 = sigmoid(x W_xc + h W_hc)      h_0 = c_0 * f_0(x W_xh + h W_hh) + (1 - c_0) * h        h = h_{t-1}
    c_i = sigmoid(h_j W_ij^c)           h_i = c_i * f_i(h_j W_ij^h) + (1 - c_i) * h_j

The mean of the loose ends is the output and the next state. Input and output embeddings are tied. Decisions are traced:
one compilation serves every cell. Only the N matrices that a cell uses are gathered, differentiated, clipped and updated.

Weight gradients are deferred: the backward pass through time yields the gradient of every pre-activation, and all
weight gradients are formed afterwards, one product over (time x batch) a node. The softmax is taken in blocks, its gradient
while their logits are at hand. `deferred=False` is plain automatic differentiation of the same loss.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from nas.config import SupernetConfig
from nas.spaces import RecurrentSpace
from nas.spaces.recurrent import ACTIVATIONS
from nas.types import Array, Params

_SIGMOID = ACTIVATIONS.index("sigmoid")
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
    return uniform(key, shapes, config.init_scale) | {"bias": jnp.zeros(vocabulary)}


def uniform(key: Array, shapes: Mapping[str, tuple[int, ...]], scale: float) -> Params:
    """name -> weights of that shape, uniform in [-scale, scale]."""
    keys = jax.random.split(key, len(shapes))
    return {n: jax.random.uniform(k, s, minval=-scale, maxval=scale) for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def gather(params: Params, cell: Cell) -> Params:
    """The weights that a cell uses: `params` with recurrent a tuple of N matrices [H, 2H].

    They are arrays of their own: slices of a stack would be copied whenever the time loop multiplies by them.
    """
    return params | {"recurrent": tuple(params["recurrent"][edge] for edge in cell.edge)}


def scatter(params: Params, cell: Cell, used: Params) -> Params:
    """`params` with the weights that a cell uses replaced; the inverse of `gather`. A cell uses no matrix twice."""
    recurrent = params["recurrent"]
    for edge, matrix in zip(cell.edge, used["recurrent"], strict=True):
        recurrent = recurrent.at[edge].set(matrix)
    return used | {"recurrent": recurrent}


def sample_dropout(config: SupernetConfig, key: Array, rows: int) -> Dropout:
    """Masks for B = `rows` sequences."""

    def mask(key, rate):
        if rate == 0:
            return None
        return jax.random.bernoulli(key, 1 - rate, (rows, config.width)).astype(jnp.float32) / (1 - rate)

    rates = (config.dropout_input, config.dropout_hidden, config.dropout_output)
    return Dropout(*map(mask, jax.random.split(key, 3), rates))


def project(params: Params, tokens: Array, mask: Array | None = None, *, matmul: str = "float32") -> Array:
    """What the inputs tokens [B, steps] add to node 0's pre-activation: [steps, B, 2H], one product for all steps and cells."""
    inputs = params["embedding"][tokens.T]
    if mask is not None:
        inputs = inputs * mask[None]
    steps, rows, width = inputs.shape
    return _product(matmul, inputs.reshape(-1, width), params["input"]).reshape(steps, rows, -1)


def cross_entropy(params: Params, outputs: Array, targets: Array, *, matmul: str = "float32") -> Array:
    """[] mean nats a token; outputs [steps, B, H], targets [B, steps]."""
    outputs, targets = outputs.reshape(-1, outputs.shape[-1]), targets.T.ravel()
    logits = _product(matmul, outputs, params["embedding"].T) + params["bias"][None]
    of_targets = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - of_targets)


def blocked_cross_entropy(params: Params, outputs: Array, targets: Array, *, matmul: str = "float32") -> Array:
    """`cross_entropy`, block by block of rows: never are the logits of more than one block held, nor computed twice."""
    outputs, targets = outputs.reshape(-1, outputs.shape[-1]), targets.T.ravel()
    rows, vocabulary = len(targets), len(params["bias"])
    ones = jnp.ones((vocabulary, 1))
    softmax = jnp.concatenate([params["embedding"], params["bias"][:, None], ones], axis=1)
    states = jnp.concatenate([outputs, ones[:1].repeat(rows, 0), jnp.zeros((rows, 1))], axis=1)
    of_targets = jnp.sum(states * softmax[targets])
    blocks = -(-rows * vocabulary // _BLOCK)
    short = -rows % blocks
    states = jnp.pad(states, ((0, short), (0, 0))).reshape(blocks, -1, states.shape[-1])
    counted = (jnp.arange(rows + short) < rows).astype(outputs.dtype).reshape(blocks, -1)
    return (_sum_of_normalisers(matmul, softmax, states, counted) - of_targets) / rows


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
      max_norm: L2 norm to which the state of each sequence is clipped; 0: not.
      matmul: type of the operands of matrix products, float32 or bfloat16; their sums and all else keep that of the weights.

    Returns:
      [] nats a token, [B, H] state after the last input.
    """
    chex.assert_rank([tokens, hidden], [2, 2])
    projected = project(used, tokens[:, :-1], dropout.input, matmul=matmul)
    mask = jnp.ones_like(hidden) if dropout.hidden is None else dropout.hidden
    unroll = _deferred_states if deferred else _states
    states = unroll(max_norm, matmul, cell, used["recurrent"], projected, mask, hidden)
    outputs = states if dropout.output is None else states * dropout.output[None]
    entropy = blocked_cross_entropy if deferred else cross_entropy
    return entropy(used, outputs, tokens[:, 1:], matmul=matmul), states[-1]


def losses(
    params: Params, cells: Cell, tokens: Array, hidden: Array, *, max_norm: float, matmul: str = "float32", chunk: int
) -> tuple[Array, Array]:
    """`loss` of many cells on the same tokens, without dropout and without gradients.

    Args:
      params: all weights.
      cells: stacked, [A, ...].
      tokens: [B, steps + 1] int32.
      hidden: [A, B, H] state of each cell before the first token.
      chunk: cells computed side by side; bounds the memory. On processors two at most, in one time loop whose operations run at
        the same time; elsewhere as one batch.

    Returns:
      [A] nats a token, [A, B, H] states after the last input.
    """
    projected = project(params, tokens[:, :-1], matmul=matmul)
    mask = jnp.ones_like(hidden[0])

    def beside(x):
        """Of a few cells, each with operations of its own."""
        cells, hidden = [Cell(*leaves) for leaves in zip(*x[0], strict=True)], list(x[1])
        weights = [[_right(matmul, matrix) for matrix in gather(params, cell)["recurrent"]] for cell in cells]

        def step(hidden, projected):
            each = zip(cells, weights, hidden, strict=True)
            hidden = [_time_step(max_norm, matmul, cell, used, mask, state, projected)[0] for cell, used, state in each]
            return hidden, hidden

        last, states = jax.lax.scan(step, hidden, projected)
        values = [blocked_cross_entropy(params, outputs, tokens[:, 1:], matmul=matmul) for outputs in states]
        return jnp.stack(values), jnp.stack(last)

    def one(x):
        return jax.tree.map(lambda leaf: leaf[0], beside(jax.tree.map(lambda leaf: leaf[None], x)))

    if min(chunk, len(hidden)) == 1:
        return jax.lax.map(one, (cells, hidden))
    batches = functools.partial(jax.lax.map, one, batch_size=chunk)
    return jax.lax.platform_dependent((cells, hidden), cpu=functools.partial(_map_pairs, beside), default=batches)


def _map_pairs(function, x):
    """`function` of two entries of x at a time, and of one that is left over; the results in one."""
    count = len(jax.tree.leaves(x)[0])
    even = count - count % 2
    pairs = jax.tree.map(lambda leaf: leaf[:even].reshape(-1, 2, *leaf.shape[1:]), x)
    results = jax.tree.map(lambda leaf: leaf.reshape(even, *leaf.shape[2:]), jax.lax.map(function, pairs))
    if even == count:
        return results
    last = function(jax.tree.map(lambda leaf: leaf[even:], x))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), results, last)


def _product(matmul, left, right):
    """left @ right, of operands rounded to the type `matmul`; float32 means the type that weights have."""
    return left @ right if matmul == "float32" else _bfloat16_product(left, right)


def _by_rows(matmul, matrix):
    """An operand, rounded once for many products. XLA's fast product of bfloat16 on processors wants rows that are stored one
    after another; without the constraint a transpose would be folded into the product, which then takes twice the time.
    """
    if matmul == "float32":
        return matrix
    by_rows = Layout((0, 1))
    return jax.lax.platform_dependent(
        matrix.astype(jnp.bfloat16), cpu=lambda x: with_layout_constraint(x, by_rows), default=lambda x: x
    )


def _right(matmul, matrix):
    """`matrix` [K, N] as the right operand of many products by `_times`, stored as XLA on processors multiplies by it fastest:
    float32 as [N, K], which at width 1000 and the few rows of a time step takes two thirds of the time, bfloat16 as [K, N].
    """
    return matrix.T if matmul == "float32" else _by_rows(matmul, matrix)


def _times(matmul, left, right):
    """The product of `left` and a matrix from `_right`."""
    if matmul == "float32":
        return jax.lax.dot_general(left, right, (((1,), (1,)), ((), ())))
    return _bfloat16_product(left, right)


@jax.custom_vjp
def _bfloat16_product(left, right):
    return jnp.matmul(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def _bfloat16_product_forward(left, right):
    return _bfloat16_product(left, right), (left, right)


def _bfloat16_product_backward(operands, gradient):
    """Products of the same kind: plain differentiation would round their sums too."""
    left, right = operands
    return _bfloat16_product(gradient, right.T), _bfloat16_product(left.T, gradient)


_bfloat16_product.defvjp(_bfloat16_product_forward, _bfloat16_product_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_normalisers(matmul, softmax, states, weights):
    """[] weighted sum of the normalisers of rows; softmax [V, H + 2] and states [blocks, rows, H + 2] with a column for the
    bias and one of which the softmax's entries are 1, weights [blocks, rows].
    """
    to_logits = _right(matmul, softmax.T)

    def block(total, x):
        states, weights = x
        return total + jnp.sum(weights * jax.nn.logsumexp(_times(matmul, states, to_logits), axis=-1)), None

    return jax.lax.scan(block, jnp.zeros((), states.dtype), (states, weights))[0]


def _sum_of_normalisers_forward(matmul, softmax, states, weights):
    """The gradients are formed here, while the logits of a block are at hand: they are read once and written once, since the
    sum of the exponentials is a column of a product that is needed anyway, and what it divides are the rows of products.
    """
    to_logits, to_states = _right(matmul, softmax.T), _right(matmul, softmax)

    def block(carry, x):
        total, of_softmax = carry
        states, weights = x
        logits = _times(matmul, states, to_logits)
        largest = jnp.max(logits, axis=-1, keepdims=True)
        # Without the barrier they would be computed again for either product.
        exponentials = jax.lax.optimization_barrier(jnp.exp(logits - largest))
        sums = _times(matmul, exponentials, to_states)
        scale = weights[:, None] / sums[:, -1:]
        total += jnp.sum(weights * (largest + jnp.log(sums[:, -1:]))[:, 0])
        return (total, of_softmax + _product(matmul, _by_rows(matmul, exponentials.T), states * scale)), sums * scale

    start = jnp.zeros((), states.dtype), jnp.zeros_like(softmax)
    (total, of_softmax), of_states = jax.lax.scan(block, start, (states, weights))
    return total, (of_softmax, of_states)


def _sum_of_normalisers_backward(matmul, gradients, gradient):
    del matmul
    of_softmax, of_states = (gradient * leaf for leaf in gradients)
    return of_softmax, of_states, None


_sum_of_normalisers.defvjp(_sum_of_normalisers_forward, _sum_of_normalisers_backward)


def _activate(kind: Array, x: Array) -> Array:
    """The activation of that number: tanh, ReLU, identity or sigmoid; one tanh serves both that need it."""
    bent = jnp.tanh(jnp.where(kind == _SIGMOID, x / 2, x))
    return jax.lax.select_n(kind, bent, jnp.maximum(x, 0), x, (1 + bent) / 2)


def _slope(kind: Array, value: Array) -> Array:
    """The derivative of the activation, from its value."""
    ones = jnp.ones_like(value)
    return jax.lax.select_n(kind, 1 - value * value, (value > 0).astype(value.dtype), ones, value * (1 - value))


def _highway(kind: Array, pre: Array, parent: Array) -> tuple[Array, Array, Array]:
    """The node [B, H], its gate and its candidate, from their pre-activations [B, 2H]."""
    gate, candidate = jnp.split(pre, 2, axis=-1)
    gate, candidate = (1 + jnp.tanh(gate / 2)) / 2, _activate(kind, candidate)
    return parent + gate * (candidate - parent), gate, candidate


def clip_norm(max_norm: float, state: Array) -> Array:
    """States [B, H] with their L2 norm clipped; 0: not."""
    if max_norm == 0:
        return state
    norm = jnp.sqrt(jnp.sum(state * state, axis=-1, keepdims=True) + 1e-12)
    return state * jnp.minimum(1.0, max_norm / norm)


def _choose(number: Array, nodes: list[Array]) -> Array:
    """The node of that number. On processors by a branch: for a selection XLA would compute all of them anew."""
    if len(nodes) == 1:
        return nodes[0]

    def branch(number, *nodes):
        return jax.lax.switch(number, [lambda *nodes, j=j: nodes[j] for j in range(len(nodes))], *nodes)

    def select(number, chosen, *rest):
        for j, node in enumerate(rest, 1):
            chosen = jnp.where(number == j, node, chosen)
        return chosen

    return jax.lax.platform_dependent(number, *nodes, cpu=branch, default=select)


def _time_step(max_norm, matmul, cell, recurrent, mask, hidden, projected):
    """One token, with matrices from `_right`: the next state [B, H], and what a backward pass needs.

    That is parent, gate and candidate of every node, [B, H] each, and the output before clipping.
    """
    nodes, saved = [], []
    for i, matrix in enumerate(recurrent):
        parent = _choose(cell.slot[i] - 1, nodes) if nodes else hidden
        pre = _times(matmul, parent, matrix) if nodes else _times(matmul, parent * mask, matrix) + projected
        node, gate, candidate = _highway(cell.activation[i], pre, parent)
        nodes.append(node)
        saved.append((parent, gate, candidate))
    raw = sum(weight * node for weight, node in zip(cell.output, nodes, strict=True))
    return clip_norm(max_norm, raw), (tuple(saved), raw)


def _states(max_norm, matmul, cell, recurrent, projected, mask, hidden):
    """[steps, B, H] states after each token; plain automatic differentiation goes through this."""

    # As `_right` has it, but not rounded: the gradient of a rounded matrix would be rounded too.
    matrices = [matrix.T if matmul == "float32" else matrix for matrix in recurrent]

    def step(hidden, projected):
        hidden, _ = _time_step(max_norm, matmul, cell, matrices, mask, hidden, projected)
        return hidden, hidden

    return jax.lax.scan(step, hidden, projected)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _deferred_states(max_norm, matmul, cell, recurrent, projected, mask, hidden):
    return _states(max_norm, matmul, cell, recurrent, projected, mask, hidden)


def _deferred_forward(max_norm, matmul, cell, recurrent, projected, mask, hidden):
    matrices = [_right(matmul, matrix) for matrix in recurrent]

    def step(hidden, projected):
        hidden, saved = _time_step(max_norm, matmul, cell, matrices, mask, hidden, projected)
        return hidden, (hidden, saved)

    _, (states, saved) = jax.lax.scan(step, hidden, projected)
    return states, (cell, recurrent, mask, saved)


def _deferred_backward(max_norm, matmul, residuals, states_gradient):
    cell, recurrent, mask, saved = residuals
    nodes = len(recurrent)
    transposed = [_right(matmul, matrix.T) for matrix in recurrent]

    def step(hidden_gradient, x):
        state_gradient, (saved, raw) = x
        (raw_gradient,) = jax.vjp(functools.partial(clip_norm, max_norm), raw)[1](state_gradient + hidden_gradient)
        pre_gradients, to_parents = [None] * nodes, [None] * nodes
        for i in reversed(range(nodes)):
            parent, gate, candidate = saved[i]
            node = cell.output[i] * raw_gradient
            for child in range(i + 1, nodes):
                node = jnp.where(cell.slot[child] == i + 1, node + to_parents[child], node)
            of_gate = node * (candidate - parent) * gate * (1 - gate)
            of_candidate = node * gate * _slope(cell.activation[i], candidate)
            pre_gradients[i] = jnp.concatenate([of_gate, of_candidate], axis=-1)
            through = _times(matmul, pre_gradients[i], transposed[i])
            to_parents[i] = node * (1 - gate) + (through if i else through * mask)
        return to_parents[0], tuple(pre_gradients)

    hidden_gradient, pre_gradients = jax.lax.scan(step, jnp.zeros_like(mask), (states_gradient, saved), reverse=True)
    parents = [parent for parent, _, _ in saved[0]]
    parents[0] = parents[0] * mask[None]
    # Of two-dimensional operands: what einsum makes of three dimensions is transposed first.
    flat = [[leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves] for leaves in (parents, pre_gradients)]
    recurrent_gradient = tuple(
        _product(matmul, _by_rows(matmul, parent.T), gradient) for parent, gradient in zip(*flat, strict=True)
    )
    return None, recurrent_gradient, pre_gradients[0], jnp.zeros_like(mask), hidden_gradient


_deferred_states.defvjp(_deferred_forward, _deferred_backward)
