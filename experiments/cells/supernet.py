"""Weights that all cells of a space share: the character model of network.py, trained on the cells
that a strategy proposes, by the steps of nas/steps.py.

Text, batch, optimiser and learning rate are those of a cell trained alone. What differs is that
every step trains another cell, that there are more steps, and that a row's state passes from one
cell to the next, as in ENAS.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import lanes
from experiments.cells import network, training
from experiments.cells.recipe import Recipe
from experiments.cells.training import Text
from nas import steps
from nas.config import Config
from nas.controllers import build_policy
from nas.spaces.recurrent import RecurrentSpace
from nas.steps import Components, SearchState
from nas.strategies import build_strategy
from nas.supernets.recurrent import shared
from nas.tasks import Task
from nas.types import Array, Params, Reward

EPOCHS = 48
UPDATES = 25  # updates of the strategy in an epoch
WARMUP = EPOCHS // 4  # epochs without updates of the strategy
REWARD_WINDOWS = 4  # windows of validation text that a reward reads, of `batch` rows
PROPOSALS = 100  # architectures that the strategy proposes at the end
_BEGIN, _PROPOSE = 200, 201  # streams of random numbers beside those of `nas.steps`


@flax.struct.dataclass
class Supernet:
    """Shared weights and Adam's moments; a matrix that a cell does not use rests."""

    params: Params
    first: Params  # first moments, shaped as params
    second: Params  # second moments
    updates: Array  # [] int32
    uses: Array  # [E] int32; updates of each recurrent matrix


class Searched(NamedTuple):
    """S supernets, each with the strategy that chose its cells."""

    bits: np.ndarray  # [S, n] validation bits a character of the given cells
    proposals: np.ndarray  # [S, PROPOSALS, T] int32; what the strategy proposes at the end
    online: np.ndarray  # [S, EPOCHS] bits a character, means over an epoch
    skipped: np.ndarray  # [S] updates that were dropped because they were not finite


class Program(NamedTuple):
    """Supernets under one strategy; each function is compiled once for a number of seeds."""

    start: Callable[..., Any]  # (seeds [S], None) -> states
    # (states, (number [], Text)) -> states, (online [S], skipped [S]); states are donated
    epoch: Callable[..., Any]
    propose: Callable[..., Array]  # (states, None) -> [S, PROPOSALS, T] int32
    score: Callable[..., Array]  # (states, (decisions [n, T], tokens)) -> [S, n] bits


def reward(space: RecurrentSpace, recipe: Recipe, types: int) -> Reward:
    """The shared weights as a source of rewards: minus bits a character on a batch of text.

    `train` takes a batch of tokens [B, window + 1] and of whether rows begin anew [B]; `score` and
    `evaluate` take tokens [B, steps + 1].
    """
    rate, clip = training.learning_rate(recipe), optax.clip_by_global_norm(recipe.clip)

    def init(key: Array) -> Supernet:
        params = network.init(space, recipe, types, key)
        zeros = jax.tree.map(jnp.zeros_like, params)
        uses = jnp.zeros(len(params["recurrent"]), jnp.int32)
        return Supernet(params, zeros, jax.tree.map(jnp.copy, zeros), jnp.int32(0), uses)

    def train(state, carry, decisions, batch, key, epoch, axis_name=None):
        del key, epoch, axis_name
        tokens, begins = batch
        cell = shared.read_cell(space, decisions)
        hidden = jnp.where(begins[:, None], 0.0, carry)
        used, first, second = (
            shared.gather(tree, cell) for tree in (state.params, state.first, state.second)
        )

        def loss(used):
            return network.loss(used, cell, tokens, hidden, max_norm=recipe.max_norm)

        (value, hidden), gradient = jax.value_and_grad(loss, has_aux=True)(used)
        gradient, finite = training.finite_or_zero(value, gradient)
        gradient, _ = clip.update(gradient, clip.init(used))
        updates, uses = state.updates + 1, state.uses.at[cell.edge].add(1)
        times = dict.fromkeys(used, updates) | {"recurrent": tuple(uses[cell.edge])}
        moved = jax.tree.map(_adam, first, second, gradient, times)
        direction, first_change, second_change = jax.tree.transpose(
            jax.tree.structure(used), jax.tree.structure((0, 0, 0)), moved
        )
        change = jax.tree.map(lambda leaf: -rate(state.updates) * leaf, direction)
        added = zip(
            (state.params, state.first, state.second),
            (change, first_change, second_change),
            strict=True,
        )
        state = Supernet(*(shared.add(tree, cell, of) for tree, of in added), updates, uses)
        return state, hidden, {"loss": value, "skipped": 1.0 - finite.astype(jnp.float32)}

    def bits(state, decisions, tokens):
        def one(decisions):
            cell = shared.read_cell(space, decisions)
            used, hidden = shared.gather(state.params, cell), jnp.zeros((len(tokens), recipe.width))
            return network.loss(used, cell, tokens, hidden, max_norm=recipe.max_norm)[0]

        return jax.lax.map(one, decisions) / np.float32(np.log(2))

    return Reward(
        init,
        lambda rows: jnp.zeros((rows, recipe.width)),
        train,
        lambda state, decisions, tokens: -bits(state, decisions, tokens),
        bits,
    )


