"""The searches of a driver, one for every arm and seed: finished ones are kept, interrupted ones continue."""

import dataclasses
import pathlib
from collections.abc import Sequence

from experiments.arms import STRATEGIES
from nas import parallel, runs
from nas.config import Config, TrainingConfig
from nas.runs import Run


def search(root: pathlib.Path, base: Config, names: Sequence[str], seeds: Sequence[int], **options) -> dict[str, list[Run]]:
    """Name -> its finished search of each seed, in `root`/NAME-seedS; nothing is opened but by the process that writes.

    Args:
      base: all settings that do not make an arm. Its recipe for training from scratch is left out: another one asks for no
        other searches.
      names: of `experiments.arms.STRATEGIES`.
      options: as for `nas.runs.finish`.

    Raises:
      UserError, Interrupted: as `nas.runs.finish`.
    """
    is_main = parallel.choose_devices(options.get("parallel", "")).is_main
    unread = TrainingConfig(architecture=base.training.architecture)  # which a search refuses
    base, opened = dataclasses.replace(base, training=unread), {name: [] for name in names}
    for name in names:
        for seed in seeds:
            workdir = root / f"{name}-seed{seed}"
            runs.finish(STRATEGIES[name].configure(base, seed), workdir, **options)
            if is_main:
                opened[name].append(runs.open_run(workdir))
    return opened
