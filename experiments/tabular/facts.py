"""What a table itself says, before any search: how good the best are, how far validation ranks
test, how much is noise.
"""

import itertools

import numpy as np

from nas.data.table import ScoreTable
from nas.evaluation.correlations import spearman
from nas.report.tables import Column, Empty, Row
from nas.report.tables import Table as Printed


def facts_tables(table: ScoreTable, command: str) -> list[Printed]:
    """A table of facts by data set, and one of rank correlations between data sets."""
    data_sets, space = table.data_sets, table.space
    found = {data_set: facts(table, data_set) for data_set in data_sets}
    rows = [
        Row([name, *(found[data_set][name] for data_set in data_sets)])
        for name in found[data_sets[0]]
    ]
    best = [
        space.format(space.every()[np.argmax(table.scores[data_set, "val"])])
        for data_set in data_sets
    ]
    notes = [
        f"{len(table.classes):,} architectures, {table.different:,} classes that compute the same. "
        "Accuracies in percent, differences in points.",
        "Within a class: deviations from its mean, of architectures that share it with others; "
        "best tenth: by that mean.",
        *(
            f"Best by validation, {data_set}: {text}"
            for data_set, text in zip(data_sets, best, strict=True)
        ),
    ]
    columns = [Column("table"), *(Column(data_set, 3) for data_set in data_sets)]
    pairs = [
        Row(
            [
                f"{a} and {b}",
                *(
                    spearman(table.scores[a, split], table.scores[b, split])
                    for split in ("val", "test")
                ),
            ]
        )
        for a, b in itertools.combinations(data_sets, 2)
    ]
    between = [Column("data sets"), Column("validation", 3), Column("test", 3)]
    return [
        Printed("The table", columns, rows, notes, command),
        Printed(
            "Spearman's correlation of accuracies between data sets", between, pairs, [], command
        ),
    ]


def facts(table: ScoreTable, data_set: str) -> dict[str, float | Empty]:
    """name -> number."""
    valid, test = (
        np.asarray(table.scores[data_set, split], np.float64) for split in ("val", "test")
    )
    best, means = int(np.argmax(valid)), table.class_mean(data_set, "test")
    shared = np.bincount(table.classes)[table.classes] > 1
    top = shared & (means >= np.quantile(means, 0.9))
    found = {
        "mean, validation": valid.mean(),
        "mean, test": test.mean(),
        "best by validation: validation": valid[best],
        "best by validation: test": test[best],
        "best by validation: rank on test": str(1 + int(np.sum(test > test[best]))),
        "best by validation: rank of its class on test": str(
            1 + len(np.unique(table.classes[means > means[best]]))
        ),
        "best on test": test.max(),
        "best class, mean on test": means.max(),
        "best less fifth by validation: validation": valid[best] - np.sort(valid)[-5],
        "Spearman, validation and test": spearman(valid, test),
    }
    if not shared.any():
        return found | {"within a class": Empty("no class of two")}
    residuals = [
        np.asarray(table.scores[data_set, split]) - table.class_mean(data_set, split)
        for split in ("val", "test")
    ]
    for name, members in (("all", shared), ("best tenth", top)):
        deviation, correlation = (template.format(name) for template in _WITHIN)
        freedom = members.sum() - len(np.unique(table.classes[members]))
        found[deviation] = float(np.sqrt(np.sum(residuals[1][members] ** 2) / freedom))
        found[correlation] = float(np.corrcoef([residual[members] for residual in residuals])[0, 1])
    return found


_WITHIN = (
    "within a class, {}: standard deviation on test",
    "within a class, {}: correlation of validation and test",
)
