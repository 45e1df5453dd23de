"""What a search computes: its state, and the chunks of steps that devices run, as pure functions.

It works with any strategy and any reward, through their interfaces. Every random number is derived
from (seed, phase, step).
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from nas import tasks
from nas.config import PRECISIONS, Config
from nas.controllers import build_policy
from nas.parallel import device_key, gather_over_devices, share
from nas.spaces import SearchSpace
from nas.strategies import build_strategy
from nas.tasks import Task
from nas.types import Array, Batch, Policy, Reward, Strategy

_INIT, _SHARED, _CONTROLLER, _REFRESH, _VALIDATE, _MEASURE = range(6)  # streams of random numbers


class Components(NamedTuple):
    """What a configuration describes, as pure functions."""

    task: Task
    policy: Policy
    strategy: Strategy
    reward: Reward


@flax.struct.dataclass
class SearchState:
    """All arrays that continuing a run depends on, except the carry of the shared weights.

    Equal on all devices.
    """

    seed: Array  # [] uint32; traced, so that one compilation serves every seed
    strategy: Any
    reward: Any
    best_loss: Array  # [] lowest of all architectures validated so far
    best_decisions: Array  # [T] int32; the architecture that has it


def components(config: Config) -> Components:
    """The pure functions of a run.

    Raises:
      UserError: settings that are not allowed, or do not go together.
    """
    task = tasks.build(config)
    policy = build_policy(config.policy, task.space)
    strategy = build_strategy(config.strategy, task.space, policy)
    reward = task.network.reward(task.space, task.data)
    return Components(task, *(_precise(config, part) for part in (policy, strategy, reward)))


def _precise(config, part):
    """The same functions with matrix products as exact as the configuration says, whatever JAX's
    own setting is.
    """
    in_full = jax.default_matmul_precision(PRECISIONS[config.precision])
    functions = {name: in_full(of) for name, of in part._asdict().items() if callable(of)}
    return part._replace(**functions)


def initial_state(config: Config, parts: Components) -> SearchState:
    """The state before the first step."""
    seed = jnp.uint32(config.seed)
    strategy_key, reward_key = jax.random.split(_key(seed, _INIT, 0))
    strategy, reward = parts.strategy.init(strategy_key), parts.reward.init(reward_key)
    return unvalidated(parts.task.space, seed, strategy, reward)


def unvalidated(space: SearchSpace, seed: Array, strategy: Any, reward: Any) -> SearchState:
    """The state of a search that has validated no architecture yet."""
    nothing = jnp.zeros(space.num_decisions, jnp.int32)
    return SearchState(seed, strategy, reward, jnp.float32(jnp.inf), nothing)


def initial_checkpoint(config: Config, parts: Components) -> dict[str, Any]:
    """What a checkpoint holds, before the first step."""
    carry = parts.reward.initial_carry(parts.task.data.batch)
    return {"search": initial_state(config, parts), "carry": carry}


def shared_chunk(config: Config, parts: Components):
    """The function (for `Devices.lift`) that trains the shared weights on K batches, with one
    architecture per batch and device.

    batch: K stacked batches; common: (step numbers [K] int32, epoch). Logs what `Reward.train`
    logs, and the decisions [K, D, T] of all D devices.
    """

    def run(state: SearchState, carry, batch: Batch, common, axis_name):
        steps, epoch = common

        def step(carried, x):
            reward, carry = carried
            batch, index = x
            propose_key, train_key = jax.random.split(
                device_key(_key(state.seed, _SHARED, index), axis_name)
            )
            decisions = parts.strategy.propose(state.strategy, propose_key, 1)
            reward, carry, info = parts.reward.train(
                reward, carry, decisions[0], batch, train_key, epoch, axis_name
            )
            return (reward, carry), (info, gather_over_devices(decisions, axis_name))

        (reward, carry), logged = jax.lax.scan(step, (state.reward, carry), (batch, steps))
        return state.replace(reward=reward), carry, logged

    return run


def controller_chunk(config: Config, parts: Components):
    """The function (for `Devices.lift`) that updates the strategy K times, each time on the rewards
    of A architectures per device.

    batch and common are as for `shared_chunk`. Logs what `Strategy.update` logs, decisions [K, D A,
    T] and rewards [K, D A].
    """

    def run(state: SearchState, carry, batch: Batch, common, axis_name):
        steps, _ = common

        def step(strategy, x):
            batch, index = x
            propose_key, update_key = jax.random.split(
                device_key(_key(state.seed, _CONTROLLER, index), axis_name)
            )
            decisions = parts.strategy.propose(strategy, propose_key, config.search.architectures)
            rewards = parts.reward.score(state.reward, decisions, batch)
            strategy, info = parts.strategy.update(
                strategy, decisions, rewards, update_key, axis_name
            )
            return strategy, (info, *gather_over_devices((decisions, rewards), axis_name))

        strategy, logged = jax.lax.scan(step, state.strategy, (batch, steps))
        return state.replace(strategy=strategy), carry, logged

    return run


def epoch_start(config: Config, parts: Components):
    """The function (for `Devices.lift`) that begins an epoch of the strategy, with the same key on
    every device; common: the epoch.
    """

    def run(state: SearchState, carry, batch, epoch, axis_name):
        del batch, axis_name
        strategy = parts.strategy.begin_epoch(
            state.strategy, _key(state.seed, _REFRESH, epoch), epoch
        )
        return state.replace(strategy=strategy), carry, ()

    return run


def validation(config: Config, parts: Components):
    """The function (for `Devices.lift`) that validates architectures proposed by the strategy and
    keeps the best one.

    common: (stacked validation batches, epoch). Logs the decisions [n, T] and losses [n] of the
    architectures, and what the strategy measures.
    """

    def run(state: SearchState, carry, batch, common, axis_name):
        del batch
        batches, epoch = common
        key = _key(state.seed, _VALIDATE, epoch)
        decisions = parts.strategy.propose(state.strategy, key, config.search.valid_architectures)
        values = share(
            lambda own: parts.reward.evaluate(state.reward, own, batches), decisions, axis_name
        )
        best = jnp.nanargmin(values)
        better = values[best] < state.best_loss
        state = state.replace(
            best_loss=jnp.where(better, values[best], state.best_loss),
            best_decisions=jnp.where(better, decisions[best], state.best_decisions),
        )
        measured = parts.strategy.measure(state.strategy, _key(state.seed, _MEASURE, epoch))
        return state, carry, (decisions, values, measured)

    return run


def _key(seed: Array, stream: int, step) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
