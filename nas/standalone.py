"""Language models of one fixed architecture: a recurrent cell compiled as itself, and baselines with as many parameters.

A cell's decisions are Python constants, and only its N matrices exist; its equations are those of `nas.supernets.recurrent`,
so that with the shared weights of its architecture it is the searched network. Embeddings, softmax and dropout are the same
in all models.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from nas.config import SupernetConfig
from nas.spaces import RecurrentSpace
from nas.spaces.recurrent import ACTIVATIONS
from nas.supernets import recurrent
from nas.supernets.recurrent import Dropout
from nas.types import Array, Params

BASELINES = ("lstm", "highway")
_NO_DROPOUT = Dropout(None, None, None)
_FUNCTIONS = {"tanh": jnp.tanh, "relu": lambda x: jnp.maximum(x, 0), "identity": lambda x: x, "sigmoid": jax.nn.sigmoid}


class Model(NamedTuple):
    """A language model as pure functions."""

    config: SupernetConfig  # its width is that of this model
    init: Callable[[Array], Params]  # key -> params
    initial_carry: Callable[[int], Any]  # rows B -> carry before the first token
    loss: Callable[..., tuple[Array, Any]]  # (params, tokens [B, steps + 1], carry, dropout) -> [] nats a token, carry


def build(space: RecurrentSpace, config: SupernetConfig, vocabulary: int, architecture: str) -> Model:
    """The model of a decision vector's text form, or a baseline by name, with as many parameters as the space's cells.

    `lstm` has the width that comes nearest to that number. `highway` is the recurrent highway network of the same depth
    (Zilly et al. 2017), a chain of tanh nodes: itself a cell of the space, so that the numbers are equal.

    Raises:
      UserError: neither a baseline nor decisions of the space.
    """
    if architecture == "lstm":
        return lstm(dataclasses.replace(config, width=lstm_width(space, config.width, vocabulary)), vocabulary)
    if architecture == "highway":
        return cell(space, highway_decisions(space), config, vocabulary)
    return cell(space, space.parse(architecture), config, vocabulary)


def cell(space: RecurrentSpace, decisions: np.ndarray, config: SupernetConfig, vocabulary: int) -> Model:
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
        shapes = {"embedding": (vocabulary, config.width), "input": (config.width, 2 * config.width)}
        shapes |= {f"recurrent {i}": shapes["input"] for i in range(space.num_nodes)}
        drawn = _uniform(key, shapes, config.init_scale)
        matrices = tuple(drawn.pop(f"recurrent {i}") for i in range(space.num_nodes))
        return drawn | {"recurrent": matrices, "bias": jnp.zeros(vocabulary)}

    def loss(params: Params, tokens: Array, hidden: Array, dropout: Dropout = _NO_DROPOUT) -> tuple[Array, Array]:
        def step(hidden: Array, projected: Array) -> tuple[Array, Array]:
            nodes = []
            for matrix, function, parent in zip(params["recurrent"], functions, parents, strict=True):
                read = hidden if parent is None else nodes[parent]
                pre = _mask(hidden, dropout.hidden) @ matrix + projected if parent is None else read @ matrix
                gate, candidate = jnp.split(pre, 2, axis=-1)
                nodes.append(read + jax.nn.sigmoid(gate) * (function(candidate) - read))
            hidden = _clip_norm(config.max_norm, sum(nodes[i] for i in loose) / len(loose))
            return hidden, hidden

        return _loss(step, params, tokens, hidden, dropout)

    return Model(config, init, lambda rows: jnp.zeros((rows, config.width)), loss)


def from_shared(space: RecurrentSpace, params: Params, decisions: np.ndarray) -> Params:
    """The parameters of `cell` that are an architecture's part of the shared weights."""
    return recurrent.gather(params, recurrent.read_cell(space, jnp.asarray(decisions)))


def lstm(config: SupernetConfig, vocabulary: int) -> Model:
    """The LSTM (Gers et al. 2000), gates in the order input, forget, candidate, output; the forget gate's bias starts at 1.

    Parameters: embedding [V, H], bias [V], input [H, 4H], recurrent [H, 4H], gates [4H]. The carry is (state, memory cell).
    """
    width = config.width

    def init(key: Array) -> Params:
        shapes = {"embedding": (vocabulary, width), "input": (width, 4 * width), "recurrent": (width, 4 * width)}
        drawn = _uniform(key, shapes, config.init_scale)
        return drawn | {"gates": jnp.zeros(4 * width).at[width : 2 * width].set(1.0), "bias": jnp.zeros(vocabulary)}

    def loss(params: Params, tokens: Array, carry: Any, dropout: Dropout = _NO_DROPOUT) -> tuple[Array, Any]:
        def step(carry: Any, projected: Array) -> tuple[Any, Array]:
            hidden, memory = carry
            pre = projected + _mask(hidden, dropout.hidden) @ params["recurrent"] + params["gates"][None]
            write, keep, candidate, read = jnp.split(pre, 4, axis=-1)
            memory = jax.nn.sigmoid(keep) * memory + jax.nn.sigmoid(write) * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(read) * jnp.tanh(memory)
            return (hidden, memory), hidden

        return _loss(step, params, tokens, carry, dropout)

    return Model(config, init, lambda rows: (jnp.zeros((rows, width)), jnp.zeros((rows, width))), loss)


def lstm_width(space: RecurrentSpace, width: int, vocabulary: int) -> int:
    """Width of the LSTM whose number of parameters is nearest to that of the space's cells of width H = `width`.

    One more in its width W are V + 16 W + 12 parameters: the numbers differ by half of it at most.
    """
    wanted = vocabulary * (width + 1) + 2 * (space.num_nodes + 1) * width**2
    middle = vocabulary + 4  # 8 W^2 + middle W + V parameters at width W
    near = (math.sqrt(middle**2 + 32 * (wanted - vocabulary)) - middle) / 16
    return max(1, min((math.floor(near), math.ceil(near)), key=lambda w: abs(8 * w**2 + middle * w + vocabulary - wanted)))


def highway_decisions(space: RecurrentSpace) -> np.ndarray:
    """[T] every node reads the one before it and is tanh."""
    decisions = np.zeros(space.num_decisions, np.int32)
    space.parents(decisions)[:] = np.arange(space.num_nodes - 1)
    return decisions


def num_parameters(model: Model) -> int:
    """How many numbers the model learns."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))))


def _uniform(key, shapes, scale):
    keys = jax.random.split(key, len(shapes))
    return {n: jax.random.uniform(k, s, minval=-scale, maxval=scale) for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def _loss(step, params, tokens, carry, dropout):
    """Of the model whose carry and state [B, H] after each token are `step`'s; it is given what the token's input adds."""
    chex.assert_rank(tokens, 2)
    projected = recurrent.project(params, tokens[:, :-1], dropout.input)
    carry, states = jax.lax.scan(step, carry, projected)
    outputs = states if dropout.output is None else states * dropout.output[None]
    return recurrent.blocked_cross_entropy(params, outputs, tokens[:, 1:]), carry


def _mask(values, mask):
    return values if mask is None else values * mask


def _clip_norm(max_norm, state):
    if max_norm == 0:
        return state
    norm = jnp.sqrt(jnp.sum(state * state, axis=-1, keepdims=True) + 1e-12)
    return state * jnp.minimum(1.0, max_norm / norm)
