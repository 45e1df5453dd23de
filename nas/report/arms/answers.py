"""The five questions of the paper (Adam and Lorraine 2019), each with an answer from the numbers.

Arrays in; a sentence and a figure for each out. `nas.report.arms.summary` defines "follows", "more"
and "less". With one seed, "more" and "less" of a number without interval are its sign, and the
sentence says that one seed cannot tell.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from nas.evaluation import statistics as st
from nas.evaluation.samples import SETS
from nas.evaluation.statistics import Interval
from nas.report import panels
from nas.report.arms import answers_figures, summary
from nas.report.arms.answers_figures import Dots, Range
from nas.report.arms.arm import MeasuredArm
from nas.report.arms.searches import Searched
from nas.report.arms.summary import (
    MEMORY,
    ONE_SEED,
    PG,
    UNTRAINED,
    Measure,
    direction,
    shown,
)
from nas.report.panels import Curve, Panel
from nas.report.style import PALETTE, QUIET
from nas.tasks import Task

UNIFORM = "uniform"  # the arm that is random search with weight sharing
_POSITION = "position of the decision"
_LEAST_GAIN = 0.01  # one decision in a hundred; less is no sign of encoding
_LEAST_DEPENDENCE = 0.01  # nats; less is no conditioning
_LEAST_NATS = 0.05  # an axis reaches at least this far, so that smaller numbers look like nothing
_DRAWN = 4  # most arms in one figure
_NO_STATE = "No controller here has a hidden state, so there is nothing to read."
_FOLLOWING = {  # side of a correlation (1: where it lies if states follow) -> words
    1: "follows",
    0: "shows no sign of",
    -1: "runs against",
    None: "may or may not follow",
}


class Answer(NamedTuple):
    """A question with its answer."""

    question: str
    sentence: str
    published: str  # what the paper says
    figure: Figure
    caption: str
    table: str  # name of the table that holds the numbers, as in `study_tables`


def answers(
    task: Task,
    arms: Mapping[str, MeasuredArm],
    searched: Sequence[Searched],
    yardsticks: Mapping[str, float],
) -> list[Answer]:
    """Q1 to Q5.

    Args:
      task: the task that was searched.
      arms: as for `nas.report.arms.tables.study_tables`.
      searched: what the searches of these arms left behind.
      yardsticks: name of a model without a network -> what it reaches on the validation split.
    """
    return [
        _encoding(task, arms),
        _sharing(task, arms, yardsticks),
        _forcing(task, arms, {arm.title for arm in searched if arm.has_memory}),
        _similarity(task, arms),
        _performance(task, arms),
    ]


def _encoding(task: Task, arms: Mapping[str, MeasuredArm]) -> Answer:
    key = PG if PG in arms and arms[PG].has_state else summary.lead(arms)
    drawn = _drawn(arms)
    free = np.flatnonzero(np.array(task.space.num_choices) > 1)
    curves = [
        Curve(
            arms[name].title,
            free,
            np.stack([p.accuracy - p.majority for p in arms[name].probes])[:, free],
            color,
        )
        for name, color in drawn.items()
    ]
    return Answer(
        "Q1. Does the hidden state encode past decisions?",
        _NO_STATE if key is None else _encoding_sentence(task, arms, key),
        "The paper: no, without a memory; the controller does not condition on its past choices.",
        panels.stacked_curves("", [Panel(curves, "accuracy gained")], _POSITION),
        "How often a linear reading of the final state is right about a decision, less how often "
        "its most frequent choice is; bands, where there are several seeds: 95 %.",
        "behaviour",
    )


def _encoding_sentence(task, arms, key):
    arm, free = arms[key], np.array(task.space.num_choices) > 1
    gain, dependence = st.mean_interval(arm.probe_gains(task)), st.mean_interval(_dependence(arm))
    possible = np.mean([(1 - probe.majority)[free].mean() for probe in arm.probes])
    verdict, beside = "Untrained", ""
    if key != UNTRAINED:
        before = arms[UNTRAINED].probe_gains(task)
        way = _way(_paired(arm.probe_gains(task), before))
        words = {1: "More than", -1: "Less than", 0: "Not distinguishable from"}
        verdict, beside = (
            f"{words.get(way, 'Beside')} before training",
            f" (untrained {shown(st.mean_interval(before))})",
        )
    if _way(gain) != 1 or gain.estimate < _LEAST_GAIN:
        verdict = "No sign of it"
    return (
        f"{verdict}: with {arm.title} a linear reading of the state gains {shown(gain)} of the "
        f"{possible:.3f} that there is to gain over a decision's most frequent choice{beside}, and "
        f"decisions depend on each other by {shown(dependence, sign='')} nats; "
        f"{_told(len(arms[UNTRAINED].samples))}."
    )


def _sharing(
    task: Task, arms: Mapping[str, MeasuredArm], yardsticks: Mapping[str, float]
) -> Answer:
    shown_of = task.metric.shown
    best = {key: shown_of(np.array(arm.best_loss)) for key, arm in arms.items() if key != UNTRAINED}
    rows = [
        Range(
            arms[key].title,
            {title: _reached(task, arms[key], which) for which, title in SETS.items()},
            float(np.mean(found)),
        )
        for key, found in best.items()
    ]
    return Answer(
        "Q2. Is weight sharing why the search is no better than random?",
        _sharing_sentence(task.metric, arms, best),
        "The paper: weight sharing is the confounder.",
        answers_figures.ranges(rows, yardsticks, task.metric),
        "Cells under the shared weights of each search: the uniform set, the same for all, and "
        "own samples, which the controller proposes; lines: quartiles and median.",
        "best",
    )


def _sharing_sentence(metric, arms, best):
    key = PG if PG in best else next(iter(best))
    title, seeds = arms[key].title, len(best[key])
    if UNIFORM in best and key != UNIFORM:
        less = shown(_paired(best[key], best[UNIFORM]), metric.digits)
        other = arms[UNIFORM].title
        seen = f"the best of {title}, less that of the {other}, has {less} in {metric.name}"
    else:
        reached = shown(st.mean_interval(best[key]), metric.digits, "")
        seen = f"the best of {title} has a {metric.name} of {reached}"
    return (
        f"This study cannot tell, since it sees cells under shared weights alone, where {seen} "
        f"({_told(seeds)}); python -m experiments.table_search trains cells of several searches "
        "alone, experiments.isomorphs and experiments.rank_agreement ask what sharing does to "
        "their ranking."
    )


def _forcing(task: Task, arms: Mapping[str, MeasuredArm], with_memory: set[str]) -> Answer:
    with_state = {key: arm for key, arm in arms.items() if arm.has_state}
    keys = [key for key in MEMORY if key in with_state]
    others = [key for key in with_state if key not in MEMORY]
    keys += [key for key in others if arms[key].title in with_memory]
    return Answer(
        "Q3. Does a memory of old architectures force the controller to condition on its past?",
        _forcing_sentence(task, with_state, keys),
        "The paper: yes; the likeliest action then depends on earlier decisions, and different "
        "architectures get different states.",
        _forcing_figure(task, with_state),
        "What states tell of all decisions, uniform set (the more negative, the more), and how far "
        f"decisions depend on each other, own samples; lines: {_basis(arms)}.",
        "exploratory" if keys and keys[0] not in MEMORY else "primary",
    )


def _forcing_sentence(task, arms, keys):
    if not keys:
        return (
            "This study cannot tell, since no controller here has both a hidden state and a "
            "memory; python -m experiments.table_correlations --arms=pg,memory compares one with "
            "policy gradient alone."
        )
    arm, reference = arms[keys[0]], arms.get(PG, arms[UNTRAINED])
    changed = summary.difference(task, arm, reference, summary.rows(task).total)
    dependence = _paired(_dependence(arm), _dependence(reference))
    states = {-1: "More encoding", 1: "Less encoding", 0: "No measurable increase in encoding"}
    decisions = {
        1: "more conditioning",
        -1: "less conditioning",
        0: "no measurable increase in conditioning",
    }
    way = 0 if abs(dependence.estimate) < _LEAST_DEPENDENCE else _way(dependence)
    encodes = states.get(direction(changed), "Encoding that may differ")
    conditions = decisions.get(way, "conditioning that may differ")
    compared = f"{arm.title} less {reference.title}"
    return (
        f"{encodes}, {conditions}: {compared}, the correlation of states with total overlap "
        f"is {shown(changed)}, the dependence of decisions on each other {shown(dependence)} nats; "
        f"{_told(len(arm.samples))}."
    )


def _forcing_figure(task, arms):
    if not arms:
        return answers_figures.nothing(_NO_STATE)
    names = [arm.title for arm in arms.values()]
    overlap = np.array(
        [summary.estimate(task, arm, summary.rows(task).total) for arm in arms.values()]
    )
    dependence = np.array([st.mean_interval(_dependence(arm)) for arm in arms.values()])
    panels = [
        Dots(names, {"": overlap}, "Spearman's r with total overlap"),
        Dots(names, {"": dependence}, "total correlation of decisions (nats)", _LEAST_NATS),
    ]
    colors = {arms[key].title: color for key, color in _colors(arms).items()}
    return answers_figures.dots(panels, colors)


def _similarity(task: Task, arms: Mapping[str, MeasuredArm]) -> Answer:
    of_task = summary.rows(task)
    rows = (of_task.shared, *of_task.common, of_task.edits)
    return Answer(
        "Q4. How far do distances between hidden states reflect the similarity of architectures?",
        _following_sentence(task, arms, rows),
        _published(of_task.shared, " with its common activations"),
        _correlations_figure(task, arms, rows),
        "If states follow the architectures, similarities lie to the left of 0, edit distances to "
        f"the right; lines: {_basis(arms)}.",
        "summary",
    )


def _performance(task: Task, arms: Mapping[str, MeasuredArm]) -> Answer:
    of_task = summary.rows(task)
    rows = (of_task.protocol, of_task.performance)
    further, key = "", summary.lead(arms)
    if key is not None:
        tests = arms[key].performance_tests(task, of_task.performance.which, "loss")
        fixed = st.mean_interval([partial.r for _, partial in tests])
        further = f", {shown(fixed)} where its overlap is held fixed"
    return Answer(
        "Q5. And differences in validation performance?",
        _following_sentence(task, arms, rows, further),
        _published(of_task.protocol),
        _correlations_figure(task, arms, rows),
        f"States that tell performance lie to the right of 0; lines: {_basis(arms)}.",
        "performance_uniform",
    )


def _following_sentence(task, arms, rows: Sequence[Measure], further: str = "") -> str:
    """Which of `rows` the states of the leading arm follow, with the numbers.

    `further` is added to the last row.
    """
    key = summary.lead(arms)
    if key is None:
        return _NO_STATE
    groups: dict[int | None, list[str]] = {}
    for row in rows:
        found = summary.estimate(task, arms[key], row)
        paper = f", the paper's {row.paper:+.3f}" if key in MEMORY and row.paper is not None else ""
        side, last = direction(found), further if row == rows[-1] else ""
        text = f"{_named(row)} ({shown(found)}{paper}{last})"
        groups.setdefault(None if side is None else side * row.sign, []).append(text)
    parts = [f"{_FOLLOWING[side]} {_listed(groups[side])}" for side in _FOLLOWING if side in groups]
    told = _told(len(arms[key].samples))
    return f"With {arms[key].title} the distance of states {', and '.join(parts)}; {told}."


def _published(row: Measure, of: str = "") -> str:
    if row.paper is None:
        return "The paper did not search this space."
    number = f"Spearman's r {row.paper:+.3f}{of} with the memory"
    return f"The paper: {number}; nothing significant without."


def _named(row: Measure) -> str:
    if row.name == "performance difference":
        return f"differences in performance, {SETS[row.which]}"
    return f"the {row.name}" if row.which == "own" else row.name


def _correlations_figure(task, arms, rows: Sequence[Measure]) -> Figure:
    if not (drawn := _drawn(arms)):
        return answers_figures.nothing(_NO_STATE)
    series = {}
    for arm in (arms[key] for key in drawn):
        series[arm.title] = np.array([summary.estimate(task, arm, row) for row in rows])
    paper = [np.nan if row.paper is None else row.paper for row in rows]
    panel = Dots([f"{row.name}, {row.which}" for row in rows], series, "Spearman's r", paper=paper)
    return answers_figures.dots([panel], {arms[key].title: color for key, color in drawn.items()})


def _drawn(arms: Mapping[str, MeasuredArm]) -> dict[str, str]:
    """Key -> colour of the arms that are drawn in one figure."""
    return dict(list(_colors(arms).items())[:_DRAWN])


def _colors(arms: Mapping[str, MeasuredArm]) -> dict[str, str]:
    """Key of an arm with a state -> its colour, the same in every figure; the best known first."""
    with_state = [key for key, arm in arms.items() if arm.has_state]
    first = [key for key in (UNTRAINED, PG, *MEMORY) if key in with_state]
    colors = itertools.cycle(PALETTE[:7])
    keys = dict.fromkeys((*first, *with_state))
    return {key: QUIET if key == UNTRAINED else next(colors) for key in keys}


def _dependence(arm: MeasuredArm) -> list[float]:
    """[S] total correlation of the arm's own decisions, nats."""
    return [found.total for found in arm.own_conditioning]


def _paired(a: Sequence[float], b: Sequence[float]) -> Interval:
    paired = st.paired_difference(a, b)
    return Interval(paired.mean, paired.low, paired.high)


def _way(found: Interval) -> int | None:
    """Which way an interval over seeds points; with one seed, which is only a hint, its sign."""
    if np.isnan(found.low):
        return None if np.isnan(found.estimate) else int(np.sign(found.estimate))
    return direction(found)


def _told(seeds: int) -> str:
    return ONE_SEED if seeds == 1 else f"{seeds} seeds"


def _basis(arms: Mapping[str, MeasuredArm]) -> str:
    """What the intervals are over."""
    several = len(arms[UNTRAINED].samples) > 1
    return "95 % over seeds" if several else "95 % over architectures, not seeds"


def _reached(task: Task, arm: MeasuredArm, which: str) -> np.ndarray:
    """[S n] numbers that the cells of a set reach; infinite where there is none."""
    with np.errstate(over="ignore"):
        losses = np.float64([seed[which].loss for seed in arm.samples])
        return task.metric.shown(losses).ravel()


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
