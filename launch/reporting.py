"""From opened runs to the printed answer and the report; for launch.evaluate and experiments."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from launch.display import duration
from launch.pieces import Piece
from nas import estimate, logs, measurements, runs, steps
from nas.config import Config
from nas.measurements import TRAINED, UNTRAINED, Measured
from nas.progress import track
from nas.report.arms import answers, page, summary
from nas.report.arms.arm import MeasuredArm
from nas.report.arms.searches import Searched, best_table
from nas.report.arms.tables import study_tables
from nas.runs import Run

COMMON = "uniform"  # the arm whose shared weights also measure the architectures of all arms


def report(
    folder: pathlib.Path,
    arms: dict[str, tuple[str, list[Run]]],
    *,
    architectures: int = 0,
    pairs: int = 0,
    verbose: bool = False,
) -> pathlib.Path:
    """Measures the runs, writes `folder`/report and prints the answer; returns the page's path.

    Args:
      arms: key, as in `experiments.arms` -> title, one run per seed, the same seeds in each. The
        untrained controller is measured under the weights of the first arm that has a hidden state.
        Where `COMMON` is among them, its shared weights of the same seed measure the architectures
        of every arm as well.
      architectures, pairs: of each evaluation set; 0: as many as the configuration says.
      verbose: print all tables before the answer.
    """
    common = arms[COMMON][1] if COMMON in arms else [None] * len(next(iter(arms.values()))[1])
    lender = _lender({key: seeds[0].has_state for key, (_, seeds) in arms.items()})
    measured, untrained = {}, []
    for key, (title, seeds) in arms.items():
        found = [
            measurements.measure(
                run,
                architectures=architectures,
                pairs=pairs,
                untrained=key == lender,
                common=weights,
            )
            for run, weights in zip(seeds, common, strict=True)
        ]
        best = [seed.best_loss for seed in found]
        measured[key] = _arm(title, [seed.controllers[TRAINED] for seed in found], best)
        if key == lender:
            untrained = [seed.controllers[UNTRAINED] for seed in found]
    compared = {"untrained": _arm("untrained", untrained, [math.nan] * len(untrained)), **measured}
    logged = {key: [run.metrics() for run in seeds] for key, (_, seeds) in arms.items()}
    best = {key: arm.best_loss for key, arm in measured.items()}
    searched = [_searched(*arms[key], logged[key], best[key]) for key in arms]
    run = arms[lender][1][0]
    task, command = run.task, runs.command()
    with track("report", total=3, unit="part") as advance:
        yardsticks = task.network.yardsticks(task.data, run.splits.train, run.splits.valid)
        advance(1)
        tables = study_tables(task, compared, command)
        tables["best"] = best_table(task, searched, yardsticks, command)
        tables["summary"] = summary.summary_table(task, compared, command)
        spent = sum(
            line["seconds"] for seeds in logged.values() for lines in seeds for line in lines
        )
        sentences = summary.readings(task, compared)
        advance(1)
        path = page.write_report(
            folder / "report" / "index.html",
            task,
            compared,
            searched,
            tables,
            list(
                dict.fromkeys(
                    [
                        command,
                        *(seed.metadata["command"] for _, seeds in arms.values() for seed in seeds),
                    ]
                )
            ),
            runs.versions() | {"configuration": json.dumps(dataclasses.asdict(run.config))},
            ran=_ran(arms, spent),
            sentences=sentences,
            found=answers.answers(task, compared, searched, yardsticks),
        )
        advance(1)
    if verbose:
        for table in tables.values():
            print(table.text())
    narrow = summary.summary_table(task, compared, command, width=summary.WIDTH)
    ran = _ran(arms, spent, summary.WIDTH)
    best_cells = summary.best_cells(task, searched, yardsticks)
    print(summary.printed(ran, narrow, sentences, best_cells, path))
    return path


def evaluations(
    folders: Mapping[str, Sequence[pathlib.Path]],
    configs: Mapping[str, Config],
    *,
    architectures: int = 0,
) -> list[Piece]:
    """Pieces for the measurements that `report` would make of runs, which may still have to be
    searched; the measurements are kept.

    Args:
      folders: key -> run directory of each seed, keys as for `report`. A piece begins after the
        pieces with the names of the folders that it reads.
      configs: key -> configuration of a run, whatever its seed.
      architectures: as for `report`.
    """
    lender = _lender(
        {key: steps.components(config).policy.state_width > 0 for key, config in configs.items()}
    )
    common = folders.get(COMMON, [None] * len(folders[lender]))

    def of_a_set(config):
        return (architectures or config.evaluation.architectures) * estimate.evaluation_examples(
            config
        )

    return [
        Piece(
            f"evaluate {workdir.name}",
            _measure,
            (workdir, weights, architectures, key == lender),
            work=(3 if key == lender else 2)
            * len({workdir, weights or workdir})
            * of_a_set(configs[key]),
            after=tuple(path.name for path in (workdir, weights) if path),
        )
        for key, seeds in folders.items()
        for workdir, weights in zip(seeds, common, strict=True)
        if not (workdir / measurements.FILE).is_file()
    ]


def _lender(with_state: Mapping[str, bool]) -> str:
    """The arm under whose weights the untrained controller is measured: the first that has a hidden
    state.
    """
    return next((key for key, has_state in with_state.items() if has_state), next(iter(with_state)))


def _ran(arms: dict[str, tuple[str, list[Run]]], spent: float, width: int | None = None) -> str:
    """One sentence: arms, epochs, corpus, seeds, and the seconds of all searches together.

    Args:
      width: characters in which it should fit; arms for which there is no room are only counted.
    """
    every = [run for _, seeds in arms.values() for run in seeds]
    seeds = list(dict.fromkeys(str(run.config.seed) for run in every))
    config, titles = every[0].config, [title for title, _ in arms.values()]
    parts = [
        f"{config.search.epochs} epoch{'s' * (config.search.epochs > 1)}",
        every[0].task.data.name,
        f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}",
    ]
    for count in range(len(titles), 0, -1):
        rest = [f"{len(titles) - count} more"] if count < len(titles) else []
        named = "; ".join(titles[:count] + rest)
        text = f"Searched, {duration(spent)} in all: {named} ({', '.join(parts)})."
        if not width or len(text) <= width:
            break
    return text


def _measure(
    workdir: pathlib.Path, common: pathlib.Path | None, architectures: int, untrained: bool
) -> None:
    run = runs.open_run(workdir)
    weights = run if common == workdir else common and runs.open_run(common)
    measurements.measure(run, architectures=architectures, untrained=untrained, common=weights)


def _arm(title: str, measured: list[Measured], best: list[float]) -> MeasuredArm:
    return MeasuredArm(
        title, [seed.samples for seed in measured], [seed.behaviour for seed in measured], best
    )


def _searched(title: str, seeds: list[Run], lines: list[list[dict]], best: list[float]) -> Searched:
    curves = logs.curves(lines[0], "controller")
    if shared := logs.curves(lines[0], "shared").get("loss"):
        curves["shown"] = shared[0], seeds[0].task.metric.shown(shared[1])
    has_memory = seeds[0].config.strategy.get("supervised_weight", 0) > 0
    if not has_memory:  # then the supervised loss is not computed
        curves.pop("supervised_loss", None)
    return Searched(
        title,
        curves=curves,
        epochs=[
            logs.curves(of, "valid", run.logged()["valid"])
            for run, of in zip(seeds, lines, strict=True)
        ],
        best_decisions=[np.asarray(run.state.best_decisions) for run in seeds],
        best_loss=best,
        has_memory=has_memory,
    )
