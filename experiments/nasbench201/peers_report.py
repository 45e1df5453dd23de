"""What is said of the comparison with peers: tables, a sentence and figures; intervals are over
seeds, 95 %.
"""

import textwrap
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.nasbench201 import drawn, figures, judging, peers
from experiments.nasbench201.drawn import Drawn
from experiments.nasbench201.judging import Judge
from nas.evaluation import statistics
from nas.evaluation.correlations import spearman
from nas.report.figures import bars_with_intervals
from nas.report.tables import Column, Empty, Row, Table

QUESTION = "Is a controller level with local search?"
LEVEL = 300  # queries over which that is asked
_SHOWN = 6  # curves of a figure
# name of an arm, queries -> what `peers.Runner.run` gave
Found = Mapping[tuple[str, int], Mapping[str, np.ndarray]]


class Answer(NamedTuple):
    """All that is said of one data set."""

    tables: dict[str, Table]  # file name -> table
    sentence: str
    figures: list[Drawn]


def answer(data_set: str, judge: Judge, found: Found, command: str) -> Answer:
    """Tables, sentence and figures of a data set."""
    regret = {key: judge.regret(of["queries"]) for key, of in found.items()}
    names = list(dict.fromkeys(name for name, _ in found))
    others = [name for name in names if name != peers.LOCAL_SEARCH]
    compared = [(name, peers.LOCAL_SEARCH) for name in others]
    compared += [pair for pair in peers.COMPARED if set(pair) <= set(names)]
    differences = {
        (name, reference, budget): statistics.paired_difference(
            *(regret[of, budget].mean(axis=1) for of in (name, reference))
        )
        for name, reference in compared
        for budget in peers.ARMS[name].budgets
    }
    adjusted = statistics.holm({key: paired.p for key, paired in differences.items()})
    tables = {
        "regret": _regret_table(data_set, names, regret, found, command),
        "peers": _comparison_table(data_set, differences, adjusted, command),
        "settings": _settings_table(names, command),
    }
    encoding = {
        name: of
        for (name, budget), of in found.items()
        if budget == max(peers.BUDGETS) and peers.RIDGE in of
    }
    shown = [
        _difference_figure(data_set, others, differences),
        _curve_figure(data_set, others, regret),
    ]
    if encoding:
        tables["encoding"] = _encoding_table(data_set, encoding, regret, command)
        shown.append(_encoding_figure(data_set, encoding, regret))
    return Answer(
        {f"{data_set}_{name}": table for name, table in tables.items()},
        _sentence(data_set, others, differences, regret),
        shown,
    )


def tuning_table(tried: Mapping[str, np.ndarray], command: str) -> Table:
    """Every trial of every arm [trials, S, Q], regret averaged over the first 100, 300 and 1,000
    queries; the chosen ones are marked.
    """
    rows = []
    for name, regret in tried.items():
        chosen = peers.choose(regret)
        for i, trial in enumerate(peers.ARMS[name].trials):
            means = [
                float(regret[i, :, :budget].mean()) if budget in chosen else Empty("-")
                for budget in peers.BUDGETS
            ]
            marks = ", ".join(str(b) for b in chosen if chosen[b] == i)
            rows.append(Row([peers.ARMS[name].title, _setting(trial), *means, marks or Empty("-")]))
    columns = [Column("strategy"), Column("setting"), *_budget_columns(), Column("chosen for")]
    seeds = len(peers.TUNING_SEEDS)
    note = f"Mean over {seeds} seeds and the first so many queries on {peers.TUNING_SET}, points."
    return Table("Settings tried", columns, rows, [note], command)


def _budget_columns():
    return [Column(f"1 to {budget}", 3) for budget in peers.BUDGETS]


def _regret_table(data_set, names, regret, found, command) -> Table:
    most, rows = max(peers.BUDGETS), []
    for name in names:
        means = [
            _interval(regret[name, budget].mean(axis=1)) if (name, budget) in regret else Empty("-")
            for budget in peers.BUDGETS
        ]
        last = [Empty("-"), Empty("-")]
        if (name, most) in regret:
            different = float(judging.distinct(found[name, most]["queries"]).mean())
            last = [_interval(regret[name, most][:, -1]), different]
        rows.append(Row([peers.ARMS[name].title, *means, *last]))
    columns = [
        Column("strategy"),
        *_budget_columns(),
        Column(f"at {most}", 3),
        Column(f"different of {most}", 0),
    ]
    tuned = " Settings were chosen on this data set." if data_set == peers.TUNING_SET else ""
    notes = [
        f"Regret of the class of the best architecture so far on test, averaged over the first so "
        f"many queries, points; mean over {len(regret[names[0], most])} seeds [95 % interval]; "
        f"for each number of queries the settings that were best for it on {peers.TUNING_SET}."
        f"{tuned}"
    ]
    return Table(f"{data_set}: regret", columns, rows, notes, command)


