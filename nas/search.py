"""The search: phases that train shared weights alternate with phases that train the strategy.

Works on a strategy and a reward, and knows nothing of either's inside. Steps run in compiled chunks; between chunks the
run logs, can be interrupted, and may save. Every random number comes from (seed, phase, step), so a run that was
interrupted continues to the same numbers.
"""

import dataclasses
import json
import pathlib
import signal
import time
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from nas import metrics
from nas.checkpoint import Checkpoints
from nas.config import Config
from nas.controllers import POLICIES
from nas.data.tokens import Windows
from nas.errors import UserError
from nas.rewards import supernet_reward
from nas.spaces import RecurrentSpace
from nas.strategies import STRATEGIES
from nas.types import Array, Batch, Policy, Reward, Strategy

ARCHITECTURES = "architectures.npz"
_INIT, _SHARED, _CONTROLLER, _REFRESH, _VALIDATE = range(5)  # streams of random numbers


class Components(NamedTuple):
    """What a configuration describes."""

    space: RecurrentSpace
    policy: Policy
    strategy: Strategy
    reward: Reward


@flax.struct.dataclass
class SearchState:
    """All arrays that the continuation of a run depends on."""

    strategy: Any
    reward: Any
    carry: Any  # recurrent state of the training stream
    best_log_perplexity: Array  # [] of all architectures validated so far
    best_decisions: Array  # [T] int32


@dataclasses.dataclass
class Progress:
    """Where a run is: all that the continuation depends on besides arrays."""

    epoch: int = 0
    shared: int = 0  # steps of this epoch that are done
    controller: int = 0


def components(config: Config) -> Components:
    """The pure functions of a run.

    Raises:
      UserError: settings that do not go together.
    """
    space = RecurrentSpace(num_nodes=config.nodes)
    policy = POLICIES[config.policy.name](space, config.policy)
    strategy = STRATEGIES[config.strategy.name](space, policy, config)
    return Components(space, policy, strategy, supernet_reward(space, config.supernet, config.data.vocabulary))


def initial_state(config: Config, parts: Components) -> SearchState:
    """The state before the first step."""
    strategy_key, reward_key = jax.random.split(_key(config, _INIT, 0))
    return SearchState(
        strategy=parts.strategy.init(strategy_key),
        reward=parts.reward.init(reward_key),
        carry=parts.reward.initial_carry(config.data.batch),
        best_log_perplexity=jnp.float32(jnp.inf),
        best_decisions=jnp.zeros(parts.space.num_decisions, jnp.int32),
    )


def shared_chunk(config: Config, parts: Components):
    """The jitted function that trains shared weights on K windows, each with an architecture of the strategy's."""

    def run(state: SearchState, batches: Batch, first_step: Array, epoch: Array):
        def step(carried, x):
            reward, carry = carried
            batch, index = x
            propose_key, train_key = jax.random.split(_key(config, _SHARED, index))
            decisions = parts.strategy.propose(state.strategy, propose_key, 1)[0]
            reward, carry, info = parts.reward.train(reward, carry, decisions, batch, train_key, epoch)
            return (reward, carry), (info, decisions)

        steps = first_step + jnp.arange(len(batches.start), dtype=jnp.int32)
        (reward, carry), (info, decisions) = jax.lax.scan(step, (state.reward, state.carry), (batches, steps))
        return state.replace(reward=reward, carry=carry), info, decisions

    return jax.jit(run, donate_argnums=0)


def controller_chunk(config: Config, parts: Components):
    """The jitted function that updates the strategy K times, each on the rewards of A of its architectures."""

    def run(state: SearchState, batches: Batch, first_step: Array):
        def step(strategy, x):
            batch, index = x
            propose_key, update_key = jax.random.split(_key(config, _CONTROLLER, index))
            decisions = parts.strategy.propose(strategy, propose_key, config.search.architectures)
            rewards = parts.reward.score(state.reward, decisions, batch)
            strategy, info = parts.strategy.update(strategy, decisions, rewards, update_key)
            return strategy, (info, decisions, rewards)

        steps = first_step + jnp.arange(len(batches.start), dtype=jnp.int32)
        strategy, logged = jax.lax.scan(step, state.strategy, (batches, steps))
        return state.replace(strategy=strategy), *logged

    return jax.jit(run, donate_argnums=0)


