"""Estimates how long a search will take from a short one: same settings, twenty steps per phase."""

import pathlib
import sys
import tempfile
from collections.abc import Iterable

import numpy as np

from nas import config as configs
from nas import logs, progress, runs, tasks
from nas.config import Config
from nas.parallel import choose_devices
from nas.types import stacked

_STEPS = 20
_ALL = 60_000  # examples assumed where a validation split is read whole (kjv: 44,000, ptb: 74,000)
_WORTH_IT = 40_000  # steps; a shorter search shows soon enough how long it takes


def announce(config: Config, workdir: pathlib.Path, **options) -> None:
    """Prints on standard error how long a search will take, if it is long and not yet begun in
    `workdir`.

    The short search runs in a temporary folder; the time for compiling is left out. All processes
    of the search must call this.

    Args:
      options: as for `nas.runs.start`.

    Raises:
      UserError: as `nas.runs.start`.
    """
    devices = choose_devices(options.get("parallel", ""))
    if not is_long(config) or devices.agree(devices.is_main and (workdir / runs.CONFIG).is_file()):
        return
    # The first epoch compiles, the second does not. Only one batch is validated and its time
    # multiplied, since validating on all batches takes minutes.
    plan = {
        "epochs": 2,
        "warmup_epochs": 0,
        "shared_steps": _STEPS,
        "controller_steps": _STEPS,
        "chunk": _STEPS,
    }
    short = configs.override(config, {"evaluation": {"examples": 1}, "search": plan})
    with tempfile.TemporaryDirectory() as folder, progress.listening(None):
        runs.start(short, pathlib.Path(folder), **options)
        if not devices.is_main:
            return
        lines = logs.read(pathlib.Path(folder))
    where = {name: options.get(name) for name in ("raw_dir", "data_dir")}
    valid = tasks.build(config).data.load(**where).valid
    batches = stacked(valid.head(config.evaluation.examples))
    hours = scaled(lines, config, batches=batches) / 3600
    print(f"estimated from {_STEPS} steps of each phase: {hours:.2g} h", file=sys.stderr)


def is_long(config: Config) -> bool:
    """Whether the search is so long that the measurement is short beside it."""
    return sum(_steps(config)) >= _WORTH_IT


def scaled(lines: Iterable[dict], config: Config, *, batches: int) -> float:
    """Seconds that the search of `config` takes, estimated from the lines that a short search has
    logged after its first epoch.

    Args:
      batches: validation batches read at the end of an epoch; the short search has read one.
    """
    of_step = {phase: [] for phase in ("shared", "controller", "valid")}
    for line in lines:
        if line["epoch"] > 0:
            of_step[line["phase"]].append(line["seconds"])
    counts = (*_steps(config), config.search.epochs * batches)
    return sum(
        count * np.mean(found)
        for count, found in zip(counts, of_step.values(), strict=True)
        if found
    )


def search_examples(config: Config) -> float:
    """Examples that a search passes through a network; a training step, forward and backward,
    counts as three passes.
    """
    data, plan = tasks.build(config).data, config.search
    shared, controller = _steps(config)
    rewards = controller * plan.architectures * data.examples(data.eval_batch)
    validated = plan.epochs * plan.valid_architectures * evaluation_examples(config)
    return float(3 * shared * data.examples(data.batch) + rewards + validated)


def evaluation_examples(config: Config) -> int:
    """Examples that one evaluation reads; an assumed number where it reads the whole split."""
    return config.evaluation.examples or _ALL


def _steps(config):
    """Steps of the shared weights and of the controller in the whole search."""
    search = config.search
    return search.epochs * search.shared_steps, max(
        0, search.epochs - search.warmup_epochs
    ) * search.controller_steps
