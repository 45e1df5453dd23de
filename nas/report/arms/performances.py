"""Whether states tell performance (Q5), by the shared weights of each arm and by common ones."""

import math
from typing import NamedTuple

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.samples import SETS
from nas.report.arms.arm import (
    NO_STATE,
    NOT_MEASURED,
    ONE_SEED,
    PERMUTED,
    MeasuredArm,
    interval,
    is_measured,
    p_values,
)
from nas.report.tables import Column, Row, Table
from nas.tasks import Task

WEIGHTS = {"own": "loss", "common": "common_loss"}  # shared weights -> field of a sample


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
    if not is_measured(samples, field):
        return [NOT_MEASURED] * 9
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
