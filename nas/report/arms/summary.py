"""The paper's table beside ours and what its numbers say: arrays in, a table and sentences out.

Every number comes with its 95 % interval. With several seeds that is Student's t over seeds. With
one seed it comes from resampling the architectures, or from blocks of them, and speaks of others
that could have been compared, not of other seeds. "Follows", "more" and "less" mean that the
interval, of a correlation or of a difference of two, leaves out zero. No interval is adjusted for
the number of comparisons: the tables of `nas.report.arms.tables` are for that.
"""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.samples import Sample
from nas.evaluation.statistics import Interval
from nas.report.arms.arm import NO_STATE, MeasuredArm, all_measures, interval, once, performance
from nas.report.arms.searches import Searched
from nas.report.arms.tables import REFERENCES, published_protocol
from nas.report.tables import Column, Empty, Row, Table
from nas.spaces.space import MAX_NODES
from nas.tasks import Task

WIDTH = 100  # columns of a terminal
UNTRAINED, PG = REFERENCES
MEMORY = ("memory", "memory_next")  # the paper's regulariser in its two readings
ONE_SEED = "one seed cannot tell"
_STATISTIC = ("Spearman", "L2")  # keys of `correlations.paper_protocol`
_INTERVAL = re.compile(r"\[[^]]*\]")
_RESAMPLES = 400  # resamples of the architectures, if there is one seed
_NAMED = 3  # most arms whose best cells are listed


class Measure(NamedTuple):
    """What the distance between two states is correlated with: a row of the table."""

    name: str
    which: str  # one of `samples.SETS`; "own": by the paper's protocol
    key: str  # its name in `MeasuredArm.correlations`; with "own": in `correlations.protocol`
    sign: int  # sign of r if states follow it: -1 for a similarity, 1 for a difference
    paper: float | None = None  # what the paper reports with its memory (Adam and Lorraine 2019)


class TaskMeasures(NamedTuple):
    """The measures of a task."""

    shared: Measure  # the paper's similarity, by its protocol
    protocol: Measure  # difference in performance, by its protocol
    common: tuple[Measure, ...]  # decisions in common, one per kind
    edits: Measure
    performance: Measure
    total: Measure  # all of `common` together; not a row of the table

    @property
    def table(self) -> tuple[Measure, ...]:
        return (self.shared, self.protocol, *self.common, self.edits, self.performance)


def rows(task: Task) -> TaskMeasures:
    """The measures that the distance of states is correlated with."""
    space, (edges, _, loss) = task.space, correlations.protocol(task)
    published = published_protocol(task)
    kinds = [kind for kind in dict.fromkeys(space.kinds) if len(space.positions(kind))]
    return TaskMeasures(
        Measure(edges, "own", edges, -1, published.get((edges, *_STATISTIC))),
        Measure("performance difference", "own", loss, 1, published.get((loss, *_STATISTIC))),
        tuple(
            Measure(correlations.common(kind), "uniform", correlations.common(kind), -1)
            for kind in kinds
        ),
        Measure("edit distance", "uniform", correlations.EDIT_DISTANCE, 1),
        Measure("performance difference", "uniform", performance(task), 1),
        Measure("total overlap", "uniform", correlations.TOTAL, -1),
    )


def lead(arms: Mapping[str, MeasuredArm]) -> str | None:
    """Key of the arm that sentences are about: one with the memory, else another one, else policy
    gradient alone, else the untrained one.

    None: no arm has a state.
    """
    with_state = [key for key, arm in arms.items() if arm.has_state]
    others = [key for key in with_state if key not in (*MEMORY, *REFERENCES)]
    wanted = (*MEMORY, *others, PG, UNTRAINED)
    return next((key for key in wanted if key in with_state), None)


def references(arms: Mapping[str, MeasuredArm], key: str) -> list[str]:
    """Keys of the REFERENCES that arm `key` can be compared with."""
    return [name for name in REFERENCES if name != key and name in arms and arms[name].has_state]