def _comparison_table(data_set, differences, adjusted, command) -> Table:
    rows = [
        Row(
            [
                peers.ARMS[name].title,
                peers.ARMS[reference].title,
                str(budget),
                paired.mean,
                f"[{paired.low:+.3f}, {paired.high:+.3f}]",
                _p(adjusted[name, reference, budget]),
            ]
        )
        for (name, reference, budget), paired in differences.items()
    ]
    columns = [
        Column("strategy"),
        Column("less"),
        Column("queries"),
        Column("mean regret", 3, True),
        Column("95 % interval"),
        Column("p, Holm"),
    ]
    note = f"Paired t tests over seeds, one family of {len(rows)}."
    return Table(f"{data_set}: comparisons", columns, rows, [note], command)


def _settings_table(names, command) -> Table:
    rows = [
        Row(
            [
                peers.ARMS[name].title,
                *(
                    _setting(peers.CHOSEN[name][b]) if b in peers.CHOSEN[name] else Empty("-")
                    for b in peers.BUDGETS
                ),
            ]
        )
        for name in names
    ]
    columns = [Column("strategy"), *(Column(f"for {b} queries") for b in peers.BUDGETS)]
    return Table("Settings", columns, rows, [], command)


def _encoding_table(data_set, encoding, regret, command) -> Table:
    most = max(peers.BUDGETS)
    rows = [
        Row(
            [
                peers.ARMS[name].title,
                _interval(of[peers.RIDGE]),
                _interval(of[peers.OVERLAP]),
                _interval(regret[name, most].mean(axis=1)),
                spearman(of[peers.RIDGE], regret[name, most].mean(axis=1)),
            ]
        )
        for name, of in encoding.items()
    ]
    columns = [
        Column("strategy"),
        Column("ridge", 3, True),
        Column("common operations", 3, True),
        Column("mean regret", 3),
        Column("Spearman of ridge and regret", 2, True),
    ]
    notes = [
        f"States after {most} queries. Ridge: Spearman's correlation of the accuracy of held-out "
        "architectures and its prediction; common operations: that of distances of states and of "
        "operations in common; the last column is over seeds."
    ]
    return Table(f"{data_set}: what states encode", columns, rows, notes, command)


def _difference_figure(data_set, others, differences) -> Drawn:
    shown = [differences[name, peers.LOCAL_SEARCH, LEVEL] for name in others]
    figure = bars_with_intervals(
        [peers.ARMS[name].title for name in others],
        [paired.mean for paired in shown],
        [paired.low for paired in shown],
        [paired.high for paired in shown],
        label=f"mean regret over {LEVEL} queries less that of local search (points)",
    )
    return Drawn(f"{data_set}_peers", figure, "On the same seed; mean and 95 % interval.")


def _curve_figure(data_set, others, regret) -> Drawn:
    x = np.unique(np.round(np.geomspace(min(10, LEVEL), LEVEL, 60)).astype(int))
    base = regret[peers.LOCAL_SEARCH, LEVEL]
    ordered = sorted(others, key=lambda name: regret[name, LEVEL].mean())
    curves = {
        _wrapped(name): drawn.band(x, (regret[name, LEVEL] - base)[:, x - 1])
        for name in ordered[:_SHOWN]
    }
    figure = figures.bands(
        curves, x_label="queries", y_label="regret less local search's (points)", log=True
    )
    caption = f"At most the {_SHOWN} best; settings for {LEVEL} queries; mean and 95 % interval."
    return Drawn(f"{data_set}_peers_queries", figure, caption)


def _encoding_figure(data_set, encoding, regret) -> Drawn:
    groups = {
        _wrapped(name): (of[peers.RIDGE], regret[name, max(peers.BUDGETS)].mean(axis=1))
        for name, of in encoding.items()
    }
    figure = figures.points(
        groups,
        x_label="how well the state predicts accuracy (Spearman)",
        y_label="mean regret (points)",
    )
    return Drawn(f"{data_set}_encoding", figure, "A point a seed; crosses: means.")


def _sentence(data_set, others, differences, regret) -> str:
    controllers = [name for name in others if name in peers.CONTROLLERS]
    if not controllers:
        return f"No controller trained by both losses was run on {data_set}."
    best = min(controllers, key=lambda name: differences[name, peers.LOCAL_SEARCH, LEVEL].mean)
    paired = differences[best, peers.LOCAL_SEARCH, LEVEL]
    verdict = "behind" if paired.low > 0 else "ahead" if paired.high < 0 else "level"
    gap = regret[best, LEVEL] - regret[peers.LOCAL_SEARCH, LEVEL]
    low = np.array([statistics.mean_interval(column).low for column in gap.T])
    behind = 1 + np.flatnonzero(low > 0)
    where = (
        f"; behind at {len(behind)} of {LEVEL} queries, from {behind[0]} to {behind[-1]}"
        if len(behind)
        else "; behind at no number of queries"
    )
    return (
        f"On {data_set} the controller with the least regret over {LEVEL} queries is "
        f"{peers.ARMS[best].title}, {paired.mean:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}] "
        f"points from local search: {verdict}{where}."
    )


def _wrapped(name) -> str:
    return "\n".join(textwrap.wrap(peers.ARMS[name].title, 26))


def _setting(setting) -> str:
    return (
        ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in setting.items()) or "-"
    )


def _interval(values) -> str:
    found = statistics.mean_interval(values)
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _p(value) -> str:
    return "<.0001" if value < 1e-4 else f"{value:.4f}"