def run(config: Config, workdir: pathlib.Path, train: Windows, valid: Windows, *, progress_bar: bool = True) -> SearchState:
    """Runs or resumes the search in `workdir` until its last epoch, a signal, or a fault.

    Args:
      train: windows of the training stream, `config.data.batch` rows.
      valid: windows of the validation stream, `config.data.eval_batch` rows; rewards and validation use them.

    Raises:
      UserError: a number that is not finite (step, architecture and last good checkpoint are named), or a checkpoint that
        cannot be read or written.
      Interrupted: SIGTERM or Ctrl-C, after the chunk was finished and saved.
    """
    return _Search(config, workdir, train, valid, progress_bar).run()


class Interrupted(Exception):
    """The run was asked to stop and has saved; `code` is the exit code that says so."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class _Search:
    """One process's search; the methods are the phases."""

    def __init__(self, config, workdir, train, valid, progress_bar):
        self.config, self.workdir, self.train, self.valid = config, workdir, train, valid
        self.parts = components(config)
        self.checkpoints = Checkpoints(workdir, config.search.keep)
        self.state = initial_state(config, self.parts)
        self.progress = Progress()
        self.architectures = {"decisions": [], "rewards": []}
        if restored := self.checkpoints.restore(self.state):
            self.state, saved = restored
            self.progress = Progress(**saved)
            self._read_architectures()
        self.shared = shared_chunk(config, self.parts)
        self.controller = controller_chunk(config, self.parts)
        self.begin_epoch = jax.jit(self._begin_epoch, donate_argnums=0)
        self.validate = jax.jit(self._validate)
        self.writer = metrics.Writer(workdir, self._limits())
        self.signal = None
        self.progress_bar = progress_bar

    def run(self):
        from tqdm import tqdm

        search = self.config.search
        per_epoch = search.shared_steps + search.controller_steps
        done = self.progress.epoch * per_epoch + self.progress.shared + self.progress.controller
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with tqdm(
                total=search.epochs * per_epoch, initial=done, unit="step", disable=not self.progress_bar, mininterval=0.5
            ) as bar:
                self.bar = bar
                while self.progress.epoch < search.epochs:
                    self._epoch()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.writer.close()
            self.checkpoints.close()
        return self.state

    def _epoch(self):
        search, progress = self.config.search, self.progress
        while progress.shared < search.shared_steps:
            self._shared_chunk(min(search.chunk, search.shared_steps))
        controller_steps = search.controller_steps if progress.epoch >= search.warmup_epochs else 0
        if progress.controller == 0 and controller_steps:
            self.state = self.begin_epoch(
                self.state, _key(self.config, _REFRESH, progress.epoch), jnp.int32(progress.epoch - search.warmup_epochs)
            )
        while progress.controller < controller_steps:
            self._controller_chunk(min(search.chunk, controller_steps))
        self._end_epoch()

    def _shared_chunk(self, count):
        progress, started = self.progress, time.perf_counter()
        first = progress.epoch * self.config.search.shared_steps + progress.shared
        batches = self.train.take(first, count)
        self.state, info, decisions = self.shared(self.state, batches, jnp.int32(first), jnp.int32(progress.epoch))
        info = jax.device_get(info)
        self._check_finite("shared", first, info, np.asarray(decisions)[:, None])
        self.writer.write("shared", progress.epoch, first, info, time.perf_counter() - started)
        progress.shared += count
        self._advance(count, perplexity=float(np.exp(info["loss"].mean())))

    def _controller_chunk(self, count):
        progress, started = self.progress, time.perf_counter()
        first = self._controller_step()
        batches = self.valid.take(first, count)
        self.state, info, decisions, rewards = self.controller(self.state, batches, jnp.int32(first))
        info, decisions, rewards = jax.device_get((info, decisions, rewards))
        self._check_finite("controller", first, info | {"reward of an architecture": rewards}, decisions)
        self.writer.write("controller", progress.epoch, first, info, time.perf_counter() - started)
        self.architectures["decisions"].append(decisions.reshape(-1, decisions.shape[-1]))
        self.architectures["rewards"].append(rewards.reshape(-1))
        progress.controller += count
        self._advance(count, reward=float(info["reward"].mean()), entropy=float(info["entropy"].mean()))

    def _advance(self, count, **shown):
        self.shown = getattr(self, "shown", {}) | {name: f"{value:.4g}" for name, value in shown.items()}
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(count)
        if self.signal is not None:
            self._save()
            name = signal.Signals(self.signal).name
            code = 130 if self.signal == signal.SIGINT else 0
            raise Interrupted(code, f"{name}: saved at {self._where()}; run the same command again to continue")

    def _end_epoch(self):
        search, progress = self.config.search, self.progress
        started = time.perf_counter()
        windows = self.valid.head(self.config.data.eval_tokens)
        self.state, values = self.validate(self.state, windows, _key(self.config, _VALIDATE, progress.epoch))
        values = np.exp(np.asarray(values, np.float64))
        info = {"perplexity_best": values.min(), "perplexity_mean": values.mean(), "perplexity_worst": values.max()}
        info = {name: np.array([value]) for name, value in info.items()}
        self.writer.write("valid", progress.epoch, progress.epoch, info, time.perf_counter() - started)
        self.progress = Progress(progress.epoch + 1)
        if self.progress.epoch % search.checkpoint_epochs == 0 or self.progress.epoch == search.epochs:
            self._save()

    def _begin_epoch(self, state, key, epoch):
        return state.replace(strategy=self.parts.strategy.begin_epoch(state.strategy, key, epoch))

    def _validate(self, state, windows, key):
        decisions = self.parts.strategy.propose(state.strategy, key, self.config.search.valid_architectures)
        values = self.parts.reward.evaluate(state.reward, decisions, windows)
        best = jnp.argmin(values)
        better = values[best] < state.best_log_perplexity
        return state.replace(
            best_log_perplexity=jnp.where(better, values[best], state.best_log_perplexity),
            best_decisions=jnp.where(better, decisions[best], state.best_decisions),
        ), values

    def _save(self):
        step = self.progress.epoch * (self.config.search.shared_steps + self.config.search.controller_steps)
        step += self.progress.shared + self.progress.controller
        self._write_architectures()
        self.checkpoints.save(step, self.state, dataclasses.asdict(self.progress))

    def _check_finite(self, phase, first, values, decisions):
        """decisions: [K, A, T] of the steps that `values` [K, ...] belong to."""
        for name, column in values.items():
            bad = ~np.isfinite(column.reshape(len(column), -1))
            if bad.any():
                step = int(bad.any(axis=1).argmax())
                row = int(bad[step].argmax()) if bad.shape[1] == decisions.shape[1] else 0
                saved = self.checkpoints.steps()
                raise UserError(
                    f"{name} is not finite at {phase} step {first + step}, architecture "
                    f"'{self.parts.space.format(decisions[step, row])}'; last good checkpoint: "
                    f"{saved[-1] if saved else 'none'} in {self.workdir}"
                )

    def _controller_step(self):
        warmup = self.config.search.warmup_epochs
        return max(0, self.progress.epoch - warmup) * self.config.search.controller_steps + self.progress.controller

    def _limits(self):
        """phase -> first step that is still to be logged."""
        shared = self.progress.epoch * self.config.search.shared_steps + self.progress.shared
        return {"shared": shared, "controller": self._controller_step(), "valid": self.progress.epoch}

    def _write_architectures(self):
        arrays = {name: np.concatenate(parts) for name, parts in self.architectures.items() if parts}
        if arrays:
            temporary = self.workdir / f"{ARCHITECTURES}.tmp"
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
            temporary.replace(self.workdir / ARCHITECTURES)

    def _read_architectures(self):
        count = self._controller_step() * self.config.search.architectures
        if count:
            with np.load(self.workdir / ARCHITECTURES) as saved:
                self.architectures = {name: [saved[name][:count]] for name in saved.files}

    def _on_signal(self, number, frame):
        del frame
        self.signal = number

    def _where(self):
        return json.dumps(dataclasses.asdict(self.progress))


def _key(config: Config, stream: int, step) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), stream), step)
