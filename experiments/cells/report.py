"""Tables and figures of trained cells."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.cells import facts
from nas.data.cell_table import CellTable
from nas.evaluation import landscape
from nas.evaluation.landscape import Repeatability
from nas.report.cells import cell_drawing
from nas.report.tables import Column, Row, Table

LEAST_ICC, LEAST_SPEARMAN, LARGEST_GAP = 0.95, 0.7, 0.3
BEST = 10  # cells that are drawn
_AGREEMENT = {
    "icc": ("intraclass correlation", LEAST_ICC),
    "spearman": ("Spearman of two seeds", None),
    "best": ("Spearman of two seeds, best quarter", LEAST_SPEARMAN),
    "best_by_another": ("Spearman of two seeds, best quarter by a third", None),
}


class Gate(NamedTuple):
    """Whether trainings tell cells apart well enough for a table."""

    online: Repeatability  # of the loss in the last eighth of the training
    validation: Repeatability
    gap: float  # largest of validation less online loss, bits a character

    @property
    def passed(self) -> bool:
        return (
            self.online.icc.estimate >= LEAST_ICC
            and self.online.best.estimate >= LEAST_SPEARMAN
            and self.gap < LARGEST_GAP
        )


def gate(online: np.ndarray, validation: np.ndarray) -> Gate:
    """Of losses [cells, seeds], bits a character.

    Raises:
      ValueError: fewer than two seeds or eight cells.
    """
    gap = float(np.max(validation - online))
    return Gate(landscape.repeatability(online), landscape.repeatability(validation), gap)


def gate_table(found: Gate, online: np.ndarray, command: str) -> Table:
    """How far seeds agree."""
    measured, seeds = found[:2], online.shape[1]
    rows = []
    for field, (name, wanted) in _AGREEMENT.items():
        texts = (getattr(of, field).text() for of in measured)
        rows.append(Row([name, *texts, f"{wanted} or more" if wanted else ""]))
    for name, field in (("sd between cells", "between"), ("sd between seeds", "within")):
        rows.append(Row([name, *(getattr(of, field) for of in measured), ""]))
    name = f"reliability of the mean of {seeds} seeds"
    rows.append(Row([name, *(of.of_mean(seeds) for of in measured), ""]))
    gap = f"{found.gap:.3f}"
    rows.append(Row(["validation less online, largest", "", gap, f"less than {LARGEST_GAP}"]))
    best, median, worst = np.quantile(online.mean(axis=1), [0, 0.5, 1])
    columns = [
        Column("bits a character"),
        Column("online, last eighth", 4),
        Column("validation", 4),
        Column("wanted of online"),
    ]
    notes = [
        f"The gate is {'passed' if found.passed else 'not passed'}. Online loss of cells: best "
        f"{best:.3f}, median {median:.3f}, worst {worst:.3f}.",
        "The common effect of a seed is left out; 95 % intervals over resampled cells.",
    ]
    title = f"Do seeds agree? {len(online)} cells, {seeds} seeds"
    return Table(title, columns, rows, notes, command)


def facts_tables(table: CellTable, command: str) -> dict[str, Table]:
    """What the table says before any search, by measure."""
    space = table.space
    landscapes = {m: facts.landscape_of(table, m) for m in ("online", "validation")}
    rows: dict[str, list] = {}

    def add(name, value):
        rows.setdefault(name, [name]).append(value)

    for measure, found in landscapes.items():
        values = found.values
        for name, order in (("single decisions", 1), ("and pairs", 2)):
            share = landscape.explained(space, *found, order)
            add(f"share of variance: {name}", share.fitted)
            add(f"share of variance: {name}, cross-validated", share.held_out)
        optima = landscape.local_optima(space, *found)
        add("local optima, of classes", f"{len(optima)} of {len(np.unique(found.classes))}")
        best = [np.flatnonzero(found.classes == optimum)[0] for optimum in optima]
        regrets = values[best] - values.min()
        add("local optima: median bits above the best", float(np.median(regrets)))
        for entropy, nats in facts.warranted_conditioning(table, values).items():
            add(f"conditioning of the best policy of {entropy:g} nats (nats)", nats)
        pairs = table.copies()
        if len(pairs) and len(table.seeds) > 1:
            copied = facts.isomorphs(table.bits[measure][pairs])
            add("cell and copy: sd of means over seeds", copied.between_copies)
            add("cell and copy: sd if numbering changes nothing", copied.expected)
            add("cell and copy: sd that other seeds would make", copied.between_seeds)
            add("cell and copy: p that numbering changes nothing", copied.p)
    columns = [Column("fact"), *(Column(measure, 4) for measure in landscapes)]
    classes = len(np.unique(table.rows()))
    notes = [
        f"{len(space.every()):,} architectures, {classes:,} classes that compute the same.",
        "Shares are of all architectures alike; architectures of a class are held out together.",
    ]
    listed = [
        Row(
            [
                space.format(table.decisions[row]),
                *(bits[row].mean() for bits in table.bits.values()),
            ]
        )
        for row in best_cells(table)
    ]
    named = [Column("cell"), *(Column(measure, 4) for measure in table.bits)]
    all_rows = [Row(cells) for cells in rows.values()]
    return {
        "facts": Table("What the table says", columns, all_rows, notes, command),
        "best": Table(f"The {BEST} best cells by online loss", named, listed, [], command),
    }


def best_cells(table: CellTable, count: int = BEST) -> np.ndarray:
    """[count] rows of the table: the best canonical cells by online loss, mean over seeds."""
    rows = np.unique(table.rows())
    return rows[np.argsort(table.bits["online"].mean(axis=1)[rows], kind="stable")][:count]


def drawings(table: CellTable) -> list[tuple[str, Figure, str]]:
    """File name, figure and caption of each of the best cells."""
    space, drawn = table.space, []
    for place, row in enumerate(best_cells(table), 1):
        text = space.format(table.decisions[row])
        (graph,) = space.to_graphs(table.decisions[row])
        figure = cell_drawing(graph, space.label_names, space.io_labels)
        bits = table.bits["online"][row].mean()
        drawn.append((f"best_{place:02}", figure, f"{place}. {text}: {bits:.4f} bits"))
    return drawn
