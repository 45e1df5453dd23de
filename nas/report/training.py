"""The part of a report that shows the searches themselves: curves, what was memorised, best cells,
perplexities.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from nas.report import cells, evidence_figures, figures
from nas.report.evidence_arms import interval
from nas.report.evidence_figures import Curve, Panel
from nas.report.html import Report
from nas.report.style import PALETTE
from nas.report.tables import Column, Row, Table
from nas.spaces.recurrent import RecurrentSpace

_CURVES = (
    figures.Metric("perplexity", "training perplexity", log=True),
    figures.Metric("reward", "reward (80 / perplexity)"),
    figures.Metric("entropy", "entropy of the policy (nats)"),
    figures.Metric("supervised_loss", "supervised loss (nats)"),
)
_WINDOW = 25  # steps that a bold curve averages
_MEMORISED = (
    "supervised_remembered",
    "supervised_fresh",
)  # what a strategy measures at the end of an epoch


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the searches of one arm left behind, an entry a seed in each list."""

    title: str
    curves: dict[
        str, tuple[np.ndarray, np.ndarray]
    ]  # of the first seed; name -> (steps [n], values [n])
    epochs: list[
        dict[str, tuple[np.ndarray, np.ndarray]]
    ]  # name -> (epochs [E], values [E]) at the end of each
    best_decisions: list[np.ndarray]  # [T]
    best_loss: list[float]  # nats a token, whole validation split
    has_memory: bool  # whether the supervised loss takes part


def perplexity_table(
    arms: Sequence[Trained], yardsticks: Mapping[str, float], command: str
) -> Table:
    """Validation perplexity of each arm's best cell under its shared weights, beside n-gram models
    of the same split.
    """
    rows = [
        Row([f"{arm.title}: best cell, shared weights", interval(np.exp(arm.best_loss), 1)])
        for arm in arms
    ]
    rows += [Row([name, value], reference=True) for name, value in yardsticks.items()]
    return Table(
        "Perplexity of the validation split",
        [Column("model"), Column("perplexity", 1)],
        rows,
        notes=["The best cell was chosen among those validated on a slice of the same split."],
        command=command,
    )


def add_sections(report: Report, space: RecurrentSpace, arms: Sequence[Trained]) -> None:
    """Curves of training, the supervised loss on remembered and on fresh sequences, and the best
    cell of the first seed.
    """
    report.section("Training")
    report.figure(
        [
            figures.training_curves(
                {arm.title: arm.curves for arm in arms}, [metric], window=_WINDOW
            )
            for metric in _CURVES
        ],
        f"Training, first seed. Pale: every step; bold: mean of {_WINDOW} steps.",
        [f"Curves of {metric.label}" for metric in _CURVES],
    )
    if remembering := [arm for arm in arms if arm.has_memory]:
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
    titles = [f"{arm.title}: perplexity {np.exp(arm.best_loss[0]):.1f}" for arm in arms]
    report.figure(
        [
            cells.cell_drawing(space, arm.best_decisions[0], title)
            for arm, title in zip(arms, titles, strict=True)
        ],
        "First seed: of the cells validated during the search, the one with the lowest perplexity "
        "under shared weights.",
        [f"Graph of the cell {space.format(arm.best_decisions[0])}" for arm in arms],
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
    return evidence_figures.stacked_curves(
        arm.title, [Panel(curves, "loss (nats a decision)")], "epoch"
    )