def values(task: Task, arm: MeasuredArm, measure: Measure) -> list[float]:
    """[S] Spearman's correlation of each seed, as in `study_tables`."""
    if measure.which == "own":
        return [seed[measure.key, *_STATISTIC] for seed in arm.protocol(task)]
    return arm.correlations(task, measure.which)[measure.key]


def estimate(task: Task, arm: MeasuredArm, measure: Measure) -> Interval:
    """The correlation with its interval: over seeds or, with one seed, over architectures."""
    found = values(task, arm, measure)
    if len(found) > 1:
        return st.mean_interval(found)
    return _resampled(arm, task)[measure]


def difference(task: Task, arm: MeasuredArm, reference: MeasuredArm, measure: Measure) -> Interval:
    """The correlation of `arm` less that of `reference`, paired by seed.

    With one seed the interval is made of both intervals over architectures as if these were drawn
    independently (Zou 2007, "Toward using confidence intervals to compare correlations"), which is
    too wide where both arms are measured on the same ones.
    """
    if len(arm.samples) > 1:
        both = (values(task, one, measure) for one in (arm, reference))
        paired = st.paired_difference(*both)
        return Interval(paired.mean, paired.low, paired.high)
    a, b = (estimate(task, one, measure) for one in (arm, reference))
    mean = a.estimate - b.estimate
    below = math.hypot(a.estimate - a.low, b.high - b.estimate)
    above = math.hypot(a.high - a.estimate, b.estimate - b.low)
    return Interval(mean, mean - below, mean + above)


def direction(found: Interval) -> int | None:
    """Side of zero on which an interval lies, -1 or 1; 0: it contains zero; None: undefined."""
    if math.isnan(found.low) or math.isnan(found.high):
        return None
    return (found.low > 0) - (found.high < 0)


def shown(found: Interval, digits: int = 3, sign: str = "+") -> str:
    """A number with its interval, if it has one; `sign` as in a format specification."""
    if math.isnan(found.estimate):
        return "undefined"
    estimate, low, high = (f"{number:{sign}z.{digits}f}" for number in found)
    return estimate if math.isnan(found.low) else f"{estimate} [{low}, {high}]"


def summary_table(
    task: Task,
    arms: Mapping[str, MeasuredArm],
    command: str,
    *,
    width: int | None = None,
) -> Table:
    """The paper's table beside ours.

    Args:
      task: the task that was searched.
      arms: as for `study_tables`.
      command: the command that makes the table.
      width: characters in a line; arms for which there is no room are left out. None: all arms
        that have a state are in the table.
    """
    with_state = [key for key, arm in arms.items() if arm.has_state]
    first = [key for key in (*REFERENCES, *MEMORY) if key in with_state]
    keys = list(dict.fromkeys((*first, *with_state)))
    table = _table(task, arms, keys, command)
    while width and len(keys) > 1 and max(map(len, table.body().splitlines())) > width:
        keys.pop()
        table = _table(task, arms, keys, command)
    return table


def readings(task: Task, arms: Mapping[str, MeasuredArm]) -> list[str]:
    """A sentence for each row: what the number means beside REFERENCES, and what seeds show."""
    key = lead(arms)
    if key is None:
        return ["No controller here has a hidden state: there are no distances to read."]
    return [
        f"{row.name}, {row.which}: {_reading(task, arms, key, row)}." for row in rows(task).table
    ]


