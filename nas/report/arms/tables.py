"""The tables of the evidence study: what several arms and seeds say about the paper's questions.
Arrays in, tables out.

Every row is an arm and every number a mean over its seeds ± half its 95 % t interval; with one seed
it stands alone. An arm whose policy has no hidden state has no distances of embeddings, and its
cells say so. How policies decide is in `nas.report.arms.policies`; the page is made by
`nas.report.arms.page`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.samples import SETS
from nas.report.arms.arm import (
    NO_STATE,
    ONE_SEED,
    PERMUTED,
    MeasuredArm,
    common_performance,
    interval,
    measures,
    p_values,
    performance,
    seeds,
)
from nas.report.arms.policies import behaviour_table, identical_states_table
from nas.report.tables import Column, Empty, Row, Table
from nas.tasks import Task

REFERENCES = ("untrained", "pg")  # what an arm is compared with, where it is there
PRIMARY_ARMS = ("memory", "memory_next")  # the paper's regulariser in its two readings
WEIGHTS = {"own": "loss", "common": "common_loss"}  # shared weights -> field of a sample
_NOT_MEASURED = Empty("not measured")
PAPER = "paper (PG + memory)"
_SIGNS = (
    "Similarities (common ..., overlap): the more negative, the more alike are the states of "
    "architectures that are alike.",
    "Differences and edit distances: the more positive, the farther apart are the states of "
    "architectures that differ.",
)
_PROJECTION = (
    "One-hot decisions, and these through a random matrix (another for each seed) to width {}, in "
    "place of the states: an "
    "embedding that encodes every decision and has learned nothing."
)


def study_tables(task: Task, arms: dict[str, MeasuredArm], command: str) -> dict[str, Table]:
    """name of its file -> table.

    Args:
      arms: keys as in `experiments.arms`, and "untrained"; the same seeds in each.
      command: that makes the tables.
    """
    return {
        "correlations_uniform": correlations_table(task, arms, "uniform", command),
        "correlations_own": correlations_table(task, arms, "own", command),
        "correlations_own_yardsticks": yardsticks_table(task, arms, command),
        "protocol": protocol_table(task, arms, command),
        "primary": primary_table(task, arms, command),
        "exploratory": exploratory_table(task, arms, command),
        "performance_uniform": performance_table(task, arms, "uniform", command),
        "performance_own": performance_table(task, arms, "own", command),
        "behaviour": behaviour_table(task, arms, command),
        "identical_states": identical_states_table(task, arms, command),
    }


def correlations_table(task: Task, arms: dict[str, MeasuredArm], which: str, command: str) -> Table:
    """Spearman's correlation of the distance of states with each measure, on one of the SETS."""
    rows = [Row([arm.title, *_correlation_cells(task, arm, which)]) for arm in arms.values()]
    untrained = arms["untrained"]
    samples = [sample[which] for sample in untrained.samples]
    n, width = samples[0].after.shape
    notes = [
        f"{n} architectures, all pairs; state after the last decision; "
        f"{seeds(len(untrained.samples))}.",
        *_SIGNS,
        "Own weights, where none are named: those that the controller was trained with; of the "
        "untrained, those of its run.",
    ]
    if which == "uniform":
        rows += _yardsticks(task, samples, width)
        rows.append(Row(["equal weights, in expectation", *_ceiling_cells(task)], reference=True))
        notes += [
            _PROJECTION.format(width),
            "Equal weights, in expectation: Pearson's correlation of a similarity with the total "
            "overlap where decisions are "
            "independent and uniform: the square root of sum q (1 - q) over its positions by that "
            "over all; q = 1 / choices.",
        ]
    else:
        if published := _published(task):
            cells = [published.get(name, Empty("-")) for name in _names(task)]
            rows.append(Row([PAPER, *cells], reference=True))
        notes.append(
            "Arms draw different samples: compare each with its yardsticks before comparing arms."
        )
    title = f"{SETS[which].capitalize()}: correlation of the distance between states with ..."
    return Table(title, _correlation_columns(task), rows, notes, command)


