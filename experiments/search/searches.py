"""The searches of a driver, one for every arm and seed: finished ones are kept, interrupted ones
continue.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from experiments.arms import STRATEGIES
from launch import side_by_side
from launch.pieces import Piece
from nas import estimate, parallel, runs, tasks
from nas.config import Config, TrainingConfig
from nas.runs import Run


def search(
    root: pathlib.Path,
    base: Config,
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    then: Callable[[dict[str, list[pathlib.Path]]], list[Piece]] = lambda _: [],
    **options,
) -> dict[str, list[Run]]:
    """Name -> its finished search of each seed, in `root`/NAME-seedS; only the process that writes
    opens them.

    Args:
      base: all settings that do not make an arm. Its recipe for training from scratch is left out:
        another recipe needs no other searches.
      names: of `experiments.arms.STRATEGIES`.
      then: (name -> folders of its searches, by seed) -> further pieces for the process that
        writes. They begin as soon as the searches that they read have ended; a search's piece has
        the name of its folder.
      options: as for `nas.runs.finish`.

    Raises:
      UserError, Interrupted: as `nas.runs.finish`.
    """
    devices = parallel.choose_devices(options.get("parallel", ""))
    unread = TrainingConfig(architecture=base.training.architecture)  # kept: a search refuses any
    base = dataclasses.replace(base, training=unread)
    folders = {name: [root / f"{name}-seed{seed}" for seed in seeds] for name in names}
    searched = [
        (STRATEGIES[name].configure(base, seed), workdir)
        for name in names
        for seed, workdir in zip(seeds, folders[name], strict=True)
    ]
    # All processes of a search must come to the same answer; the one that writes has the files.
    missing = [
        one for one in searched if not devices.agree(devices.is_main and runs.is_finished(*one))
    ]
    if missing:  # the data is prepared once, here, and not by several processes
        where = {name: options.get(name) for name in ("raw_dir", "data_dir")}
        tasks.build(base).data.load(**where)
    pieces = [
        Piece(
            workdir.name, runs.finish, (config, workdir), options, estimate.search_examples(config)
        )
        for config, workdir in missing
    ]
    side_by_side.run(pieces + (then(folders) if devices.is_main else []))
    return {
        name: [runs.open_run(workdir) for workdir in folders[name]] if devices.is_main else []
        for name in names
    }