def best_cells(task: Task, searched: Sequence[Searched], yardsticks: Mapping[str, float]) -> str:
    """One sentence: what the best architectures reach beside models without a network.

    Args:
      searched: one per arm.
      yardsticks: name of a model -> what it reaches; names are cut off at a comma.
    """
    metric = task.metric
    reached = {arm.title: metric.shown(np.array(arm.best_loss)) for arm in searched}
    cells = [
        f"{title} {_number(of, metric.digits)}" for title, of in list(reached.items())[:_NAMED]
    ]
    if len(reached) > _NAMED:
        cells.append(f"{len(reached) - _NAMED} more in the report")
    parts = [", ".join(cells)]
    if yardsticks:
        short = {name.partition(",")[0]: value for name, value in yardsticks.items()}
        model, least = min(short.items(), key=lambda item: item[1])
        below = [title for title, found in reached.items() if np.mean(found) < least]
        verdict = f"{', '.join(below)} better" if below else "no cell is better"
        parts += [", ".join(f"{name} {value:.{metric.digits}f}" for name, value in short.items())]
        parts += [f"{verdict} than the {model}"]
    return f"Best cell's {metric.name}: {'; '.join(parts)}."


def printed(ran: str, table: Table, sentences: Sequence[str], best: str, path: object) -> str:
    """What a terminal shows of a study: lines of at most WIDTH characters, unless a path is longer.

    Args:
      ran: what was run.
      table: from `summary_table`, with a width.
      sentences: from `readings`.
      best: from `best_cells`.
      path: path of the report.
    """
    legend, *others = table.notes
    paragraphs = [_wrap(ran), "", table.title, table.body(), _wrap(legend)]
    if others:
        paragraphs.append(textwrap.shorten(" ".join(others), WIDTH, placeholder=" ..."))
    paragraphs += [""]
    paragraphs += [*(_wrap(sentence, "  ") for sentence in (*sentences, best)), f"report: {path}"]
    return "\n".join(paragraphs)


@once
def _resampled(arm: MeasuredArm, task: Task) -> dict[Measure, Interval]:
    """The correlations of the first seed, with intervals over architectures."""
    sample, found = arm.samples[0], {}
    uniform = all_measures(task, sample["uniform"])
    for row in (*rows(task).table, rows(task).total):
        one = sample[row.which]
        states = one.before if row.which == "own" else one.after
        column = _protocol(task, one, row) if row.which == "own" else uniform[row.key]
        distance = correlations.distances(states, block=one.block)
        if math.isnan(correlations.spearman(distance, column)):
            found[row] = Interval(math.nan, math.nan, math.nan)
        elif one.blocks > 1:
            found[row] = st.blocked_correlation(distance, column, blocks=one.blocks)
        else:
            found[row] = st.bootstrap_correlation(distance, column, resamples=_RESAMPLES)
    return found


def _protocol(task: Task, sample: Sample, row: Measure) -> np.ndarray:
    """[P] values of a measure as in `correlations.paper_protocol`."""
    if row == rows(task).shared:
        return overlap.common_labelled_edges(task.space, sample.decisions, block=sample.block)
    return overlap.feature_difference(task.metric.shown(sample.loss), block=sample.block)


@once
def _one_hot(arm: MeasuredArm, task: Task) -> dict[Measure, float]:
    """The correlations, mean over seeds, if the decisions of `arm` themselves were its states."""
    table = rows(task).table
    found = {row: [] for row in table}
    for sample in arm.samples:
        uniform = all_measures(task, sample["uniform"])
        for row in table:
            one = sample[row.which]
            column = _protocol(task, one, row) if row.which == "own" else uniform[row.key]
            encoded = overlap.one_hot(task.space, one.decisions)
            distance = correlations.distances(encoded, block=one.block)
            found[row].append(correlations.spearman(distance, column))
    return {row: float(np.mean(seeds)) for row, seeds in found.items()}


def _table(task, arms, keys, command):
    lines = []
    has_paper = any(row.paper is not None for row in rows(task).table)
    principal = lead(arms)
    for row in rows(task).table:
        numbers = [_cell(values(task, arms[key], row)) for key in keys]
        yardstick = NO_STATE if principal is None else _one_hot(arms[principal], task)[row]
        published = [Empty("-") if row.paper is None else row.paper] if has_paper else []
        lines.append(Row([row.name, row.which, *numbers, yardstick, *published]))
    columns = [
        *(Column(name) for name in ("measure", "set")),
        *(Column(arms[key].title, 3, True) for key in keys),
        *(Column(name, 3, True) for name in ("one-hot", "paper")[: 1 + has_paper]),
    ]
    return Table(
        "Spearman's correlation of the distance between two hidden states with ...",
        columns,
        lines,
        _notes(arms, keys, principal),
        command,
    )


