"""The search: phases that train shared weights alternate with phases that train the strategy.

Steps run in compiled chunks (nas/steps.py); between chunks the run logs, can be interrupted, and
may save. An interrupted run continues to the same numbers.
"""

import contextlib
import dataclasses
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from nas import config as configs
from nas import logs, steps
from nas.checkpoint import Checkpoints
from nas.config import Config
from nas.errors import Interrupted, UserError
from nas.parallel import Devices, choose_devices
from nas.progress import track
from nas.scored import Scored
from nas.signals import received_signals
from nas.steps import SearchState
from nas.tasks import Splits, Stream, Task
from nas.types import Batch


class Progress(NamedTuple):
    """How far a run is: all that its continuation depends on besides arrays."""

    epoch: int = 0
    shared: int = 0  # steps of the shared weights done in this epoch
    controller: int = 0  # updates of the strategy done in this epoch
    architectures: int = 0  # scored so far; how many a step scores depends on the devices

    @classmethod
    def of(cls, saved: dict[str, Any], config: Config) -> "Progress":
        """The progress that `_save` stored beside the arrays of a checkpoint.

        Raises:
          UserError: the checkpoint belongs to another configuration than `config`; names the
            fields.
        """
        stored = configs.from_dict(saved.get("config", dataclasses.asdict(config)))
        if differing := configs.obstacles(stored, config):
            raise UserError(f"the checkpoint is of another configuration: {'; '.join(differing)}")
        return cls(**{field: saved[field] for field in cls._fields})

    def shared_step(self, config: Config) -> int:
        """The number of the next step of the shared weights, over the whole run."""
        return self.epoch * config.search.shared_steps + self.shared

    def controller_step(self, config: Config) -> int:
        """The number of the next step of the strategy, over the whole run."""
        epochs = max(0, self.epoch - config.search.warmup_epochs)
        return epochs * config.search.controller_steps + self.controller


def check(config: Config, devices: Devices) -> None:
    """Checks that `run` could start, before anything is written.

    Raises:
      UserError: settings that do not go together, or rows that cannot be divided over the devices.
    """
    data = steps.components(config).task.data
    for name in ("batch", "eval_batch"):
        devices.rows(f"data.{name}", getattr(data, name))


def run(
    config: Config, workdir: pathlib.Path, splits: Splits, *, devices: Devices | None = None
) -> SearchState:
    """Runs or resumes the search in `workdir` until its last epoch, a signal, or a fault.

    Args:
      splits: from the task's data; each process and device takes its share of the rows.
      devices: from `choose_devices`; None: its default choice.

    Raises:
      UserError: a number that is not finite (step, architecture and last good checkpoint are
        named), a checkpoint that cannot be read or written, or rows that cannot be divided over the
        devices.
      Interrupted: SIGTERM or Ctrl-C, after the chunk was finished and saved.
    """
    devices = devices or choose_devices()
    with _open(config, workdir, splits, devices) as (search, at):
        while at.progress.epoch < config.search.epochs:
            for phase in (_train_shared, _train_strategy, _end_epoch):
                at = phase(search, at)
        return devices.first(at.state)


class _Search(NamedTuple):
    """What stays the same while one process's search runs."""

    config: Config
    workdir: pathlib.Path
    devices: Devices
    task: Task
    train: Stream  # this process's rows, as `valid`
    valid: Stream
    eval_batches: Batch
    shared: Callable  # this and the next three: lifted functions of nas.steps
    controller: Callable
    epoch_start: Callable
    validation: Callable
    checkpoints: Checkpoints | None  # None: another process writes
    writer: logs.Writer | None
    scored: Scored | None
    advance: Callable  # reports steps that are done
    signals: list[int]  # numbers of the signals received


class _At(NamedTuple):
    """Where a search is."""

    progress: Progress
    state: SearchState  # as the devices hold it
    carry: Any


