"""The report of the paper's question: tables, figures and commands of one or several arms. Arrays in, one HTML file out.

The columns of the main table are controllers; the untrained one is measured under the shared weights of the first arm.
"""

import dataclasses
import pathlib

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation.edit_distance import MAX_APPROXIMATED
from nas.evaluation.samples import SETS, Sample
from nas.report import cells, figures
from nas.report.html import Report
from nas.report.tables import Column, Empty, Row, Table
from nas.spaces import RecurrentSpace

_CURVES = (
    figures.Metric("perplexity", "training perplexity", log=True),
    figures.Metric("reward", "reward (80 / validation perplexity)"),
    figures.Metric("entropy", "entropy of the policy (nats)"),
    figures.Metric("supervised_loss", "supervised loss (nats a decision)"),
)


@dataclasses.dataclass(frozen=True)
class Controller:
    """A column: one controller, one entry a seed in each list."""

    title: str
    samples: list[dict[str, Sample]]  # set -> sample


@dataclasses.dataclass(frozen=True)
class TrainedArm:
    """What a search of one arm and seed left behind."""

    title: str
    curves: dict[str, tuple[np.ndarray, np.ndarray]]  # name -> (steps [n], values [n])
    best_decisions: np.ndarray  # [T]
    best_log_perplexity: float  # nats a token, whole validation split


def correlation_tables(space: RecurrentSpace, controllers: list[Controller], command: str) -> list[Table]:
    """Spearman's correlation of the distance of embeddings with each measure, a table a set; mean over seeds, with range."""
    n, width = controllers[0].samples[0]["own"].after.shape
    seeds = len(controllers[0].samples)
    notes = [
        f"{n} architectures, all pairs; embedding: state after the last decision; "
        + ("one seed." if seeds == 1 else f"mean over {seeds} seeds [least, greatest]."),
        "Similarities should be negative, differences positive. Pairs are not independent samples: no p-values here.",
        "Random projection: one-hot decisions through a random matrix to the width of the embedding, nothing learned.",
        f"Untrained: the controller before its first update; perplexities under the weights of {controllers[1].title}.",
    ]
    columns = [
        Column("measure"),
        Column("paper (PG + memory)", 3, True),
        *(Column(controller.title, 3, True) for controller in controllers),
    ]
    tables = []
    for which, title in SETS.items():
        learned, chance = [], []
        for controller in controllers:
            samples = [(sample[which], correlations.measures(space, sample[which])) for sample in controller.samples]
            learned.append([correlations.correlations(values, sample.after) for sample, values in samples])
            chance.append(
                [
                    correlations.correlations(values, overlap.random_projection(space, sample.decisions, width))
                    for sample, values in samples
                ]
            )
        rows = []
        for measure in correlations.MEASURES:
            paper = correlations.PAPER.get(measure, Empty("-")) if which == "own" else Empty("-")
            rows.append(Row([measure, paper, *(_mean(values, measure) for values in learned)]))
        for measure in correlations.MEASURES:
            values = [_mean(projected, measure) for projected in chance]
            rows.append(Row([f"random projection: {measure}", Empty("-"), *values], reference=True))
        name = f"{title.capitalize()}: Spearman's correlation of the L2 distance between embeddings with ..."
        tables.append(Table(name, columns, rows, notes, command))
    return tables


def protocol_table(space: RecurrentSpace, controllers: list[Controller], command: str) -> Table:
    """The paper's own protocol on each controller's own samples; mean over seeds, with range."""
    few = min(MAX_APPROXIMATED, len(controllers[0].samples[0]["own"].decisions))
    found = [[correlations.paper_protocol(space, sample["own"]) for sample in c.samples] for c in controllers]
    rows = []
    for key in found[0][0]:
        paper = correlations.PAPER_PROTOCOL.get(key, Empty("-"))
        rows.append(Row([*key, paper, *(_mean(values, key) for values in found)]))
    return Table(
        "Own samples, the paper's protocol: correlation of the distance between embeddings with ...",
        [
            *(Column(name) for name in ("measure", "correlation", "distance")),
            Column("paper (PG + memory)", 3, True),
            *(Column(controller.title, 3, True) for controller in controllers),
        ],
        rows,
        [
            "Embedding: the state that produced the last decision.",
            f"Edit distance: networkx's first approximation without labels, of the first {few} architectures.",
            "The paper's code sampled without the tanh constant, so from a flatter policy; here the policy is the trained one.",
        ],
        command,
    )