def program(config: Config, space: RecurrentSpace, recipe: Recipe, types: int) -> Program:
    """The functions of supernets whose cells are chosen by the strategy of `config`.

    Args:
      recipe: `steps` is the number of steps of the shared weights.
    """
    search = dataclasses.replace(config.search, controller_steps=UPDATES)
    config = dataclasses.replace(config, search=search)
    policy = build_policy(config.policy, space)
    strategy = build_strategy(config.strategy, space, policy)
    parts = Components(
        Task("recurrent", space, None, None), policy, strategy, reward(space, recipe, types)
    )
    begin, train = steps.epoch_start(config, parts), steps.shared_chunk(config, parts)
    control, length = steps.controller_chunk(config, parts), recipe.steps // EPOCHS
    first_update = EPOCHS if config.policy["name"] == "uniform" else WARMUP  # nothing to update

    def start(seed: Array, _) -> tuple[SearchState, Array]:
        first, second = jax.random.split(jax.random.fold_in(jax.random.key(seed), _BEGIN))
        state = steps.unvalidated(space, seed, strategy.init(first), parts.reward.init(second))
        return state, parts.reward.initial_carry(recipe.batch)

    def epoch(lane, common):
        (state, carry), (number, text) = lane, common
        state, _, _ = begin(state, (), None, number, None)
        numbers = number * length + jnp.arange(length, dtype=jnp.int32)
        windows = training.reader(recipe, training.text_key(state.seed), text.train)
        batches = jax.vmap(windows)(numbers)
        state, carry, (info, _) = train(state, carry, batches, (numbers, number), None)
        numbers = number * UPDATES + jnp.arange(UPDATES, dtype=jnp.int32)
        read = reward_batches(recipe, text.validation)
        batches = read[numbers % len(read)]
        state = jax.lax.cond(
            number >= first_update,
            lambda: control(state, (), batches, (numbers, number), None)[0],
            lambda: state,
        )
        online = jnp.mean(info["loss"]) / np.float32(np.log(2))
        return (state, carry), (online, jnp.sum(info["skipped"]))

    def propose(lane, _):
        state, _ = lane
        key = jax.random.fold_in(jax.random.key(state.seed), _PROPOSE)
        return strategy.propose(state.strategy, key, PROPOSALS)

    def score(lane, common):
        return parts.reward.evaluate(lane[0].reward, *common)

    return Program(
        lanes.over_lanes(start),
        lanes.over_lanes(epoch, donated=(0,)),
        lanes.over_lanes(propose),
        lanes.over_lanes(score),
    )


def reward_batches(recipe: Recipe, validation: Array) -> Array:
    """[held_out // batch, batch, REWARD_WINDOWS * window + 1] int32: batches that rewards read in
    turn, the beginnings of the validation sequences.
    """
    count = max(1, recipe.held_out // recipe.batch)
    read = training.sequences(recipe, validation)[: count * recipe.batch]
    return read.reshape(count, -1, read.shape[1])[:, :, : REWARD_WINDOWS * recipe.window + 1]


def run(
    compiled: Program,
    seeds: Sequence[int],
    text: Text,
    decisions: np.ndarray,
    recipe: Recipe,
    advance: Callable[[], None] = lambda: None,
) -> Searched:
    """Trains supernets of these seeds and evaluates cells [n, T] under them, on every fourth of the
    sequences on which a cell alone is validated.

    Args:
      advance: called after every epoch.
    """
    states, logged = compiled.start(np.asarray(seeds, np.uint32), None), []
    for number in range(EPOCHS):
        states, recorded = compiled.epoch(states, (np.int32(number), text))
        logged.append(jax.tree.map(np.asarray, recorded))
        advance()
    tokens = training.sequences(recipe, text.validation)[::4]
    bits = compiled.score(states, (np.asarray(decisions, np.int32), tokens))
    online, skipped = (np.stack(of, axis=1)[: len(seeds)] for of in zip(*logged, strict=True))
    bits, proposals = (
        np.asarray(of)[: len(seeds)] for of in (bits, compiled.propose(states, None))
    )
    return Searched(bits, proposals, online, skipped.sum(axis=1))


def _adam(first, second, gradient, times):
    """Direction of an array's update number `times` [], and the changes of both its moments."""
    first_change = (1 - training.BETAS[0]) * (gradient - first)
    second_change = (1 - training.BETAS[1]) * (gradient**2 - second)
    times = times.astype(jnp.float32)
    mean = (first + first_change) / (1 - training.BETAS[0] ** times)
    square = (second + second_change) / (1 - training.BETAS[1] ** times)
    return mean / (jnp.sqrt(square) + training.EPSILON), first_change, second_change