@contextlib.contextmanager
def _open(config, workdir, splits, devices) -> Iterator[tuple[_Search, _At]]:
    """The search, opened where it was left; what it holds is released in the end."""
    parts = steps.components(config)
    task, plan = parts.task, config.search
    train_rows = devices.rows("data.batch", task.data.batch)
    valid_rows = devices.rows("data.eval_batch", task.data.eval_batch)
    train = splits.train.share(train_rows)
    shared = devices.lift(steps.shared_chunk(config, parts))
    checkpoints = Checkpoints(workdir, plan.keep) if devices.is_main else None
    options = _for_one_call()
    first = jax.jit(
        lambda: steps.initial_checkpoint(config, parts), compiler_options=options
    ).trace()
    compiled = None
    if devices.kind == "jit" and not checkpoints.steps():
        # Compiles while the first state is made, whose operations have to be compiled too.
        count = min(plan.chunk, plan.shared_steps)
        batch, common = train.take(0, count), _common(0, count, epoch=0)
        shapes = first.out_info["search"], first.out_info["carry"]
        compiled = _begin(lambda: shared.compiled.lower(*shapes, batch, common).compile())
    at = _restore(config, devices, checkpoints, first)
    if checkpoints:
        checkpoints.reserve(first.out_info)
    at = at._replace(
        state=devices.replicate(at.state),
        carry=devices.split(jax.tree.map(lambda leaf: leaf[train_rows], at.carry)),
    )
    if compiled:
        compiled()
    of = at.progress
    done = of.shared_step(config) + of.controller_step(config)
    writer = scored = None
    if devices.is_main:
        writer = logs.Writer(workdir, task.metric, logged(config, of))
        scored = Scored(workdir, task.space.num_decisions, of.architectures)
    with (
        _releasing(writer, scored, checkpoints),
        _tracked(config, devices, done) as advance,
        received_signals() as signals,
        np.errstate(over="ignore"),  # a run that diverges overflows
    ):
        yield (
            _Search(
                config=config,
                workdir=workdir,
                devices=devices,
                task=task,
                train=train,
                valid=splits.valid.share(valid_rows),
                eval_batches=splits.valid.head(config.evaluation.examples),
                shared=shared,
                controller=devices.lift(steps.controller_chunk(config, parts)),
                epoch_start=devices.lift(steps.epoch_start(config, parts)),
                validation=devices.lift(steps.validation(config, parts)),
                checkpoints=checkpoints,
                writer=writer,
                scored=scored,
                advance=advance,
                signals=signals,
            ),
            at,
        )


def _train_shared(search: _Search, at: _At) -> _At:
    """Runs the rest of the epoch's steps of the shared weights."""
    plan = search.config.search
    count = min(plan.chunk, plan.shared_steps)
    while at.progress.shared < plan.shared_steps:
        started, first = time.perf_counter(), at.progress.shared_step(search.config)
        batch, common = search.train.take(first, count), _common(first, count, at.progress.epoch)
        state, carry, (info, decisions) = search.shared(at.state, at.carry, batch, common)
        _check_finite(search, "shared", first, info, decisions)
        _log(search, at, "shared", first, info, started)
        progress = at.progress._replace(shared=at.progress.shared + count)
        at = at._replace(progress=progress, state=state, carry=carry)
        metric = search.task.metric
        _advance(search, at, count, **{metric.name: metric.shown(info["loss"].mean())})
    return at


def _train_strategy(search: _Search, at: _At) -> _At:
    """Runs the rest of the epoch's updates of the strategy; none in the warm-up."""
    plan = search.config.search
    if at.progress.epoch < plan.warmup_epochs:
        return at
    if at.progress.controller == 0:
        epoch = np.int32(at.progress.epoch - plan.warmup_epochs)
        state, carry, _ = search.epoch_start(at.state, at.carry, None, epoch)
        at = at._replace(state=state, carry=carry)
    count = min(plan.chunk, plan.controller_steps)
    while at.progress.controller < plan.controller_steps:
        started, first = time.perf_counter(), at.progress.controller_step(search.config)
        batch, common = search.valid.take(first, count), _common(first, count, at.progress.epoch)
        state, carry, logged = search.controller(at.state, at.carry, batch, common)
        info, decisions, rewards = logged
        found = {"reward of an architecture": rewards} | info
        _check_finite(search, "controller", first, found, decisions)
        _log(search, at, "controller", first, info, started)
        if search.scored:
            search.scored.append(decisions.reshape(-1, decisions.shape[-1]), rewards.reshape(-1))
        progress = at.progress._replace(
            controller=at.progress.controller + count,
            architectures=at.progress.architectures + rewards.size,
        )
        at = at._replace(progress=progress, state=state, carry=carry)
        shown = {name: info[name].mean() for name in ("reward", "entropy") if name in info}
        _advance(search, at, count, **shown)
    return at


def _end_epoch(search: _Search, at: _At) -> _At:
    """Validates, and saves if a checkpoint is due."""
    plan, epoch, started = search.config.search, at.progress.epoch, time.perf_counter()
    common = (search.eval_batches, np.int32(epoch))
    state, carry, logged = search.validation(at.state, at.carry, None, common)
    decisions, values, measured = logged
    found = {"loss of an architecture": values[None]}
    _check_finite(search, "validation", epoch, found, decisions[None])
    search.devices.check_replicas(state)
    info = {"loss_best": values.min(), "loss_mean": values.mean(), "loss_worst": values.max()}
    if epoch >= plan.warmup_epochs:  # before that, the strategy has not begun an epoch
        info |= measured
    info = {name: np.array([value]) for name, value in info.items()}
    _log(search, at, "valid", epoch, info, started)
    progress = Progress(epoch + 1, architectures=at.progress.architectures)
    at = at._replace(progress=progress, state=state, carry=carry)
    if progress.epoch % plan.checkpoint_epochs == 0 or progress.epoch == plan.epochs:
        _save(search, at)
    return at


