"""Whether states follow performance (Q5), under the shared weights of each arm and common ones."""

import math
from typing import NamedTuple

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.blocks import pairs
from nas.evaluation.rounding import is_constant
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
    """Whether states follow performance (Q5), on one of the SETS, under own and under common
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
    sample = arms["untrained"].samples[0][which]
    if sample.blocks > 1:
        notes.append(f"{sample.compared()}: those of a block are permuted among themselves.")
    title = f"{SETS[which].capitalize()}: do states tell performance?"
    return Table(title, columns, rows, notes, command)


class _Pairs(NamedTuple):
    """Distances and similarities of pairs of architectures."""

    distance: np.ndarray  # [P] of their states
    overlap: np.ndarray  # [P]
    performance: np.ndarray  # [P] |difference| of losses


def _pairs(task, sample, loss):
    block, kinds = sample.block, dict.fromkeys(task.space.kinds)
    return _Pairs(
        correlations.distances(sample.after, block=block),
        overlap.common_decisions(task.space, sample.decisions, *kinds, block=block),
        overlap.feature_difference(loss, block=block),
    )


def _of_some(found, sample, kept):
    """The pairs of architectures that are both `kept` [n]."""
    first, second = pairs(len(kept), sample.block)
    both = kept[first] & kept[second]
    some = _Pairs(*(side[both] for side in found))
    alike = is_constant(sample.after[kept])  # up to rounding, as in `correlations.distances`
    return some._replace(distance=np.zeros_like(some.distance)) if alike else some


def _performance_cells(task, arm, which, field):
    samples = [sample[which] for sample in arm.samples]
    if not is_measured(samples, field):
        return [NOT_MEASURED] * 9
    measured = [getattr(sample, field) for sample in samples]
    converged = [values <= task.metric.guessing for values in measured]  # False for NaN
    everything = [_pairs(task, *seed) for seed in zip(samples, measured, strict=True)]
    without = [_of_some(*seed) for seed in zip(everything, samples, converged, strict=True)]
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
    both = [(getattr(seed, side), seed.performance) for seed in seeds]
    return interval(
        [correlations.spearman(*sides) if len(sides[0]) else math.nan for sides in both], 3, "+"
    )
