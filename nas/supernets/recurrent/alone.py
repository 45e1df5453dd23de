"""Language models of one fixed architecture: a recurrent cell compiled as itself, and baselines
with as many parameters.

A cell's decisions are Python constants, and only its N matrices exist. Its equations are those of
`shared.py`: with its part of the shared weights it computes what the searched network does.
Embeddings, softmax and dropout are the same in all models.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from nas.data.tokens import Tokens
from nas.spaces.recurrent import ACTIVATIONS, RecurrentSpace
from nas.supernets.recurrent import shared
from nas.supernets.recurrent.settings import LanguageModelSettings
from nas.supernets.recurrent.shared import Dropout
from nas.supernets.recurrent.softmax import blocked_cross_entropy
from nas.supernets.recurrent.time_loop import clip_norm
from nas.types import Array, Model, Params

_NO_DROPOUT = Dropout(None, None, None)
_FUNCTIONS = {
    "tanh": jnp.tanh,
    "relu": lambda x: jnp.maximum(x, 0),
    "identity": lambda x: x,
    "sigmoid": jax.nn.sigmoid,
}


class Predictor(NamedTuple):
    """A language model as pure functions of tokens and masks."""

    config: LanguageModelSettings  # its width is this model's
    init: Callable[[Array], Params]  # key -> params
    initial_carry: Callable[[int], Any]  # rows B -> carry before the first token
    # (params, tokens [B, steps + 1], carry, dropout) -> [] nats a token, carry
    loss: Callable[..., tuple[Array, Any]]


def build(
    space: RecurrentSpace, config: LanguageModelSettings, vocabulary: int, architecture: str
) -> Model:
    """The cell whose decisions are given as text, or a baseline as wide as `baseline_width` says.

    Raises:
      UserError: `architecture` is neither a baseline nor decisions of the space.
    """
    if architecture not in BASELINES:
        return model(cell(space, space.parse(architecture), config, vocabulary))
    make, products = BASELINES[architecture]
    width = baseline_width(space, config.width, vocabulary, products)
    return model(make(dataclasses.replace(config, width=width), vocabulary))


def model(predictor: Predictor) -> Model:
    """A predictor as a `Model` on windows of a token stream; a step's key draws dropout's masks."""

    def loss(params: Params, batch: Tokens, carry: Any, key: Array | None) -> tuple[Array, Any]:
        dropout = _NO_DROPOUT
        if key is not None:
            dropout = shared.sample_dropout(predictor.config, key, len(batch.tokens))
        start = batch.start[:, None]
        carry = jax.tree.map(lambda leaf: jnp.where(start, 0.0, leaf), carry)
        return predictor.loss(params, batch.tokens, carry, dropout)

    def evaluate(params: Params, batches: Tokens) -> Array:
        def step(carry, tokens):
            value, carry = predictor.loss(params, tokens, carry)
            return carry, value

        carry = predictor.initial_carry(batches.tokens.shape[1])
        return jnp.mean(jax.lax.scan(step, carry, batches.tokens)[1])

    return Model(predictor.init, predictor.initial_carry, loss, evaluate, predictor.config.width)


def cell(
    space: RecurrentSpace, decisions: np.ndarray, config: LanguageModelSettings, vocabulary: int
) -> Predictor:
    """The recurrent cell of decisions [T].

    Parameters: embedding [V, H], bias [V], input [H, 2H], recurrent N times [H, 2H].

    Raises:
      UserError: decisions that are not of the space.
    """
    decisions = space.validate(decisions)[0]
    functions = [_FUNCTIONS[ACTIVATIONS[kind]] for kind in space.activations(decisions)]
    parents = [None, *space.parents(decisions).tolist()]
    loose = np.flatnonzero(space.loose_ends(decisions)[0])

    def init(key: Array) -> Params:
        shapes = {
            "embedding": (vocabulary, config.width),
            "input": (config.width, 2 * config.width),
        }
        shapes |= {f"recurrent {i}": shapes["input"] for i in range(space.num_nodes)}
        drawn = shared.uniform(key, shapes, config.init_scale)
        matrices = tuple(drawn.pop(f"recurrent {i}") for i in range(space.num_nodes))
        return drawn | {"recurrent": matrices, "bias": jnp.zeros(vocabulary)}

    def loss(
        params: Params, tokens: Array, hidden: Array, dropout: Dropout = _NO_DROPOUT
    ) -> tuple[Array, Array]:
        def step(hidden: Array, projected: Array) -> tuple[Array, Array]:
            nodes = []
            for matrix, function, parent in zip(
                params["recurrent"], functions, parents, strict=True
            ):
                read = hidden if parent is None else nodes[parent]
                pre = (
                    _mask(hidden, dropout.hidden) @ matrix + projected
                    if parent is None
                    else read @ matrix
                )
                gate, candidate = jnp.split(pre, 2, axis=-1)
                nodes.append(read + jax.nn.sigmoid(gate) * (function(candidate) - read))
            hidden = clip_norm(config.max_norm, sum(nodes[i] for i in loose) / len(loose))
            return hidden, hidden

        return _loss(step, params, tokens, hidden, dropout)

    return Predictor(config, init, lambda rows: jnp.zeros((rows, config.width)), loss)


def from_shared(space: RecurrentSpace, params: Params, decisions: np.ndarray) -> Params:
    """The parameters of `cell`: an architecture's part of the shared weights."""
    return shared.gather(params, shared.read_cell(space, jnp.asarray(decisions)))


