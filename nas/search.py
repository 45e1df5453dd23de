"""The search: phases that train shared weights alternate with phases that train the strategy.

Works on a strategy and a reward, and knows nothing of either's inside. Steps run in compiled chunks; between chunks the
run logs, can be interrupted, and may save. Every random number comes from (seed, phase, step), so a run that was
interrupted continues to the same numbers.
"""

import contextlib
import dataclasses
import pathlib
import signal
import threading
import time
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from nas import config as configs
from nas import metrics
from nas.checkpoint import Checkpoints, load_arrays, save_arrays
from nas.config import Config
from nas.controllers import POLICIES
from nas.errors import Interrupted, UserError
from nas.parallel import Devices, choose_devices, device_key, gather_over_devices, share
from nas.progress import track
from nas.rewards import supernet_reward
from nas.spaces import RecurrentSpace
from nas.strategies import STRATEGIES
from nas.types import Array, Batch, Policy, Reward, Splits, Strategy

ARCHITECTURES = "architectures.npz"
_INIT, _SHARED, _CONTROLLER, _REFRESH, _VALIDATE, _MEASURE = range(6)  # streams of random numbers


class Components(NamedTuple):
    """What a configuration describes."""

    space: RecurrentSpace
    policy: Policy
    strategy: Strategy
    reward: Reward


@flax.struct.dataclass
class SearchState:
    """All arrays that the continuation of a run depends on, but for the recurrent state of the training stream.

    Equal on all devices.
    """

    seed: Array  # [] uint32; traced, so that one compilation serves every seed
    strategy: Any
    reward: Any
    best_loss: Array  # [] of all architectures validated so far
    best_decisions: Array  # [T] int32


@dataclasses.dataclass
class Progress:
    """Where a run is: all that the continuation depends on besides arrays."""

    epoch: int = 0
    shared: int = 0  # steps of this epoch that are done
    controller: int = 0
    architectures: int = 0  # scored so far: how many a step has depends on the devices, which may change

    @classmethod
    def of(cls, saved: dict[str, Any], config: Config) -> "Progress":
        """What `_Search` saved beside the arrays of a checkpoint.

        Raises:
          UserError: the checkpoint is of another configuration than `config`; names the fields.
        """
        stored = configs.from_dict(saved.get("config", dataclasses.asdict(config)))
        if differing := configs.difference(stored, config):
            raise UserError(f"the checkpoint is of another configuration: {'; '.join(differing)}")
        return cls(**{field.name: saved[field.name] for field in dataclasses.fields(cls)})


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
    seed = jnp.uint32(config.seed)
    strategy_key, reward_key = jax.random.split(_key(seed, _INIT, 0))
    return SearchState(
        seed=seed,
        strategy=parts.strategy.init(strategy_key),
        reward=parts.reward.init(reward_key),
        best_loss=jnp.float32(jnp.inf),
        best_decisions=jnp.zeros(parts.space.num_decisions, jnp.int32),
    )


def initial_checkpoint(config: Config, parts: Components) -> dict[str, Any]:
    """What a checkpoint holds, before the first step."""
    return {"search": initial_state(config, parts), "carry": parts.reward.initial_carry(config.data.batch)}


def shared_chunk(config: Config, parts: Components):
    """The function (for `Devices.lift`) that trains shared weights on K batches, each with an architecture a device.

    batch: K stacked; common: numbers of the steps [K] int32, epoch. Logs what `Reward.train` does, and the
    decisions [K, D, T] of all devices.
    """

    def run(state: SearchState, carry, batch: Batch, common, axis_name):
        steps, epoch = common

        def step(carried, x):
            reward, carry = carried
            batch, index = x
            propose_key, train_key = jax.random.split(device_key(_key(state.seed, _SHARED, index), axis_name))
            decisions = parts.strategy.propose(state.strategy, propose_key, 1)
            reward, carry, info = parts.reward.train(reward, carry, decisions[0], batch, train_key, epoch, axis_name)
            return (reward, carry), (info, gather_over_devices(decisions, axis_name))

        (reward, carry), logged = jax.lax.scan(step, (state.reward, carry), (batch, steps))
        return state.replace(reward=reward), carry, logged

    return run