def yardsticks_table(task: Task, arms: dict[str, MeasuredArm], command: str) -> Table:
    """What states that have learned nothing would give on the own samples of each arm."""
    width = arms["untrained"].samples[0]["own"].after.shape[1]
    rows = []
    for arm in arms.values():
        rows += _yardsticks(
            task, [sample["own"] for sample in arm.samples], width, f": {arm.title}"
        )
    title = "Own samples, yardsticks: correlation of distances that have learned nothing with ..."
    return Table(
        title, _correlation_columns(task), rows, [_PROJECTION.format(width), *_SIGNS], command
    )


def protocol_table(task: Task, arms: dict[str, MeasuredArm], command: str) -> Table:
    """The paper's own protocol on each arm's own samples."""
    compared = [arm for arm in arms.values() if arm.has_state]
    found = [arm.protocol(task) for arm in compared]
    rows, published = [], published_protocol(task)
    for key in itertools.product(
        correlations.protocol(task), correlations.STATISTICS, correlations.METRICS
    ):
        paper = [published.get(key, Empty("-"))] if published else []
        rows.append(
            Row([*key, *paper, *(interval([seed[key] for seed in arm], 3, "+") for arm in found)])
        )
    columns = [
        *(Column(name) for name in ("measure", "correlation", "distance")),
        *(Column(title, 3, True) for title in [PAPER] * bool(published)),
        *(Column(arm.title, 3, True) for arm in compared),
    ]
    notes = [
        "Embedding: the state that produced the last decision.",
        "Edit distance: networkx's first approximation without labels, which counts the edges "
        "that only one of the two has.",
        "The paper's code sampled without the tanh constant, so from a flatter policy; here the "
        "policy is the trained one.",
    ]
    title = "Own samples, the paper's protocol: correlation of the distance between states with ..."
    return Table(title, columns, rows, notes, command)


def primary_table(task: Task, arms: dict[str, MeasuredArm], command: str) -> Table:
    """The claim to be tested, in one family of tests adjusted after Holm."""
    found = differences(task, arms, [key for key in PRIMARY_ARMS if key in arms])
    adjusted = st.holm({str(names): paired.p for names, paired in found.items()}) if found else {}
    rows = [
        Row(
            [
                *names,
                *_paired_cells(paired),
                ONE_SEED if math.isnan(paired.low) else adjusted[str(names)],
            ]
        )
        for names, paired in found.items()
    ]
    notes = [
        f"The primary family: these {len(found)} tests, adjusted together after Holm. All other "
        "comparisons are exploratory.",
        *_difference_notes(arms),
    ]
    columns = [*_difference_columns(), Column("p, Holm", 4)]
    return Table(
        "Primary: what the memory changes, same seed, uniform set", columns, rows, notes, command
    )


def exploratory_table(task: Task, arms: dict[str, MeasuredArm], command: str) -> Table:
    """The same comparisons for all other arms, not adjusted."""
    found = differences(task, arms, [key for key in arms if key not in PRIMARY_ARMS])
    rows = [Row([*names, *_paired_cells(paired)]) for names, paired in found.items()]
    notes = ["Exploratory: p is not adjusted for the number of rows.", *_difference_notes(arms)]
    return Table(
        "Exploratory: what other arms change, same seed, uniform set",
        _difference_columns(),
        rows,
        notes,
        command,
    )


def differences(
    task: Task, arms: dict[str, MeasuredArm], keys: Sequence[str]
) -> dict[tuple[str, str, str], st.Paired]:
    """(arm, reference, measure) -> paired difference of correlations on the uniform set, for those
    `keys` that have a state.
    """
    compared = [
        name
        for name in dict.fromkeys((*REFERENCES, *keys))
        if name in arms and arms[name].has_state
    ]
    values = {name: arms[name].correlations(task, "uniform") for name in compared}
    found = {}
    for key in filter(values.get, keys):
        for reference in REFERENCES[: REFERENCES.index(key) if key in REFERENCES else None]:
            if reference in values:
                for measure in (correlations.TOTAL, correlations.common(task.space.label_kind)):
                    paired = st.paired_difference(values[key][measure], values[reference][measure])
                    found[arms[key].title, arms[reference].title, measure] = paired
    return found