def lstm(config: LanguageModelSettings, vocabulary: int) -> Predictor:
    """The LSTM (Gers et al. 2000): input gate, forget gate, candidate, output gate; the forget
    gate's bias starts at 1.

    Parameters: embedding [V, H], bias [V], input [H, 4H], recurrent [H, 4H], gates [4H]. The carry
    is (state, memory cell).
    """

    def step(pre: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        write, keep, candidate, read = jnp.split(pre, 4, axis=-1)
        memory = jax.nn.sigmoid(keep) * carry[1] + jax.nn.sigmoid(write) * jnp.tanh(candidate)
        hidden = jax.nn.sigmoid(read) * jnp.tanh(memory)
        return hidden, memory

    return _gated(config, vocabulary, (0.0, 1.0, 0.0, 0.0), 2, step)


def highway(config: LanguageModelSettings, vocabulary: int) -> Predictor:
    """One recurrent highway layer (Zilly et al. 2017), which is node 0 of a cell with tanh; the
    gate's bias starts at -1.

    Parameters: embedding [V, H], bias [V], input [H, 2H], recurrent [H, 2H], gates [2H].
    """

    def step(pre: Array, carry: tuple[Array]) -> tuple[Array]:
        gate, candidate = jnp.split(pre, 2, axis=-1)
        return (carry[0] + jax.nn.sigmoid(gate) * (jnp.tanh(candidate) - carry[0]),)

    return _gated(config, vocabulary, (-1.0, 0.0), 1, step)


# name -> function, and number of its products of the state with a matrix [H, H]
BASELINES = {"lstm": (lstm, 4), "highway": (highway, 2)}


def num_cell_parameters(space: RecurrentSpace, width: int, vocabulary: int) -> int:
    """How many numbers a cell of the space learns."""
    return vocabulary * (width + 1) + 2 * (space.num_nodes + 1) * width**2


def baseline_width(space: RecurrentSpace, width: int, vocabulary: int, products: int) -> int:
    """The width at which a baseline has a number of parameters nearest to that of a cell with
    `width`.

    One unit more in a baseline's width W adds V + products (4 W + 3) parameters: the numbers differ
    by half of that at most, as a rule by less than one in a hundred.

    Args:
      products: number of the baseline's products of the state with a matrix [H, H].
    """
    # A baseline has square W^2 + linear W + V parameters.
    square, linear = 2 * products, vocabulary + products
    rest = num_cell_parameters(space, width, vocabulary) - vocabulary
    exact = (math.sqrt(linear**2 + 4 * square * rest) - linear) / (2 * square)
    candidates = range(max(1, math.floor(exact)), math.ceil(exact) + 1)
    return min(candidates, key=lambda w: abs(square * w**2 + linear * w - rest))


def _gated(config, vocabulary, biases, states, step):
    """A baseline whose carry is `states` arrays [B, H], the state first.

    `step`: (pre-activations from input, state and biases, carry) -> next carry.
    """
    width, size = config.width, len(biases) * config.width

    def init(key: Array) -> Params:
        shapes = {
            "embedding": (vocabulary, width),
            "input": (width, size),
            "recurrent": (width, size),
        }
        gates = jnp.repeat(jnp.array(biases), width)
        return shared.uniform(key, shapes, config.init_scale) | {
            "gates": gates,
            "bias": jnp.zeros(vocabulary),
        }

    def loss(
        params: Params, tokens: Array, carry: Any, dropout: Dropout = _NO_DROPOUT
    ) -> tuple[Array, Any]:
        def advance(carry: Any, projected: Array) -> tuple[Any, Array]:
            pre = (
                projected
                + _mask(carry[0], dropout.hidden) @ params["recurrent"]
                + params["gates"][None]
            )
            carry = step(pre, carry)
            return carry, carry[0]

        return _loss(advance, params, tokens, carry, dropout)

    return Predictor(config, init, lambda rows: (jnp.zeros((rows, width)),) * states, loss)


def _loss(step, params, tokens, carry, dropout):
    """[] mean nats a token of a model on tokens [B, steps + 1], and the carry after the last one.

    `step`: (carry, what a token's input adds to the pre-activations) -> (next carry, state [B, H]).
    """
    chex.assert_rank(tokens, 2)
    projected = shared.project(params, tokens[:, :-1], dropout.input)
    carry, states = jax.lax.scan(step, carry, projected)
    outputs = states if dropout.output is None else states * dropout.output[None]
    return blocked_cross_entropy(params, outputs, tokens[:, 1:]), carry


def _mask(values, mask):
    return values if mask is None else values * mask