def controller_chunk(config: Config, parts: Components):
    """The function (for `Devices.lift`) that updates the strategy K times, on the rewards of A architectures a device.

    batch and common as for `shared_chunk`. Logs what `Strategy.update` does, decisions [K, D A, T] and rewards [K, D A].
    """

    def run(state: SearchState, carry, batch: Batch, common, axis_name):
        steps, _ = common

        def step(strategy, x):
            batch, index = x
            propose_key, update_key = jax.random.split(device_key(_key(state.seed, _CONTROLLER, index), axis_name))
            decisions = parts.strategy.propose(strategy, propose_key, config.search.architectures)
            rewards = parts.reward.score(state.reward, decisions, batch)
            strategy, info = parts.strategy.update(strategy, decisions, rewards, update_key, axis_name)
            return strategy, (info, *gather_over_devices((decisions, rewards), axis_name))

        strategy, logged = jax.lax.scan(step, state.strategy, (batch, steps))
        return state.replace(strategy=strategy), carry, logged

    return run


def epoch_start(config: Config, parts: Components):
    """The function (for `Devices.lift`) that tells the strategy of a new epoch (common), with the same key on every device."""

    def run(state: SearchState, carry, batch, epoch, axis_name):
        del batch, axis_name
        strategy = parts.strategy.begin_epoch(state.strategy, _key(state.seed, _REFRESH, epoch), epoch)
        return state.replace(strategy=strategy), carry, ()

    return run


def validation(config: Config, parts: Components):
    """The function (for `Devices.lift`) that evaluates some of the strategy's architectures and keeps the best.

    common: validation batches, stacked, and epoch. Logs their decisions [n, T] and losses [n], and what the
    strategy measures.
    """

    def run(state: SearchState, carry, batch, common, axis_name):
        del batch
        batches, epoch = common
        key = _key(state.seed, _VALIDATE, epoch)
        decisions = parts.strategy.propose(state.strategy, key, config.search.valid_architectures)
        values = share(lambda own: parts.reward.evaluate(state.reward, own, batches), decisions, axis_name)
        best = jnp.nanargmin(values)
        better = values[best] < state.best_loss
        state = state.replace(
            best_loss=jnp.where(better, values[best], state.best_loss),
            best_decisions=jnp.where(better, decisions[best], state.best_decisions),
        )
        measured = parts.strategy.measure(state.strategy, _key(state.seed, _MEASURE, epoch))
        return state, carry, (decisions, values, measured)

    return run


def check(config: Config, devices: Devices) -> None:
    """Whether `run` could start, asked before anything is written.

    Raises:
      UserError: settings that do not go together, or rows that cannot be divided over the devices.
    """
    components(config)
    for name in ("batch", "eval_batch"):
        devices.rows(f"data.{name}", getattr(config.data, name))


def run(
    config: Config,
    workdir: pathlib.Path,
    splits: Splits,
    *,
    devices: Devices | None = None,
) -> SearchState:
    """Runs or resumes the search in `workdir` until its last epoch, a signal, or a fault.

    Args:
      splits: of the training split batches of `config.data.batch` rows, of validation `config.data.eval_batch`, which rewards
        and validation use; each process and device takes its share of the rows.
      devices: from `choose_devices`; None: its choice.

    Raises:
      UserError: a number that is not finite (step, architecture and last good checkpoint are named), a checkpoint that
        cannot be read or written, or rows that cannot be divided over the devices.
      Interrupted: SIGTERM or Ctrl-C, after the chunk was finished and saved.
    """
    return _Search(config, workdir, splits, devices or choose_devices()).run()