def performance_table(task: Task, arms: dict[str, MeasuredArm], which: str, command: str) -> Table:
    """Whether states tell performance (Q5), on one of the SETS, with own and with common
    weights.
    """
    metric = task.metric
    rows = [
        Row([arm.title, weights, *_performance_cells(task, arm, which, field)])
        for arm in arms.values()
        for weights, field in WEIGHTS.items()
    ]
    columns = [
        Column("arm"),
        Column("weights"),
        Column("states", 3, True),
        Column("p (Mantel)", 4),
        Column("no correlation beyond", 3),
        Column("states, overlap fixed", 3, True),
        Column("p (partial Mantel)", 4),
        Column("total overlap", 3, True),
        Column("diverged cells"),
        Column("states, without them", 3, True),
        Column("total overlap, without them", 3, True),
    ]
    notes = [
        f"Spearman's correlation of |difference of {metric.loss}| with the distance of states "
        "(positive: states tell "
        "performance), and with total overlap (negative: architectures that are alike perform "
        "alike).",
        "No correlation beyond: the least bound within which the mean over seeds lies: two "
        "one-sided t tests at .05.",
        "States, overlap fixed: the partial correlation given total overlap. Its p is too small "
        "where both follow the overlap.",
        PERMUTED.format("architectures"),
        f"Diverged: {metric.name} above {metric.shown(metric.guessing):,.{metric.digits}f}, which "
        "is guessing, or not finite; they are part of all numbers but those without them.",
    ]
    title = f"{SETS[which].capitalize()}: do states tell performance?"
    return Table(title, columns, rows, notes, command)


def _correlation_cells(task, arm, which):
    if not arm.has_state:
        return [NO_STATE] * len(_names(task))
    found = arm.correlations(task, which)
    samples = [sample[which] for sample in arm.samples]
    return _measure_cells([found[name] for name in _names(task)], samples)


def _measure_cells(columns, samples):
    cells = [interval(values, 3, "+") for values in columns]
    return [*cells[:-1], cells[-1] if _is_measured(samples, WEIGHTS["common"]) else _NOT_MEASURED]


def _is_measured(samples, field):
    return not all(np.isnan(getattr(sample, field)).all() for sample in samples)


def _yardsticks(task, samples, width, suffix=""):
    """Rows of one-hot decisions and of a random projection, another one for each seed, in place of
    the states.
    """
    values = [measures(task, sample) for sample in samples]
    embeddings = {
        "one-hot decisions": [overlap.one_hot(task.space, sample.decisions) for sample in samples],
        "random projection": [
            overlap.random_projection(task.space, sample.decisions, width, seed)
            for seed, sample in enumerate(samples)
        ],
    }
    rows = []
    for name, embedded in embeddings.items():
        found = [correlations.correlations(*pair) for pair in zip(values, embedded, strict=True)]
        cells = _measure_cells(
            [[seed[measure] for seed in found] for measure in _names(task)], samples
        )
        rows.append(Row([name + suffix, *cells], reference=True))
    return rows


def _ceiling_cells(task):
    def variance(*kinds):
        q = 1 / np.array(
            [task.space.num_choices[t] for kind in kinds for t in task.space.positions(kind)]
        )
        return float((q * (1 - q)).sum())

    kinds = {correlations.common(kind): (kind,) for kind in dict.fromkeys(task.space.kinds)}
    kinds[correlations.TOTAL] = tuple(dict.fromkeys(task.space.kinds))
    everything = variance(*kinds[correlations.TOTAL])
    return [
        -math.sqrt(variance(*kinds[name]) / everything) if name in kinds else Empty("-")
        for name in _names(task)
    ]


