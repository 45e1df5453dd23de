"""Tables of how the policies of several arms decide (Q1): whether they look back, and whether they
have collapsed.
"""

import numpy as np

from nas.evaluation.conditioning import groups_test
from nas.report.arms.arm import NO_STATE, PERMUTED, MeasuredArm, interval, p_values, seeds
from nas.report.tables import Column, Empty, Row, Table
from nas.tasks import Task


def behaviour_table(task: Task, arms: dict[str, MeasuredArm], command: str) -> Table:
    """How the policies decide (Q1), and whether they have collapsed."""
    rows = []
    for arm in arms.values():
        own, uniform = arm.own_conditioning, arm.uniform_conditioning
        untrained = np.isnan(arm.best_loss).all()
        unique = [len(np.unique(behaviour.own, axis=0)) for behaviour in arm.behaviours]
        gains = arm.probe_gains(task) if arm.has_state else None
        rows.append(
            Row(
                [
                    arm.title,
                    Empty("not trained")
                    if untrained
                    else interval(task.metric.shown(np.array(arm.best_loss)), task.metric.digits),
                    interval([found.entropy.sum() for found in own], 2),
                    interval(unique, 0),
                    interval([found.total for found in own], 3),
                    interval([found.fraction for found in own], 4),
                    interval([found.total for found in uniform], 3),
                    NO_STATE if gains is None else interval(gains, 3, "+"),
                ]
            )
        )
    columns = [
        Column("arm"),
        Column(f"best {task.metric.name}", task.metric.digits),
        Column("entropy (nats)", 2),
        Column("unique samples", 0),
        Column("total correlation (nats)", 3),
        Column("its fraction", 4),
        Column("conditioning, uniform prefixes (nats)", 3),
        Column("probe less majority", 3, True),
    ]
    behaviours = arms["untrained"].behaviours
    drawn, count = len(behaviours[0].own), seeds(len(behaviours))
    notes = [
        f"Of {drawn:,} own samples, and of {drawn:,} uniform sequences that all arms share; "
        f"{count}.",
        "Entropy: of a whole sequence. Total correlation: how far the decisions of own samples "
        "depend on each other; fraction: "
        "of the sum of their marginal entropies. A policy that always decides the same has "
        "neither.",
        "Conditioning, uniform prefixes: sum over positions of KL(p(a_t | a_<t) || its mean over "
        "prefixes).",
        "Probe: held-out accuracy of linear readings of every decision from the state after a "
        "uniform sequence, less that of "
        "the most frequent choice; mean over decisions with a choice.",
    ]
    return Table("How the policies decide", columns, rows, notes, command)


def identical_states_table(task: Task, arms: dict[str, MeasuredArm], command: str) -> Table:
    """Whether architectures that continue from the same state of the policy have more in common
    than others.
    """
    start = task.space.num_decisions // 2
    rows = []
    for arm in arms.values():
        found = [_continuations_test(behaviour.continued, start) for behaviour in arm.behaviours]
        within, between = (
            np.array([getattr(test, name) for test in found]) for name in ("within", "between")
        )
        cells = [interval(within, 2), interval(between, 2), interval(within - between, 3, "+")]
        rows.append(Row([arm.title, *cells, p_values([test.p for test in found])]))
    columns = [
        Column("arm"),
        Column("within", 2),
        Column("between", 2),
        Column("difference", 3, True),
        Column("p", 4),
    ]
    groups, size, length = arms["untrained"].behaviours[0].continued.shape
    notes = [
        f"{groups} states of each policy after {start} own decisions, {size} architectures from "
        "each; decisions in common, of "
        f"the {length - start} that follow, for pairs from one state and from two. Policies that "
        "do not look back differ by chance alone, and by the same in all seeds, which share their "
        "random numbers.",
        PERMUTED.format("states' labels"),
    ]
    return Table("Architectures from identical states", columns, rows, notes, command)


def _continuations_test(continued, start):
    groups, size, length = continued.shape
    return groups_test(continued.reshape(-1, length), np.repeat(np.arange(groups), size), start)