def _for_one_call():
    """Options of a program that runs once: on processors, optimising it takes longer than it saves."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


class _Search:
    """One process's search; the methods are the phases."""

    def __init__(self, config, workdir, splits, devices):
        self.config, self.workdir, self.devices = config, workdir, devices
        train_rows = devices.rows("data.batch", config.data.batch)
        self.train = splits.train.share(train_rows)
        self.valid = splits.valid.share(devices.rows("data.eval_batch", config.data.eval_batch))
        self.eval_batches = splits.valid.head(config.data.eval_tokens)
        parts = self.parts = components(config)
        self.shared = devices.lift(shared_chunk(config, parts))
        self.checkpoints = Checkpoints(workdir, config.search.keep) if devices.is_main else None
        first = jax.jit(lambda: initial_checkpoint(config, parts), compiler_options=_for_one_call()).trace()
        begins = devices.kind == "jit" and not self.checkpoints.steps()
        compiling = self._compile_shared_ahead(first.out_info) if begins else None
        state, carry = self._restore(first)
        self.state = devices.replicate(state)
        self.carry = devices.split(jax.tree.map(lambda leaf: leaf[train_rows], carry))
        self.controller = devices.lift(controller_chunk(config, parts))
        self.epoch_start = devices.lift(epoch_start(config, parts))
        self.validation = devices.lift(validation(config, parts))
        self.writer = metrics.Writer(workdir, self._limits()) if devices.is_main else None
        self.signal = 0
        if compiling:
            compiling.join()

    def _compile_shared_ahead(self, shapes):
        """The thread that does it while the first state is made, of which the operations have to be compiled too."""
        search = self.config.search

        def compile_it():
            # A fault would come again when the chunk is called, and is reported then.
            with contextlib.suppress(Exception):
                count = min(search.chunk, search.shared_steps)
                batch, common = self.train.take(0, count), _common(0, count, epoch=0)
                self.shared.compiled.lower(shapes["search"], shapes["carry"], batch, common).compile()

        thread = threading.Thread(target=compile_it, daemon=True)
        thread.start()
        return thread

    def run(self):
        search = self.config.search
        total = search.epochs * search.shared_steps + max(0, search.epochs - search.warmup_epochs) * search.controller_steps
        done = self._shared_step() + self._controller_step()
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with (
                np.errstate(over="ignore"),  # of the perplexity of a run that diverges: what stops it is checked
                self._tracked(total, done) as self.advance,
            ):
                while self.progress.epoch < search.epochs:
                    self._epoch()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if self.devices.is_main:
                self.writer.close()
                self.checkpoints.close()
        return self.devices.first(self.state)

    def _epoch(self):
        search, progress = self.config.search, self.progress
        while progress.shared < search.shared_steps:
            self._shared_chunk(min(search.chunk, search.shared_steps))
        controller_steps = search.controller_steps if progress.epoch >= search.warmup_epochs else 0
        if progress.controller == 0 and controller_steps:
            epoch = np.int32(progress.epoch - search.warmup_epochs)
            self.state, self.carry, _ = self.epoch_start(self.state, self.carry, None, epoch)
        while progress.controller < controller_steps:
            self._controller_chunk(min(search.chunk, controller_steps))
        self._end_epoch()

    def _shared_chunk(self, count):
        progress, started = self.progress, time.perf_counter()
        first = self._shared_step()
        common = _common(first, count, progress.epoch)
        self.state, self.carry, (info, decisions) = self.shared(self.state, self.carry, self.train.take(first, count), common)
        self._check_finite("shared", first, info, decisions)
        self._log("shared", first, info, started)
        progress.shared += count
        self._advance(count, perplexity=np.exp(info["loss"].mean()))

    def _controller_chunk(self, count):
        progress, started = self.progress, time.perf_counter()
        first = self._controller_step()
        common = _common(first, count, progress.epoch)
        self.state, self.carry, (info, decisions, rewards) = self.controller(
            self.state, self.carry, self.valid.take(first, count), common
        )
        self._check_finite("controller", first, {"reward of an architecture": rewards} | info, decisions)
        self._log("controller", first, info, started)
        self.architectures["decisions"].append(decisions.reshape(-1, decisions.shape[-1]))
        self.architectures["rewards"].append(rewards.reshape(-1))
        progress.controller += count
        progress.architectures += rewards.size
        self._advance(count, **{name: info[name].mean() for name in ("reward", "entropy") if name in info})

    def _tracked(self, total, done):
        if self.devices.is_main:
            return track("search", total=total, unit="step", done=done)
        return contextlib.nullcontext(lambda *_, **__: None)

    def _advance(self, count, **shown):
        epoch = f"{self.progress.epoch + 1}/{self.config.search.epochs}"
        self.advance(count, epoch=epoch, **{name: f"{value:.4g}" for name, value in shown.items()})
        if number := self.devices.agree(self.signal):
            self._save()
            code = 130 if number == signal.SIGINT else 0
            where = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(self.progress).items())
            raise Interrupted(code, f"{signal.Signals(number).name}: saved at {where}; run the same command again to continue")

    def _end_epoch(self):
        search, started = self.config.search, time.perf_counter()
        epoch = self.progress.epoch
        common = (self.eval_batches, np.int32(epoch))
        self.state, self.carry, (decisions, values, measured) = self.validation(self.state, self.carry, None, common)
        self._check_finite("validation", epoch, {"loss of an architecture": values[None]}, decisions[None])
        self.devices.check_replicas(self.state)
        info = {"loss_best": values.min(), "loss_mean": values.mean(), "loss_worst": values.max()}
        if epoch >= search.warmup_epochs:  # before, no strategy has begun
            info |= measured
        self._log("valid", epoch, {name: np.array([value]) for name, value in info.items()}, started)
        self.progress = Progress(epoch + 1, architectures=self.progress.architectures)
        if self.progress.epoch % search.checkpoint_epochs == 0 or self.progress.epoch == search.epochs:
            self._save()

    def _log(self, phase, first_step, values, started):
        if self.devices.is_main:
            self.writer.write(phase, self.progress.epoch, first_step, values, time.perf_counter() - started)

    def _check_finite(self, phase, first, values, decisions):
        """decisions: [K, A, T] of the steps that `values` [K, ...] belong to."""
        if self.config.search.on_nonfinite == "skip":
            return
        finite = {name: np.isfinite(column.reshape(len(column), -1)) for name, column in values.items()}
        for step in range(len(decisions)):
            if bad := [(name, ~column[step]) for name, column in finite.items() if not column[step].all()]:
                name, rows = bad[0]  # rewards come before what they spoil
                row = int(rows.argmax())
                saved = self.checkpoints.steps() if self.devices.is_main else []
                raise UserError(
                    f"{name} is not finite at {phase} step {first + step}, architecture "
                    f"'{self.parts.space.format(decisions[step, row])}'; last good checkpoint: "
                    f"{saved[-1] if saved else 'none'} in {self.workdir}; search.on_nonfinite=skip drops such updates"
                )

    def _shared_step(self):
        return self.progress.epoch * self.config.search.shared_steps + self.progress.shared

    def _controller_step(self):
        warmup = self.config.search.warmup_epochs
        return max(0, self.progress.epoch - warmup) * self.config.search.controller_steps + self.progress.controller

    def _limits(self):
        """phase -> first step that is still to be logged."""
        return {"shared": self._shared_step(), "controller": self._controller_step(), "valid": self.progress.epoch}

    def _save(self):
        carry = self.devices.join(self.carry)
        if self.devices.is_main:
            arrays = {name: np.concatenate(parts) for name, parts in self.architectures.items() if parts}
            if arrays:
                save_arrays(self.workdir / ARCHITECTURES, arrays)
            # One more than the steps of an epoch, so that its last step and its end have numbers of their own.
            step = self.progress.epoch * (self.config.search.shared_steps + self.config.search.controller_steps + 1)
            step += self.progress.shared + self.progress.controller
            state = {"search": self.devices.first(self.state), "carry": carry}
            progress = dataclasses.asdict(self.progress) | {"config": dataclasses.asdict(self.config)}
            self.checkpoints.save(step, state, progress)

    def _restore(self, first):
        """State and carry of the newest checkpoint, or else of the traced `first`; the main process provides them to all."""
        progress = Progress()
        if not self.devices.is_main:
            saved = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), first.out_info)
        elif restored := self.checkpoints.restore(first.out_info):
            saved, numbers = restored
            progress = Progress.of(numbers, self.config)
        else:
            saved = first.lower().compile()()
        saved, progress = self.devices.from_main((saved, np.array(dataclasses.astuple(progress), np.int32)))
        self.progress = Progress(*map(int, progress))
        self.architectures = {"decisions": [], "rewards": []}
        count = self.progress.architectures
        if count and self.devices.is_main:
            scored = load_arrays(self.workdir / ARCHITECTURES)
            if set(scored) != set(self.architectures) or min(map(len, scored.values())) < count:
                raise UserError(
                    f"{self.workdir / ARCHITECTURES} is not of this run: it must hold {count} architectures or more"
                )
            self.architectures = {name: [column[:count]] for name, column in scored.items()}
        return saved["search"], saved["carry"]

    def _on_signal(self, number, frame):
        del frame
        self.signal = number


def _common(first, count, epoch):
    """Numbers of so many steps, and the epoch, as the chunks take them."""
    return np.arange(first, first + count, dtype=np.int32), np.int32(epoch)


def _key(seed: Array, stream: int, step) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
