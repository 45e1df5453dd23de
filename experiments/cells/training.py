"""Training a cell alone, as a function that serves every cell: decisions are traced."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.cells import network
from experiments.cells.recipe import Recipe
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import shared
from nas.types import Array, Params

BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam
PARTS = 8  # of a training, whose losses are kept
_WEIGHTS, _TEXT = 1, 2  # streams of random numbers


class Text(NamedTuple):
    """Numbers of characters."""

    train: Array  # [n] uint8
    validation: Array
    test: Array


class Trained(NamedTuple):
    """One training, bits a character."""

    online: Array  # [8] means over eighths of the training, of each window before its own step
    validation: Array  # [] after the training
    test: Array  # []
    skipped: Array  # [] int32; updates that were dropped because they were not finite


def train(
    space: RecurrentSpace, recipe: Recipe, types: int, decisions: Array, seed: Array, text: Text
) -> Trained:
    """Trains one cell of decisions [T] with a seed [] of its weights and of where in the text it
    begins.
    """
    cell, key = shared.read_cell(space, decisions), jax.random.key(seed)
    whole = network.init(space, recipe, types, jax.random.fold_in(key, _WEIGHTS))
    params, optimise = shared.gather(whole, cell), optimiser(recipe)
    windows = reader(recipe, text_key(seed), text.train)

    def loss(params: Params, hidden: Array, tokens: Array) -> tuple[Array, Array]:
        return network.loss(params, cell, tokens, hidden, max_norm=recipe.max_norm)

    def step(carry, number):
        params, state, hidden, skipped = carry
        tokens, begins = windows(number)
        hidden = jnp.where(begins[:, None], 0.0, hidden)
        (value, hidden), gradient = jax.value_and_grad(loss, has_aux=True)(params, hidden, tokens)
        gradient, finite = finite_or_zero(value, gradient)
        updates, state = optimise.update(gradient, state)
        return (
            optax.apply_updates(params, updates),
            state,
            hidden,
            skipped + (~finite).astype(jnp.int32),
        ), value

    hidden = jnp.zeros((recipe.batch, recipe.width))
    start = params, optimise.init(params), hidden, jnp.int32(0)
    numbers = jnp.arange(recipe.steps, dtype=jnp.int32)
    (params, _, _, skipped), values = jax.lax.scan(step, start, numbers)
    online = values[recipe.steps % PARTS :].reshape(PARTS, -1).mean(axis=1)
    hidden = jnp.zeros((recipe.held_out, recipe.width))
    held_out = [
        loss(params, hidden, sequences(recipe, split))[0] for split in (text.validation, text.test)
    ]
    return Trained(*(nats / np.float32(np.log(2)) for nats in (online, *held_out)), skipped)


def finite_or_zero(loss: Array, gradient: Params) -> tuple[Params, Array]:
    """The gradient, zeros where it or the loss is not finite; and whether both are, [] bool."""
    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0.0), gradient), finite


def learning_rate(recipe: Recipe) -> Callable[[Array], Array]:
    """The rate of a step of that number: rises from 0 to its peak, and falls to 0 as a cosine."""
    rise = max(1, round(recipe.warmup * recipe.steps))

    def rate(count: Array) -> Array:
        done = count.astype(jnp.float32)
        fallen = (done - rise) / (recipe.steps - rise)
        share = jnp.where(done < rise, done / rise, (1 + jnp.cos(np.pi * fallen)) / 2)
        return recipe.learning_rate * share

    return rate


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Adam of clipped gradients."""
    adam = optax.adam(learning_rate(recipe), *BETAS, EPSILON)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), adam)


def text_key(seed: Array) -> Array:
    """The key of where in the text a training begins."""
    return jax.random.fold_in(jax.random.key(seed), _TEXT)


def reader(recipe: Recipe, key: Array, train: Array):
    """A function of the number of a step: tokens [B, window + 1] int32, and whether each row [B]
    begins anew.

    Rows are spread evenly over the text, shifted by what the key draws; its end is followed by its
    beginning.
    """
    rows, length = jnp.arange(recipe.batch, dtype=jnp.int32), len(train)
    shift = jax.random.randint(key, (), 0, length)
    first = shift + rows * (length // recipe.batch)

    def window(number: Array) -> tuple[Array, Array]:
        places = number * recipe.window + jnp.arange(recipe.window + 1, dtype=jnp.int32)
        tokens = train[(first[:, None] + places[None]) % length].astype(jnp.int32)
        return tokens, (number == 0) | ((number + rows) % recipe.sequence == 0)

    return window


def sequences(recipe: Recipe, split: Array) -> Array:
    """[held_out, sequence * window + 1] int32: parts of a text, spread evenly over it.

    Where the text is short they overlap; past its end they go on at its beginning.
    """
    starts = np.arange(recipe.held_out) * (len(split) // recipe.held_out)
    places = starts[:, None] + np.arange(recipe.sequence * recipe.window + 1)[None]
    return split[places % len(split)].astype(jnp.int32)