def _names(task):
    """The measures, a column each."""
    space = task.space
    kinds = [kind for kind in dict.fromkeys(space.kinds) if len(space.positions(kind))]
    features = space.features(np.zeros((1, space.num_decisions), np.int32))
    return (
        *map(correlations.common, kinds),
        correlations.TOTAL,
        correlations.labelled_edges(space),
        *map(correlations.difference, features),
        *correlations.EDIT_DISTANCES,
        performance(task),
        common_performance(task),
    )


def published_protocol(task: Task) -> dict[tuple[str, str, str], float]:
    """(measure, statistic, metric) -> what the paper reports with the memory, of a
    task that it searched.
    """
    edges, _, loss = correlations.protocol(task)
    names = {"labelled edges": edges, "performance": loss}
    return {(names[of], "Spearman", "L2"): r for of, r in task.network.published.items()}


def _published(task):
    """The same beside our reading and our performance."""
    names = {
        "labelled edges": correlations.labelled_edges(task.space),
        "performance": performance(task),
    }
    return {names[of]: r for of, r in task.network.published.items()}


def _correlation_columns(task):
    return [Column("arm"), *(Column(name, 3, True) for name in _names(task))]


def _difference_columns():
    return [
        *(Column(name) for name in ("arm", "less", "correlation with")),
        Column("difference", 3, True),
        Column("95 % interval", 3),
        Column("effect (d_z)", 2, True),
        Column("p", 4),
    ]


def _paired_cells(paired):
    if math.isnan(paired.low):
        missing = Empty("undefined") if math.isnan(paired.mean) else ONE_SEED
        return [paired.mean, missing, missing, missing]
    return [paired.mean, f"[{paired.low:+z.3f}, {paired.high:+z.3f}]", paired.effect, paired.p]


def _difference_notes(arms):
    return [
        "A negative difference: the states of the arm follow the similarity of architectures more "
        "than those of the reference.",
        f"Paired t test over {len(arms['untrained'].samples)} seeds; d_z: mean difference by its "
        "standard deviation.",
    ]


class _Pairs(NamedTuple):
    """What pairs of architectures differ by."""

    distance: np.ndarray  # [P] of their states
    overlap: np.ndarray  # [P]
    performance: np.ndarray  # [P] |difference| of losses


def _pairs(task, sample, loss, kept):
    decisions = sample.decisions[kept]
    return _Pairs(
        correlations.distances(sample.after[kept]),
        overlap.common_decisions(task.space, decisions, *dict.fromkeys(task.space.kinds)),
        overlap.feature_difference(loss[kept]),
    )


def _performance_cells(task, arm, which, field):
    samples = [sample[which] for sample in arm.samples]
    if not _is_measured(samples, field):
        return [_NOT_MEASURED] * 9
    measured = [getattr(sample, field) for sample in samples]
    converged = [values <= task.metric.guessing for values in measured]  # not those that are NaN
    everything, without = (
        [_pairs(task, *seed) for seed in zip(samples, measured, kept, strict=True)]
        for kept in ([slice(None)] * len(samples), converged)
    )
    states, states_without = [NO_STATE] * 5, NO_STATE
    if samples[0].after.shape[1]:
        simple, partial = zip(*arm.performance_tests(task, which, field), strict=True)
        r = [test.r for test in simple]
        states = [
            interval(r, 3, "+"),
            p_values([test.p for test in simple]),
            ONE_SEED if len(r) == 1 else st.equivalence_bound(r),
            interval([test.r for test in partial], 3, "+"),
            p_values([test.p for test in partial]),
        ]
        states_without = _with_performance("distance", without)
    diverged = sum(int((~kept).sum()) for kept in converged)
    return [
        *states,
        _with_performance("overlap", everything),
        f"{diverged} of {sum(map(len, converged))}",
        states_without,
        _with_performance("overlap", without),
    ]


def _with_performance(side, seeds):
    pairs = [(getattr(seed, side), seed.performance) for seed in seeds]
    return interval(
        [correlations.spearman(*sides) if len(sides[0]) else math.nan for sides in pairs], 3, "+"
    )
