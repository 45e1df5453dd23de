"""The report on a controller of any make, known by arrays alone: what its embeddings and its policy
show of its decisions.

A controller is a single seed: intervals come from resampling its architectures and speak of others
that it could have drawn.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.conditioning import Conditioning, conditioning
from nas.evaluation.probes import Probe, probe_accuracy
from nas.report import panels
from nas.report.arms import page
from nas.report.html import Report
from nas.report.tables import Column, Empty, Row, Table
from nas.spaces import SearchSpace

COMPARED = 200  # architectures that are compared pair by pair: the first ones
PERFORMANCE = "performance, |difference|"
_PROJECTIONS = 10
_TESTS = (
    "p: Mantel test, 9,999 permutations of the architectures. Interval: 95 %, 1,000 resamples of "
    "the architectures."
)


class Controller(NamedTuple):
    """n architectures that a controller decided, with its states and probabilities."""

    decisions: np.ndarray  # [n, T] int32
    embeddings: np.ndarray  # [n, H] float
    log_probs: np.ndarray | None  # [n, T, K] log p(. | a_<t) along the decisions
    performance: np.ndarray | None  # [n] float, on any scale


def correlations_table(
    values: Mapping[str, np.ndarray], space: SearchSpace, controller: Controller, command: str
) -> Table:
    """Spearman's correlation of the distance of embeddings with each of `values` [P], beside
    embeddings that have learned nothing.
    """
    decisions, embeddings = controller.decisions[:COMPARED], controller.embeddings[:COMPARED]
    width = embeddings.shape[1]
    one_hot = overlap.one_hot(space, decisions)
    projected = [
        overlap.random_projection(space, decisions, width, seed) for seed in range(_PROJECTIONS)
    ]
    distance = correlations.distances(embeddings)
    rows = []
    for name, column in values.items():
        chance = [
            correlations.correlations({name: column}, embedding)[name]
            for embedding in (one_hot, *projected)
        ]
        rows.append(Row([name, *_tested(distance, column), chance[0], float(np.mean(chance[1:]))]))
    columns = [
        *_columns("distance of embeddings and ..."),
        Column("one-hot", 3, True),
        Column("random projection", 3, True),
    ]
    notes = [
        f"{len(decisions)} architectures, all pairs. Similarities (common ..., overlap) should be "
        "negative, differences "
        "positive.",
        _TESTS,
        "One-hot: the decisions themselves as embedding; random projection: these through "
        f"{_PROJECTIONS} random matrices to "
        f"width {width}, mean. Both have learned nothing.",
    ]
    return Table("Distances of embeddings: Spearman's correlation", columns, rows, notes, command)


def performance_table(
    values: Mapping[str, np.ndarray], space: SearchSpace, controller: Controller, command: str
) -> Table:
    """Whether embeddings follow performance beyond what the architectures have in common."""
    distance = correlations.distances(controller.embeddings[:COMPARED])
    total = overlap.common_decisions(
        space, controller.decisions[:COMPARED], *dict.fromkeys(space.kinds)
    )
    partial = st.partial_mantel(distance, values[PERFORMANCE], total)
    rows = [
        Row(["distance of embeddings", *_tested(distance, values[PERFORMANCE])]),
        Row(["distance of embeddings, total overlap fixed", partial.r, Empty("-"), partial.p]),
        Row(["total overlap", *_tested(total, values[PERFORMANCE])]),
    ]
    notes = [
        _TESTS,
        "Total overlap fixed: partial Mantel test; p is too small where both follow the overlap.",
    ]
    return Table(
        "Performance: Spearman's correlation with its |difference|",
        _columns("of"),
        rows,
        notes,
        command,
    )


def probes_table(space: SearchSpace, probe: Probe, command: str) -> Table:
    """Which decisions can be read off the embeddings, by position."""
    free = np.flatnonzero(np.array(space.num_choices) > 1)
    accuracy, majority = probe.accuracy[free], probe.majority[free]
    rows = [
        Row([*_position(space, t), float(a), float(m), float(a - m)])
        for t, a, m in zip(free, accuracy, majority, strict=True)
    ]
    means = [float(part.mean()) for part in (accuracy, majority, accuracy - majority)]
    rows.append(Row(["all", "mean", "", *means], reference=True))
    columns = [
        *_position_columns(),
        *(Column(name, 3) for name in ("accuracy", "majority")),
        Column("difference", 3, True),
    ]
    notes = [
        "Held-out accuracy of a linear reading of the embedding, and of the most frequent choice; "
        "five folds."
    ]
    return Table("Decisions read off the embedding", columns, rows, notes, command)


def conditioning_table(space: SearchSpace, found: Conditioning, command: str) -> Table:
    """How much the policy conditions on its past, by position."""
    rows = [
        Row([*_position(space, t), float(found.entropy[t]), float(found.divergence[t])])
        for t in np.flatnonzero(np.array(space.num_choices) > 1)
    ]
    rows.append(Row(["all", "sum", "", float(found.entropy.sum()), found.total], reference=True))
    notes = [
        "Conditioning: KL(p(a_t | a_<t) || its mean over the sequences). Where these are the "
        "policy's own samples, the sum is "
        "its total correlation: how far its decisions depend on each other. A policy that always "
        "decides the same has none."
    ]
    columns = [*_position_columns(), Column("entropy (nats)", 3), Column("conditioning (nats)", 4)]
    return Table("How the policy decides", columns, rows, notes, command)


def write_report(
    path: pathlib.Path, space: SearchSpace, controller: Controller, command: str
) -> list[Table]:
    """Writes the page to `path`, its tables and figures beside it, and returns the tables."""
    decisions, embeddings, log_probs, performance = controller
    compared = decisions[:COMPARED]
    edits = correlations.edit_distances(space, compared)
    values = correlations.measures(space, compared, edits=edits)
    if performance is not None:
        values[PERFORMANCE] = overlap.feature_difference(performance[:COMPARED])
    probe = probe_accuracy(embeddings, decisions)
    tables = {
        "correlations": correlations_table(values, space, controller, command),
        "probes": probes_table(space, probe, command),
    }
    total = overlap.common_decisions(space, decisions[:COMPARED], *dict.fromkeys(space.kinds))
    pairs = {
        "overlap": ("total overlap (decisions)", total),
        "edit_distance": ("exact edit distance (edits)", values[correlations.EDIT_DISTANCE]),
    }
    colorings = panels.fractions(space, decisions)
    if performance is not None:
        tables["performance"] = performance_table(values, space, controller, command)
        pairs["performance"] = (PERFORMANCE, values[PERFORMANCE])
        colorings = {"performance": performance} | colorings
    distance = correlations.distances(embeddings[:COMPARED])
    drawn = {
        "distance": (
            {
                key: panels.densities(
                    {"": (x, distance)}, x_label=label, y_label="distance of embeddings (L2)"
                )
                for key, (label, x) in pairs.items()
            },
            "Pairs by similarity and distance of embeddings.",
        ),
        "embeddings": (
            {
                "components": panels.projections("Principal components", embeddings, colorings),
                "probes": panels.probe_curves(space, "Linear probes", [probe]),
            },
            "Embeddings, coloured, and what can be read off them; dashed: the most frequent "
            "choice.",
        ),
    }
    if log_probs is not None:
        found = conditioning(log_probs)
        tables["conditioning"] = conditioning_table(space, found, command)
        drawn["policy"] = (
            {
                "conditioning": panels.conditioning_curves(
                    space, "Entropy and conditioning", {"": [found]}
                ),
                "certainty": panels.certainty(space, "The likeliest action", log_probs),
            },
            "How the policy decides. Rows of the map that are alike: it does not look back.",
        )
    report = Report(
        "Does this controller know what it is building?",
        f"{len(decisions):,} architectures; the first {min(len(decisions), COMPARED)} are "
        "compared pair by pair.",
    )
    report.section("Tables")
    for name, table in tables.items():
        page.add_table(report, path.parent, name, table)
    report.section("Figures")
    for name, (figures, caption) in drawn.items():
        page.add_figures(report, path.parent, name, figures, caption)
    report.section("Command")
    report.commands([command])
    report.write(path)
    return list(tables.values())


def _tested(x, y):
    """Cells of a row: correlation, interval, p."""
    found = st.bootstrap_correlation(x, y)
    interval = (
        f"[{found.low:+z.3f}, {found.high:+z.3f}]" if np.isfinite(found.low) else Empty("undefined")
    )
    return [found.estimate, interval, st.mantel(x, y).p]


def _columns(first):
    return [
        Column(first),
        Column("correlation", 3, True),
        Column("95 % interval", 3),
        Column("p", 4),
    ]


def _position(space, t):
    return [str(t), space.kinds[t], str(space.num_choices[t])]


def _position_columns():
    return [Column(name) for name in ("position", "kind", "choices")]
