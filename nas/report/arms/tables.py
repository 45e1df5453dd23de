"""The tables of a study: what several arms and seeds say about the paper's questions. Arrays in,
tables out.

Every row is an arm, and every number a mean over its seeds ± half its 95 % t interval, or with one
seed the number alone. An arm whose policy has no hidden state has no distances of embeddings, and
its cells say so. How policies decide is in `nas.report.arms.policies`; `nas.report.arms.page` makes
the page.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.samples import SETS
from nas.report.arms.arm import (
    NO_STATE,
    NOT_MEASURED,
    ONE_SEED,
    MeasuredArm,
    all_measures,
    common_performance,
    interval,
    is_measured,
    performance,
    seeds,
)
from nas.report.arms.performances import performance_table
from nas.report.arms.policies import behaviour_table, identical_states_table
from nas.report.tables import Column, Empty, Row, Table
from nas.tasks import Task

REFERENCES = ("untrained", "pg")  # what an arm is compared with, if it is among the arms
PRIMARY_ARMS = ("memory", "memory_next")  # the paper's regulariser in its two readings
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
    """name of the table's file -> table.

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
    width = samples[0].after.shape[1]
    notes = [
        f"{samples[0].compared()}; state after the last decision; {seeds(len(untrained.samples))}.",
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
    """What states that have learned nothing would give on each arm's own samples."""
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


def _correlation_cells(task, arm, which):
    if not arm.has_state:
        return [NO_STATE] * len(_names(task))
    found = arm.correlations(task, which)
    samples = [sample[which] for sample in arm.samples]
    return _measure_cells([found[name] for name in _names(task)], samples)


def _measure_cells(columns, samples):
    cells = [interval(values, 3, "+") for values in columns]
    return [*cells[:-1], cells[-1] if is_measured(samples, "common_loss") else NOT_MEASURED]


def _yardsticks(task, samples, width, suffix=""):
    """Rows with one-hot decisions, and with a random projection (another one for each seed), in
    place of the states.
    """
    values = [all_measures(task, sample) for sample in samples]
    embeddings = {
        "one-hot decisions": [overlap.one_hot(task.space, sample.decisions) for sample in samples],
        "random projection": [
            overlap.random_projection(task.space, sample.decisions, width, seed)
            for seed, sample in enumerate(samples)
        ],
    }
    rows = []
    for name, embedded in embeddings.items():
        found = [
            correlations.correlations(*seed, block=sample.block)
            for *seed, sample in zip(values, embedded, samples, strict=True)
        ]
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
    """Names of the measures, one per column."""
    space = task.space
    kinds = [kind for kind in dict.fromkeys(space.kinds) if len(space.positions(kind))]
    features = space.features(np.zeros((1, space.num_decisions), np.int32))
    return (
        *map(correlations.common, kinds),
        correlations.TOTAL,
        correlations.labelled_edges(space),
        *map(correlations.difference_in, features),
        *correlations.EDIT_DISTANCES,
        performance(task),
        common_performance(task),
    )


def published_protocol(task: Task) -> dict[tuple[str, str, str], float]:
    """(measure, statistic, metric) -> what the paper reports with its memory, for a task that it
    searched.
    """
    edges, _, loss = correlations.protocol(task)
    names = {"labelled edges": edges, "performance": loss}
    return {(names[of], "Spearman", "L2"): r for of, r in task.network.published.items()}


def _published(task):
    """What the paper reports, by the names of our measures."""
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
    count = len(arms["untrained"].samples)
    sign = (
        "A negative difference: the states of the arm follow the similarity of architectures more "
        "than those of the reference."
    )
    test = f"Paired t test over {count} seeds; d_z: mean difference by its standard deviation."
    return [sign, test] if count > 1 else [sign]
