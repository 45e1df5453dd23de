"""The character model of a cell: the network of nas/supernets/recurrent/shared.py with a softmax of
its own, since so few types need no embedding in common with it.

`shared.gather` and `shared.add` take its parameters; weights that cells share begin as those of a
cell alone do.
"""

import jax
import jax.numpy as jnp

from experiments.cells.recipe import Recipe
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import shared, time_loop
from nas.supernets.recurrent.settings import LanguageModelSettings
from nas.supernets.recurrent.softmax import blocked_cross_entropy
from nas.supernets.recurrent.time_loop import Cell, LoopInputs
from nas.types import Array, Params

_EMBEDDING = 3**0.5  # uniform up to this has variance one


def init(space: RecurrentSpace, recipe: Recipe, types: int, key: Array) -> Params:
    """The parameters of `shared.init`, of which embedding [V, H] is of the input alone, and softmax
    [V, H].
    """
    settings = LanguageModelSettings(width=recipe.width, init_scale=recipe.init_scale)
    key, of_embedding = jax.random.split(key)
    params = shared.init(space, settings, types, key)
    scale = {"minval": -_EMBEDDING, "maxval": _EMBEDDING}
    embedding = jax.random.uniform(of_embedding, params["embedding"].shape, **scale)
    return params | {"embedding": embedding, "softmax": params["embedding"]}


def loss(
    used: Params, cell: Cell, tokens: Array, hidden: Array, *, max_norm: float
) -> tuple[Array, Array]:
    """Mean cross-entropy of the next character.

    Args:
      used: weights from `shared.gather`.
      tokens: [B, steps + 1] int32.
      hidden: [B, H] state before the first character.
      max_norm: L2 norm to which the state of each row is clipped.

    Returns:
      [] nats a character, [B, H] state after the last input.
    """
    projected = shared.project(used, tokens[:, :-1])
    inputs = LoopInputs(cell, used["recurrent"], projected, jnp.ones_like(hidden), hidden)
    states = time_loop.states(max_norm, "float32", inputs)
    softmax = {"embedding": used["softmax"], "bias": used["bias"]}
    return blocked_cross_entropy(softmax, states, tokens[:, 1:]), states[-1]
