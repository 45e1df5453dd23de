"""The tables, curves and sentences of the search study. Arrays in, tables and figures out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from nas.evaluation.statistics import holm, paired_difference
from nas.report.arms.arm import interval, seeds
from nas.report.panels import Curve, Panel, stacked_curves
from nas.report.style import PALETTE
from nas.report.tables import Column, Empty, Row, Table
from nas.tasks import Metric, Task

RANDOM = "uniform"  # random search with weight sharing: what the others are compared with
DRAWN, AGAIN = "a cell drawn at random, not searched", "the same cell, another seed of training"
_TESTED_FROM = 10  # seeds; with fewer there are only intervals
_NONE = Empty("-")
_PUBLISHED = {  # task -> what others report
    "recurrent": (
        "Published, Penn Treebank, test perplexity: ENAS 55.8 (revised 56.3; about 63 with its "
        "released code); Li and Talwalkar (2019): ENAS's cell 58.6, a random cell 59.4, random "
        "search with weight sharing 55.5. Sciuto et al. (2019), validation: ENAS 61.91 ± .50, "
        "random 62.50 ± .86. These are of full training on 10,000 types; corpus, width and epochs "
        "here are those of the command: compare orders, not levels. Differences below 1 are noise "
        "there."
    )
}


class Scratch(NamedTuple):
    """Models trained from scratch, one per seed; losses as they are shown."""

    valid: np.ndarray  # [S] at the best epoch
    test: np.ndarray  # [S] of the same parameters
    epochs: np.ndarray  # [S, E] validation at the end of each epoch
    seconds: np.ndarray  # [S] of training, with all candidates among which validation chose
    also: np.ndarray  # [S] number shown beside losses, on the test split; nan: there is none


class Found(NamedTuple):
    """What one strategy found, one entry per seed; losses as they are shown."""

    title: str
    best: np.ndarray  # [S] shared weights, best derived cell, on data that did not choose it
    mean: np.ndarray  # [S] shared weights, mean over the derived cells
    scratch: Scratch  # the best derived cell
    unique: np.ndarray  # [S] distinct cells among the samples
    # [S] of [3, E]: steps, seconds and the lowest number validated so far
    curves: Sequence[np.ndarray]


def search_table(
    task: Task,
    found: Mapping[str, Found],
    controls: Mapping[str, Scratch],
    seconds: Mapping[str, np.ndarray],
    *,
    samples: int,
    epochs: int,
    yardsticks: Sequence[Mapping[str, float]],
    command: str,
) -> Table:
    """One row per strategy, and one for each model that was found without shared weights.

    Args:
      controls: title -> models; `DRAWN` and `AGAIN` are among them.
      seconds: title -> [S] seconds of the search, for controls that had one.
      yardsticks: for the validation and the test split, name -> what a model without a network
        reaches.
    """
    metric = task.metric

    def also(scratch):
        return [interval(scratch.also, 2)] if metric.also else []

    rows = [
        Row(
            [
                of.title,
                *(
                    interval(values, metric.digits)
                    for values in (of.best, of.mean, of.scratch.valid, of.scratch.test)
                ),
                *also(of.scratch),
                interval(of.unique, 0),
                interval([curve[1, -1] for curve in of.curves], 0),
            ]
        )
        for of in found.values()
    ]
    for title, control in controls.items():
        trained = [interval(values, metric.digits) for values in (control.valid, control.test)]
        rows.append(
            Row(
                [
                    title,
                    _NONE,
                    _NONE,
                    *trained,
                    *also(control),
                    _NONE,
                    interval(seconds[title], 0) if title in seconds else _NONE,
                ]
            )
        )
    columns = [
        Column("strategy"),
        Column("best derived cell, shared weights", metric.digits),
        Column("mean of derived cells, shared weights", metric.digits),
        Column("best, from scratch, validation", metric.digits),
        Column("best, from scratch, test", metric.digits),
        *([Column(f"best, from scratch, test, {metric.also}", 2)] if metric.also else []),
        Column(f"different cells of {samples} samples", 0),
        Column("search (s)", 0),
    ]
    retrained = retraining_sd(controls[DRAWN], controls[AGAIN])
    notes = [
        f"{metric.name.capitalize()}: {seeds(_count(found))}. From scratch, search and training "
        "share the seed: an interval holds both. "
        f"Of training alone, one cell with two seeds: standard deviation {retrained:.2f} on test.",
        f"Best: ranked on one half of the validation split, {metric.name} of the other half. Mean: "
        f"of each different cell's {metric.loss}, on the batches that validate during the search.",
        f"From scratch: {epochs} {'epoch' if epochs == 1 else 'epochs'}, one recipe for all; "
        "validation chooses the "
        "epoch, test is read once. The random cell of a seed is drawn uniformly from the space, "
        "one for all strategies. " + _beside(yardsticks, metric.digits),
        "Search: seconds of its steps and validations, compiling included (less where a cache has "
        "it), loading and saving not. "
        "Without sharing: cells trained alone, together for steps of the arithmetic of a search; "
        "validation chooses.",
        *([_PUBLISHED[task.name]] if task.name in _PUBLISHED else []),
    ]
    return Table("Search: from shared weights to a trained cell", columns, rows, notes, command)


def differences_table(
    metric: Metric, found: Mapping[str, Found], controls: Mapping[str, Scratch], command: str
) -> Table:
    """How much worse each strategy, and each model found without shared weights, is than random
    search with the same seed.
    """
    random, rows, tests = found[RANDOM], [], {}
    others = {name: of for name, of in found.items() if name != RANDOM}
    count = _count(found)
    for name, of in others.items():
        pairs = [(of.best, random.best), (of.mean, random.mean)]
        rows.append(
            [
                of.title,
                *(_difference(*pair, metric.digits) for pair in pairs),
                *_differences(of.scratch, random.scratch, metric.digits),
            ]
        )
        pair = of.scratch.test, random.scratch.test
        tests[name] = paired_difference(*pair).p if count >= _TESTED_FROM else np.nan
    adjusted = (
        list(holm(tests).values())
        if count >= _TESTED_FROM
        else [Empty(f"from {_TESTED_FROM} seeds on")] * len(rows)
    )
    table_rows = [Row([*cells, p]) for cells, p in zip(rows, adjusted, strict=True)]
    for title, control in controls.items():
        table_rows.append(
            Row([title, _NONE, _NONE, *_differences(control, random.scratch, metric.digits), _NONE])
        )
    columns = [
        Column("strategy"),
        *(
            Column(name, metric.digits, True)
            for name in ("best, shared weights", "mean, shared weights", "from scratch, validation")
        ),
        Column("from scratch, test", metric.digits, True),
        Column("p, test", 4),
    ]
    notes = [
        f"Differences of {metric.name}, {seeds(count)}; negative: better than random search.",
        "p: paired t test over seeds, two-sided, adjusted after Holm over the strategies.",
    ]
    return Table(f"Against {random.title}, the same seeds", columns, table_rows, notes, command)


def crossed_table(
    metric: Metric, titles: Sequence[str], values: np.ndarray, *, cells: int, command: str
) -> Table:
    """The losses of cells by who proposed them and by whose shared weights score them.

    Args:
      values: [S, P, P] mean losses; rows propose, columns score.
    """
    beyond = _interaction(values)
    rows = [
        Row(
            [
                title,
                *(interval(values[:, i, j], 3) for j in range(len(titles))),
                interval(beyond[:, i, i], 3, "+"),
            ]
        )
        for i, title in enumerate(titles)
    ]
    columns = [
        Column("cells of"),
        *(Column(f"weights of {title}", 3) for title in titles),
        Column("own pair beyond both effects", 3, True),
    ]
    notes = [
        f"{metric.unit.capitalize()}, {seeds(len(values))}; the mean over at most {cells} derived "
        "cells of each policy, taken whatever their rank, on the batches that validate during the "
        "search.",
        "Beyond both effects: less the mean of the row and of the column, plus that of all. "
        "Negative: weights suit the cells "
        "of the policy that trained them, whichever of the two are good in general.",
    ]
    return Table(
        "Sharing as the confounder: who proposed, by whose weights", columns, rows, notes, command
    )


def specialisation(values: np.ndarray) -> np.ndarray:
    """[S] mean of the diagonal less that of the rest, from [S, P, P]: effects of rows and of
    columns cancel.
    """
    own = np.eye(values.shape[1], dtype=bool)
    return values[:, own].mean(axis=1) - values[:, ~own].mean(axis=1)


def retraining_sd(once: Scratch, again: Scratch) -> float:
    """Standard deviation over seeds of training of the number shown for the test split, from the
    same cells trained with two seeds.
    """
    return float(np.sqrt(np.mean((once.test - again.test) ** 2) / 2))


def answer(metric: Metric, found: Mapping[str, Found], controls: Mapping[str, Scratch]) -> str:
    """Whether the controller matters, in a sentence."""
    random = found[RANDOM]
    others = {of.title: of.scratch for name, of in found.items() if name != RANDOM} | controls
    parts = [
        f"{title} {_text(_difference(of.test, random.scratch.test, metric.digits))}"
        for title, of in others.items()
    ]
    return (
        f"Test {metric.name} from scratch, less that of {random.title}: {'; '.join(parts)}. "
        "Negative is better."
    )


def crossed_answer(metric: Metric, values: np.ndarray) -> str:
    """How much weights suit the policy that trained them, in a sentence."""
    told = _text(interval(specialisation(values), 3, "+"))
    return (
        f"Own pairs of policy and weights less all others, {metric.unit}: {told}. Negative: "
        "weights suit their own policy."
    )


def curves_figure(
    metric: Metric, found: Mapping[str, Found], warmup_epochs: int
) -> dict[str, Figure]:
    """File name -> the lowest number validated so far against steps, and against wall time,
    after the warm-up.
    """
    figures = {}
    for row, (name, x_label) in enumerate(
        {"curves_steps": "steps", "curves_time": "wall time (s)"}.items()
    ):
        lines = []
        for i, of in enumerate(found.values()):
            stacked = np.stack(of.curves)[:, :, warmup_epochs:]  # [S, 3, E]
            lines.append(
                Curve(
                    of.title, stacked[:, row].mean(axis=0), stacked[:, 2], PALETTE[i % len(PALETTE)]
                )
            )
        every = np.concatenate([line.values.ravel() for line in lines])
        panel = Panel(
            lines, f"lowest {metric.name} so far", (0.97 * every.min(), 1.03 * every.max())
        )
        figures[name] = stacked_curves(f"Search, against {x_label}", [panel], x_label)
    return figures


def scratch_figure(
    metric: Metric, found: Mapping[str, Found], controls: Mapping[str, Scratch]
) -> Figure:
    """Validation of the models trained from scratch, by epoch."""
    models = {of.title: of.scratch for of in found.values()}
    models |= {title.partition(",")[0]: of for title, of in controls.items() if title != AGAIN}
    lines = []
    for i, (title, of) in enumerate(models.items()):
        x, dashed = 1 + np.arange(of.epochs.shape[1]), i >= len(found)
        lines.append(Curve(title, x, of.epochs, PALETTE[i % len(PALETTE)], dashed))
    drawn = np.concatenate([line.values.ravel() for line in lines])
    panel = Panel(lines, f"validation {metric.name}", (0.97 * drawn.min(), 1.03 * drawn.max()))
    return stacked_curves("Trained from scratch", [panel], "epochs")


def _beside(yardsticks, digits):
    """Sentences: what each yardstick reaches on validation and test."""
    valid, test = yardsticks
    return " ".join(
        f"{name}: {valid[name]:.{digits}f} on validation, {test[name]:.{digits}f} on test."
        for name in valid
    )


def _count(found):
    return len(next(iter(found.values())).best)


def _difference(a, b, digits):
    return interval(a - b, digits, "+")


def _differences(a, b, digits):
    """Differences of two `Scratch`: validation, test."""
    return _difference(a.valid, b.valid, digits), _difference(a.test, b.test, digits)


def _interaction(values):
    rows, columns = values.mean(axis=2, keepdims=True), values.mean(axis=1, keepdims=True)
    return values - rows - columns + values.mean(axis=(1, 2), keepdims=True)


def _text(cell):
    """The text of a cell, for a sentence."""
    return (
        cell.reason
        if isinstance(cell, Empty)
        else cell
        if isinstance(cell, str)
        else f"{cell:+.3g}"
    )