def _notes(arms, keys, principal):
    samples = arms[UNTRAINED].samples
    uniform, seeds = samples[0]["uniform"], len(samples)
    count = f"{len(uniform.decisions):,}"
    one, several = "[low, high]: 95 % over architectures, not seeds", "±: 95 % over"
    yardstick = f"one-hot: decisions of {arms[principal].title} as states; " if principal else ""
    notes = [
        f"own: {count} samples of each controller, read as in the paper; uniform: the same {count} "
        f"for all; {yardstick}{one if seeds == 1 else f'{several} {seeds} seeds'}."
    ]
    if uniform.blocks > 1:
        notes.append(f"Of each set: {uniform.compared()}.")
    others = [arm.title for key, arm in arms.items() if key not in keys and arm.has_state]
    stateless = [arm.title for key, arm in arms.items() if not arm.has_state]
    if others:
        notes.append(f"In the report: {'; '.join(others)}.")
    if stateless:
        notes.append(f"Without a hidden state: {'; '.join(stateless)}.")
    return notes


def _cell(found):
    return interval(found, 3, "+") if np.isfinite(found).all() else Empty("undefined")


def _reading(task, arms, key, row):
    arm, seeds = arms[key], len(arms[key].samples)
    found = estimate(task, arm, row)
    side = direction(found)
    number = shown(found) if seeds == 1 else f"{found.estimate:+z.3f}"  # ± is in the table
    if math.isnan(found.estimate):
        undefined = "its states are all alike or a loss is not finite"
        if task.space.largest_graph > MAX_NODES and row.key == correlations.EDIT_DISTANCE:
            undefined = f"graphs have more than {MAX_NODES} nodes"
        return f"undefined with {arm.title}, where {undefined}"
    if side is None:
        return f"{number} with {arm.title}; {ONE_SEED}"
    others = {name: difference(task, arm, arms[name], row) for name in references(arms, key)}
    clauses = [_meaning(side, row.sign) + f" with {arm.title}"]
    if key in MEMORY and row.paper is not None:
        number += f"; the paper's {'inside' if found.low <= row.paper <= found.high else 'outside'}"
    clauses[0] += f" ({number})"
    for wanted, words in _comparisons(side).items():
        if titles := [arms[name].title for name in others if direction(others[name]) == wanted]:
            clauses.append(f"{words} {' and '.join(titles)}")
    told = f"{seeds} seeds are {'enough' if side else 'too few'}"
    return f"{', '.join(clauses)}; {ONE_SEED if seeds == 1 else told}"


def _meaning(side, sign):
    if side == 0:
        return "no sign of it in the states"
    more = "share" if sign < 0 else "differ"
    return f"the more two {more}, the {'nearer' if side < 0 else 'farther apart'} their states"


def _comparisons(side):
    """Direction of a difference to a reference -> words for it, after those of `_meaning`."""
    if side == 0:
        return {-1: "lower than", 1: "higher than", 0: "not distinguishable from"}
    return {side: "more so than", -side: "less so than", 0: "not distinguishable from"}


def _number(found, digits):
    cell = interval(found, digits)
    if isinstance(cell, Empty):
        return cell.reason
    return cell if isinstance(cell, str) else f"{cell:.{digits}f}"


def _wrap(text, indent=""):
    whole = _INTERVAL.sub(lambda found: found[0].replace(" ", "\xa0"), text)  # kept on one line
    filled = textwrap.fill(
        whole,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\xa0", " ")