def perplexity_table(arms: list[TrainedArm], yardsticks: dict[str, float], command: str) -> Table:
    """Validation perplexity of each arm's best cell under its shared weights, beside n-gram models of the same split."""
    rows = [Row([f"{arm.title}: best cell, shared weights", float(np.exp(arm.best_log_perplexity))]) for arm in arms]
    rows += [Row([name, value], reference=True) for name, value in yardsticks.items()]
    return Table(
        "Perplexity of the validation split",
        [Column("model"), Column("perplexity", 1)],
        rows,
        notes=["The best cell was chosen among those validated on a slice of the same split."],
        command=command,
    )


def write_report(
    path: pathlib.Path,
    space: RecurrentSpace,
    tables: list[Table],
    controllers: list[Controller],
    arms: list[TrainedArm],
    commands: list[str],
    details: dict[str, str],
) -> pathlib.Path:
    """Writes the report to `path` and returns it; `arms` are the runs that are drawn (one seed of each arm)."""
    report = Report(
        "Does the controller know what it is building?",
        "Distances between a controller's hidden states, compared with the similarity of the architectures they stand for.",
    )
    report.section("Correlations")
    for table in tables:
        report.table(table)
    report.section("Distances of embeddings")
    for which, title in SETS.items():
        panels = [_panels(space, controller, which) for controller in controllers]
        for measure, x_label in (
            (correlations.ACTIVATIONS, "common activations (nodes)"),
            (correlations.EDIT_DISTANCE, "exact edit distance (edits)"),
            (correlations.PERFORMANCE, "|difference| of log perplexity (nats)"),
        ):
            report.figure(
                [figures.distance_scatter([drawn[measure]], x_label=x_label) for drawn in panels],
                f"{title.capitalize()}, first seed: distance of embeddings against {measure}; medians and quartiles.",
                [f"Scatter plot for {c.title}: embedding distance against {measure}" for c in controllers],
            )
    report.section("Training")
    report.figure(
        [figures.training_curves({arm.title: arm.curves for arm in arms}, [metric], window=25) for metric in _CURVES],
        "Training, first seed. Pale: every step; bold: mean of 25 steps.",
        [f"Curves of {metric.label}" for metric in _CURVES],
    )
    report.section("Best cells")
    titles = [f"{arm.title}: perplexity {np.exp(arm.best_log_perplexity):.1f}" for arm in arms]
    report.figure(
        [cells.cell_drawing(space, arm.best_decisions, title) for arm, title in zip(arms, titles, strict=True)],
        "Of the cells validated during the search, the one with the lowest perplexity under shared weights.",
        [f"Graph of the cell {space.format(arm.best_decisions)}" for arm in arms],
    )
    for arm in arms:
        report.text(f"{arm.title}: {space.format(arm.best_decisions)}")
    report.section("Commands and versions")
    report.commands(commands)
    report.details(details)
    return report.write(path)


def _mean(values, measure):
    numbers = np.array([value[measure] for value in values])
    if len(numbers) == 1:
        return float(numbers[0])
    return f"{numbers.mean():+.3f} [{numbers.min():+.3f}, {numbers.max():+.3f}]"


def _panels(space, controller, which):
    """measure -> panel of the first seed."""
    sample = controller.samples[0][which]
    distance = correlations.distances(sample.after)
    return {
        measure: figures.Panel(controller.title, x, distance, correlations.spearman(distance, x))
        for measure, x in correlations.measures(space, sample).items()
    }
