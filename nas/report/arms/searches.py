"""The part of a report about the searches themselves: curves, memorised sequences, best cells and
what they reach.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from nas.report import cells, figures, panels
from nas.report.arms.arm import interval
from nas.report.html import Report
from nas.report.panels import Curve, Panel
from nas.report.style import PALETTE
from nas.report.tables import Column, Row, Table
from nas.tasks import Task

_WINDOW = 25  # steps that a bold curve averages
# losses that a strategy measures at the end of an epoch
_MEMORISED = ("supervised_remembered", "supervised_fresh")


@dataclasses.dataclass(frozen=True)
class Searched:
    """What the searches of one arm left behind; each list has one entry per seed."""

    title: str
    # the first seed's; name -> (steps [n], values [n])
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    # name -> (epochs [E], values [E]), at the end of each epoch
    epochs: list[dict[str, tuple[np.ndarray, np.ndarray]]]
    best_decisions: list[np.ndarray]  # [T]
    best_loss: list[float]  # on the whole validation split
    has_memory: bool  # whether the supervised loss is part of the objective


def best_table(
    task: Task, arms: Sequence[Searched], yardsticks: Mapping[str, float], command: str
) -> Table:
    """What each arm's best cell reaches under its shared weights, beside models without a network
    on the same split.
    """
    metric = task.metric
    rows = [
        Row(
            [
                f"{arm.title}: best cell, shared weights",
                interval(metric.shown(np.array(arm.best_loss)), metric.digits),
            ]
        )
        for arm in arms
    ]
    rows += [Row([name, value], reference=True) for name, value in yardsticks.items()]
    return Table(
        f"{metric.name.capitalize()} of the validation split",
        [Column("model"), Column(metric.name, metric.digits)],
        rows,
        notes=["The best cell was chosen among those validated on a slice of the same split."],
        command=command,
    )


def add_sections(report: Report, task: Task, arms: Sequence[Searched]) -> None:
    """Curves of training, the supervised loss on remembered and on fresh sequences, and the best
    cell of the first seed.
    """
    metric = task.metric
    drawn = (
        figures.Logged("shown", f"training {metric.name}", log=True),
        figures.Logged("reward", f"reward ({metric.reward})"),
        figures.Logged("entropy", "entropy of the policy (nats)"),
        figures.Logged("supervised_loss", "supervised loss (nats)"),
    )
    report.section("Training")
    report.figure(
        [
            figures.training_curves({arm.title: arm.curves for arm in arms}, [one], window=_WINDOW)
            for one in drawn
        ],
        f"Training, first seed. Pale: every step; bold: mean of {_WINDOW} steps.",
        [f"Curves of {one.label}" for one in drawn],
    )
    # A run that has lost its metrics has nothing to draw.
    if remembering := [
        arm
        for arm in arms
        if arm.has_memory and all(seed.keys() >= set(_MEMORISED) for seed in arm.epochs)
    ]:
        report.figure(
            [_memorised(arm) for arm in remembering],
            "The supervised loss at the end of each epoch, on sequences of the memory and on "
            "others drawn in the same way: "
            "apart where the controller knows its memory by heart. Bands: 95 % intervals.",
            [
                f"{arm.title}: supervised loss on remembered and on fresh sequences"
                for arm in remembering
            ],
        )
    report.section("Best cells")
    space = task.space
    titles = [f"{arm.title}: {metric.text(arm.best_loss[0])}" for arm in arms]
    parts = [
        (graph, f"{title}, {name}" if name else title)
        for arm, title in zip(arms, titles, strict=True)
        for name, graph in zip(
            space.part_names, space.to_graphs(arm.best_decisions[0]), strict=True
        )
    ]
    report.figure(
        [
            cells.cell_drawing(graph, space.label_names, space.io_labels, title)
            for graph, title in parts
        ],
        f"First seed: of the cells validated during the search, the one with the lowest "
        f"{metric.name} under shared weights.",
        [f"Graph of the best cell of {title}" for _, title in parts],
    )
    for arm in arms:
        report.text(f"{arm.title}: {space.format(arm.best_decisions[0])}")


def _memorised(arm):
    curves = [
        Curve(
            name.removeprefix("supervised_"),
            arm.epochs[0][name][0],
            np.stack([seed[name][1] for seed in arm.epochs]),
            color,
            dashed=name == _MEMORISED[1],
        )
        for name, color in zip(_MEMORISED, PALETTE, strict=False)
    ]
    return panels.stacked_curves(arm.title, [Panel(curves, "loss (nats a decision)")], "epoch")
