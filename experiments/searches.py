"""The searches of a driver, one for every arm and seed: finished ones are kept, interrupted ones continue."""

import dataclasses
import pathlib
from collections.abc import Sequence

from experiments.arms import STRATEGIES
from launch import side_by_side
from launch.side_by_side import Piece
from nas import parallel, runs
from nas.config import Config, TrainingConfig
from nas.data import load_corpus
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
    base = dataclasses.replace(base, training=unread)
    searched = [(name, STRATEGIES[name].configure(base, seed), root / f"{name}-seed{seed}") for name in names for seed in seeds]
    missing = [(config, workdir) for _, config, workdir in searched if not runs.is_finished(config, workdir)]
    if missing:  # prepared here, where it is said, and not by several processes
        load_corpus(base.data, corpus_dir=options.get("corpus_dir"), data_dir=options.get("data_dir"))
    side_by_side.run([Piece(runs.finish, arguments, options) for arguments in missing], "search")
    opened = {name: [] for name in names}
    for name, config, workdir in searched:
        runs.finish(config, workdir, **options)
        if is_main:
            opened[name].append(runs.open_run(workdir))
    return opened