def _restore(config, devices, checkpoints, first) -> _At:
    """The newest checkpoint, or else what the traced `first` computes; the main process sends it to
    all.

    State and carry are whole, as in a checkpoint, not divided over devices.
    """
    progress = Progress()
    if not devices.is_main:
        saved = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), first.out_info)
    elif restored := checkpoints.restore(first.out_info):
        saved, numbers = restored
        progress = Progress.of(numbers, config)
    else:
        saved = first.lower().compile()()
    saved, numbers = devices.from_main((saved, np.array(progress, np.int32)))
    return _At(Progress(*map(int, numbers)), saved["search"], saved["carry"])


def _save(search: _Search, at: _At) -> None:
    config, devices, progress = search.config, search.devices, at.progress
    carry = devices.join(at.carry)
    if not devices.is_main:
        return
    # One more than the steps of an epoch, so that its last step and its end differ in number.
    step = progress.epoch * (config.search.shared_steps + config.search.controller_steps + 1)
    step += progress.shared + progress.controller
    state = {"search": devices.first(at.state), "carry": carry}
    numbers = progress._asdict() | {"config": dataclasses.asdict(config)}
    search.checkpoints.save(step, state, numbers)


def _advance(search: _Search, at: _At, count: int, **shown: float) -> None:
    """Reports `count` steps; saves and stops if a signal was received, saves if it is time to."""
    epoch = f"{at.progress.epoch + 1}/{search.config.search.epochs}"
    search.advance(count, epoch=epoch, **{name: f"{value:.4g}" for name, value in shown.items()})
    if search.checkpoints:
        search.checkpoints.check()
    if number := search.devices.agree(max(search.signals, default=0)):
        _save(search, at)
        if search.checkpoints:
            search.checkpoints.wait()
        where = ", ".join(f"{name} {value}" for name, value in at.progress._asdict().items())
        again = "run the same command again to continue"
        message = f"{signal.Signals(number).name}: saved at {where}; {again}"
        raise Interrupted(130 if number == signal.SIGINT else 0, message)
    if search.config.search.checkpoint_minutes and search.devices.agree(_is_due(search)):
        _save(search, at)


def _is_due(search):
    """Whether `checkpoint_minutes` have passed, by the clock of the process that saves."""
    minutes = search.config.search.checkpoint_minutes
    return int(search.checkpoints is not None and search.checkpoints.age() >= 60 * minutes)


def _log(search, at, phase, first, values, started):
    if search.writer:
        seconds = time.perf_counter() - started
        search.writer.write(phase, at.progress.epoch, first, values, seconds)


def _check_finite(search, phase, first, values, decisions):
    """Raises if a value [K, ...] is not finite; decisions [K, A, T] belong to the same steps."""
    if search.config.search.on_nonfinite == "skip":
        return
    finite = {name: np.isfinite(column.reshape(len(column), -1)) for name, column in values.items()}
    for step in range(len(decisions)):
        bad = [(name, ~column[step]) for name, column in finite.items() if not column[step].all()]
        if bad:
            name, rows = bad[0]  # rewards come first: they make the numbers after them non-finite
            architecture = search.task.space.format(decisions[step, int(rows.argmax())])
            saved = search.checkpoints.steps() if search.checkpoints else []
            raise UserError(
                f"{name} is not finite at {phase} step {first + step}, architecture "
                f"'{architecture}'; last good checkpoint: {saved[-1] if saved else 'none'} in "
                f"{search.workdir}; search.on_nonfinite=skip drops such updates"
            )


@contextlib.contextmanager
def _releasing(*held):
    """Closes those of `held` that are not None."""
    try:
        yield
    finally:
        for one in held:
            if one:
                one.close()


def _tracked(config, devices, done):
    if not devices.is_main:
        return contextlib.nullcontext(lambda *_, **__: None)
    end = Progress(epoch=config.search.epochs)
    total = end.shared_step(config) + end.controller_step(config)
    return track("search", total=total, unit="step", done=done)


def _begin(function: Callable[[], object]) -> Callable[[], None]:
    """Starts `function` in a thread; the function returned waits for it and raises its error."""
    failed = []

    def call():
        try:
            function()
        except Exception as error:
            failed.append(error)

    def wait():
        thread.join()
        if failed:
            raise failed[0]

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return wait


def _for_one_call():
    """Options for a program that runs once: on CPUs optimising it costs more than it saves."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def logged(config: Config, progress: Progress) -> dict[str, int]:
    """phase -> number of steps in the run's metrics."""
    shared, controller = progress.shared_step(config), progress.controller_step(config)
    return {"shared": shared, "controller": controller, "valid": progress.epoch}


def _common(first, count, epoch):
    """Numbers of `count` steps, and the epoch, as the chunks of nas.steps take them."""
    return np.arange(first, first + count, dtype=np.int32), np.int32(epoch)
