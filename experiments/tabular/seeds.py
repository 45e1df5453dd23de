"""One arm over many seeds in one program: the update steps of the search, on a table of rewards
instead of shared weights.

Seeds are spread over all devices. On a device they run one after another inside the compiled
program on CPUs, where that is faster, and side by side (`vmap`) on accelerators.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import lanes
from experiments.tabular import settings
from nas import steps
from nas.config import Config
from nas.controllers import build_policy
from nas.spaces import SearchSpace
from nas.steps import Components, SearchState
from nas.strategies import build_strategy
from nas.supernets.table import table_reward
from nas.tasks import Task
from nas.types import Array, Params, Policy

_START, _DESCRIBE = 100, 101  # streams of random numbers beside those of `nas.steps`


class Searches(NamedTuple):
    """What S searches of one arm left behind; U updates, Q queries."""

    # [S, Q] int32; the row in `space.every()` of each architecture that was evaluated, in order
    queries: np.ndarray
    # [S, U] float32; nats, mean over the architectures of an update; NaN where there is no policy
    entropy: np.ndarray
    policy: Params | None  # parameters with a leading axis S


class Described(NamedTuple):
    """What S policies are."""

    log_probs: np.ndarray  # [S, n] float32; of every architecture, exact
    own: np.ndarray  # [S, k, T] int32; samples
    own_embedding: np.ndarray | None  # [S, k, H] state after the last decision; None: it has none
    embedding: np.ndarray | None  # [S, m, H] of the architectures that were given


class Program(NamedTuple):
    """An arm, each function compiled once for a number of seeds."""

    # ((seeds [S], rewards [S, n], weights: name -> [S]), None) -> states
    start: Callable[..., SearchState]
    epoch: Callable[
        ..., Any
    ]  # (states, number []) -> states, (queries [S, K A], entropy [S, K]); states are donated
    describe: Callable[..., Described]  # ((seeds [S], policies), decisions [m, T]) -> Described


def components(config: Config, space: SearchSpace) -> Components:
    """The pure functions of an arm; the rewards of its states are those that `run` is given."""
    policy = build_policy(config.policy, space)
    strategy = build_strategy(config.strategy, space, policy)
    task = Task(config.task, space, None, None)
    return Components(task, policy, strategy, table_reward(space, np.zeros(len(space.every()))))


def program(
    config: Config, parts: Components, *, mapped: bool | None = None, devices: int | None = None
) -> Program:
    """The arm's functions; an epoch is `config.search.controller_steps` updates.

    Args:
      mapped: whether seeds run one after another on a device; None: on CPUs only.
      devices: how many to use; None: all.
    """
    count, space = config.search.controller_steps, parts.task.space
    begin, update = steps.epoch_start(config, parts), steps.controller_chunk(config, parts)

    def begin_search(lane, _) -> SearchState:
        seed, rewards, weights = lane
        key = jax.random.fold_in(jax.random.key(seed), _START)
        strategy = parts.strategy.init(key)
        if weights:
            strategy = strategy.replace(weights=strategy.weights.replace(**weights))
        return steps.unvalidated(space, seed, strategy, table_reward(space, rewards).init(key))

    def epoch(state: SearchState, number: Array):
        state, _, _ = begin(state, (), None, number, None)
        indices = number * count + jnp.arange(count, dtype=jnp.int32)
        state, _, (info, decisions, _) = update(
            state, (), (), (indices, number), None
        )  # a table reads no batch
        return state, (
            space.index(decisions).ravel(),
            info.get("entropy", jnp.full(count, jnp.nan)),
        )

    def describe(lane, decisions) -> Described:
        seed, params = lane
        own = parts.policy.sample(
            params, jax.random.fold_in(jax.random.key(seed), _DESCRIBE), settings.OWN_SAMPLES
        )
        traces = [parts.policy.score(params, some) for some in (own, decisions)]
        embeddings = [None if trace.hidden is None else trace.embedding() for trace in traces]
        return Described(every_log_prob(space, parts.policy, params), own, *embeddings)

    over_lanes = functools.partial(lanes.over_lanes, mapped=mapped, devices=devices)
    return Program(
        over_lanes(begin_search),
        over_lanes(epoch, donated=(0,)),
        over_lanes(describe),
    )


def run(
    compiled: Program,
    parts: Components,
    seeds: Sequence[int],
    rewards: np.ndarray,
    epochs: int,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Searches:
    """Runs an arm.

    Args:
      compiled, parts: from `program` and `components`.
      seeds: [S].
      rewards: [n] or [S, n], what the searches see of every architecture.
      epochs: how many to run.
      weights: numbers of the objective (fields of `Weights`) by seed, in the place of the
        configuration's.
      progress: called after every epoch.
    """
    states, logged = start(compiled, seeds, rewards, weights), []
    for number in range(epochs):
        states, recorded = compiled.epoch(states, np.int32(number))
        logged.append(jax.tree.map(np.asarray, recorded))
        progress()
    queries, entropy = (
        np.concatenate(columns, axis=1)[: len(seeds)] for columns in zip(*logged, strict=True)
    )
    params = parts.strategy.policy_params(states.strategy)
    return Searches(queries, entropy, jax.tree.map(lambda leaf: leaf[: len(seeds)], params))


def start(
    compiled: Program,
    seeds: Sequence[int],
    rewards: np.ndarray,
    weights: Mapping[str, np.ndarray] | None = None,
) -> SearchState:
    """The states before the first update; arguments as for `run`."""
    rewards = np.broadcast_to(np.asarray(rewards, np.float32), (len(seeds), np.shape(rewards)[-1]))
    weights = {name: np.asarray(values, np.float32) for name, values in (weights or {}).items()}
    return compiled.start((np.asarray(seeds, np.uint32), rewards, weights), None)


def every_log_prob(space: SearchSpace, policy: Policy, params: Params) -> Array:
    """[n] log probability of every architecture: their decisions but the last, then all choices of
    that.
    """
    choices = space.num_choices[-1]
    trace = policy.score(params, jnp.asarray(space.every()[::choices]))
    before = jnp.sum(trace.log_prob[:, :-1], axis=1)
    return (before[:, None] + trace.log_probs[:, -1, :choices]).ravel()
