"""What is said of the comparison with peers: tables, a sentence and figures; intervals are over
seeds, 95 %.
"""

import textwrap
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.tabular import drawn, figures, judging, peers
from experiments.tabular.drawn import Drawn
from experiments.tabular.judging import Judge
from nas.evaluation import statistics
from nas.evaluation.correlations import spearman
from nas.report.figures import bars_with_intervals
from nas.report.tables import Column, Empty, Row, Table

QUESTION = "Is a controller level with local search?"
LEVEL = 300  # queries over which that is asked, if there are so many
_SHOWN = 6  # curves of a figure
_TUNED_ON = f"{peers.TUNING_SET} of NAS-Bench-201"
# name of an arm, queries -> what `peers.Runner.run` gave
Found = Mapping[tuple[str, int], Mapping[str, np.ndarray]]


class Answer(NamedTuple):
    """All that is said of one data set."""

    tables: dict[str, Table]  # file name -> table
    sentence: str
    figures: list[Drawn]


def answer(data_set: str, judge: Judge, found: Found, command: str) -> Answer:
    """Tables, sentence and figures of a data set."""
    data = _Data(data_set, judge, found)
    tables = {
        "regret": _regret_table(data, command),
        "peers": _comparison_table(data, command),
        "settings": _settings_table(data, command),
    }
    shown = [_difference_figure(data), _curve_figure(data)]
    if data.encoding:
        tables["encoding"] = _encoding_table(data, command)
        shown.append(_encoding_figure(data))
    return Answer(
        {f"{data_set}_{name}": table for name, table in tables.items()}, _sentence(data), shown
    )


class _Data:
    """What is known of one data set; comparisons are one family, adjusted together."""

    def __init__(self, name: str, judge: Judge, found: Found):
        self.name, self.unit, self.found = name, judge.unit, found
        self.regret = {key: judge.regret(of["queries"]) for key, of in found.items()}
        self.names = list(dict.fromkeys(arm for arm, _ in found))
        self.others = [arm for arm in self.names if arm != peers.LOCAL_SEARCH]
        self.budgets = sorted({budget for _, budget in found})
        self.most = self.budgets[-1]
        self.level = min(LEVEL, self.most)
        compared = [(arm, peers.LOCAL_SEARCH) for arm in self.others]
        compared += [pair for pair in peers.COMPARED if set(pair) <= set(self.names)]
        self.differences = {
            (arm, reference, budget): statistics.paired_difference(
                *(self.regret[of, budget].mean(axis=1) for of in (arm, reference))
            )
            for arm, reference in compared
            for budget in self.budgets
            if (arm, budget) in found
        }
        self.adjusted = statistics.holm({key: paired.p for key, paired in self.differences.items()})
        self.encoding = {
            arm: of
            for (arm, budget), of in found.items()
            if budget == self.most and peers.RIDGE in of
        }

    def at_level(self, arm: str) -> statistics.Paired:
        """Regret over `level` queries less that of local search."""
        return self.differences[arm, peers.LOCAL_SEARCH, self.level]


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
    columns = [
        Column("strategy"),
        Column("setting"),
        *_columns(peers.BUDGETS, 3),
        Column("chosen for"),
    ]
    seeds = len(peers.TUNING_SEEDS)
    note = f"Mean over {seeds} seeds and the first so many queries on {peers.TUNING_SET}, points."
    return Table("Settings tried", columns, rows, [note], command)


def _columns(budgets, digits):
    return [Column(f"1 to {budget}", digits) for budget in budgets]


def _regret_table(data, command) -> Table:
    rows, digits = [], data.unit.digits
    for name in data.names:
        means = [
            _interval(data.regret[name, budget].mean(axis=1), digits)
            if (name, budget) in data.found
            else Empty("-")
            for budget in data.budgets
        ]
        last = [Empty("-"), Empty("-")]
        if (name, data.most) in data.found:
            different = judging.distinct(data.found[name, data.most]["queries"])
            ends = data.regret[name, data.most][:, -1]
            last = [_interval(ends, digits), float(different.mean())]
        rows.append(Row([peers.ARMS[name].title, *means, *last]))
    columns = [
        Column("strategy"),
        *_columns(data.budgets, digits),
        Column(f"at {data.most}", digits),
        Column(f"different of {data.most}", 0),
    ]
    seeds = len(data.regret[peers.LOCAL_SEARCH, data.most])
    tuned = " Settings were chosen on this data set." if data.name == peers.TUNING_SET else ""
    notes = [
        f"Regret of the class of the best architecture so far on test, averaged over the first so "
        f"many queries, {data.unit.name}; mean over {seeds} seeds [95 % interval]; for each number "
        f"of queries the settings that were best for it on {_TUNED_ON}.{tuned}"
    ]
    return Table(f"{data.name}: regret", columns, rows, notes, command)


def _comparison_table(data, command) -> Table:
    digits = data.unit.digits
    rows = [
        Row(
            [
                peers.ARMS[name].title,
                peers.ARMS[reference].title,
                str(budget),
                paired.mean,
                f"[{paired.low:+.{digits}f}, {paired.high:+.{digits}f}]",
                _p(data.adjusted[name, reference, budget]),
            ]
        )
        for (name, reference, budget), paired in data.differences.items()
    ]
    columns = [
        Column("strategy"),
        Column("less"),
        Column("queries"),
        Column("mean regret", digits, True),
        Column("95 % interval"),
        Column("p, Holm"),
    ]
    note = f"Paired t tests over seeds, one family of {len(rows)}; regret in {data.unit.name}."
    return Table(f"{data.name}: comparisons", columns, rows, [note], command)


def _settings_table(data, command) -> Table:
    chosen = {name: peers.CHOSEN[name] for name in data.names}
    rows = [
        Row(
            [
                peers.ARMS[name].title,
                *(_setting(of[b]) if b in of else Empty("-") for b in data.budgets),
            ]
        )
        for name, of in chosen.items()
    ]
    columns = [Column("strategy"), *(Column(f"for {b} queries") for b in data.budgets)]
    return Table("Settings", columns, rows, [f"Chosen on {_TUNED_ON}."], command)


def _encoding_table(data, command) -> Table:
    rows = []
    for name, of in data.encoding.items():
        mean = data.regret[name, data.most].mean(axis=1)
        measured = (_interval(of[measure], 3) for measure in (peers.RIDGE, peers.OVERLAP))
        regret = _interval(mean, data.unit.digits)
        rows.append(
            Row([peers.ARMS[name].title, *measured, regret, spearman(of[peers.RIDGE], mean)])
        )
    columns = [
        Column("strategy"),
        Column("ridge", 3, True),
        Column("common decisions", 3, True),
        Column("mean regret", data.unit.digits),
        Column("Spearman of ridge and regret", 2, True),
    ]
    notes = [
        f"States after {data.most} queries. Ridge: Spearman's correlation of the test score of "
        "held-out architectures and its prediction; common decisions: that of distances of states "
        "and of decisions in common; the last column is over seeds."
    ]
    return Table(f"{data.name}: what states encode", columns, rows, notes, command)


def _difference_figure(data) -> Drawn:
    shown = [data.at_level(name) for name in data.others]
    figure = bars_with_intervals(
        [peers.ARMS[name].title for name in data.others],
        [paired.mean for paired in shown],
        [paired.low for paired in shown],
        [paired.high for paired in shown],
        label=f"mean regret over {data.level} queries less that of local search ({data.unit.name})",
    )
    return Drawn(f"{data.name}_peers", figure, "On the same seed; mean and 95 % interval.")


def _curve_figure(data) -> Drawn:
    level = data.level
    x = np.unique(np.round(np.geomspace(min(10, level), level, 60)).astype(int))
    base = data.regret[peers.LOCAL_SEARCH, level]
    ordered = sorted(data.others, key=lambda name: data.regret[name, level].mean())
    curves = {
        _wrapped(name): drawn.band(x, (data.regret[name, level] - base)[:, x - 1])
        for name in ordered[:_SHOWN]
    }
    figure = figures.bands(
        curves,
        x_label="queries",
        y_label=f"regret less local search's ({data.unit.name})",
        log=True,
    )
    caption = f"At most the {_SHOWN} best; settings for {level} queries; mean and 95 % interval."
    return Drawn(f"{data.name}_peers_queries", figure, caption)


def _encoding_figure(data) -> Drawn:
    groups = {
        _wrapped(name): (of[peers.RIDGE], data.regret[name, data.most].mean(axis=1))
        for name, of in data.encoding.items()
    }
    figure = figures.points(
        groups,
        x_label="how well the state predicts the test score (Spearman)",
        y_label=f"mean regret ({data.unit.name})",
    )
    return Drawn(f"{data.name}_encoding", figure, "A point a seed; crosses: means.")


def _sentence(data) -> str:
    controllers = [name for name in data.others if name in peers.CONTROLLERS]
    if not controllers:
        return f"No controller trained by both losses was run on {data.name}."
    best = min(controllers, key=lambda name: data.at_level(name).mean)
    paired, level, digits = data.at_level(best), data.level, data.unit.digits
    verdict = "behind" if paired.low > 0 else "ahead" if paired.high < 0 else "level"
    gap = data.regret[best, level] - data.regret[peers.LOCAL_SEARCH, level]
    low = np.array([statistics.mean_interval(column).low for column in gap.T])
    behind = 1 + np.flatnonzero(low > 0)
    where = (
        f"; behind at {len(behind)} of {level} queries, from {behind[0]} to {behind[-1]}"
        if len(behind)
        else "; behind at no number of queries"
    )
    interval = f"[{paired.low:+.{digits}f}, {paired.high:+.{digits}f}]"
    return (
        f"On {data.name} the controller with the least regret over {level} queries is "
        f"{peers.ARMS[best].title}, {paired.mean:+.{digits}f} {interval} {data.unit.name} from "
        f"local search: {verdict}{where}."
    )


def _wrapped(name) -> str:
    return "\n".join(textwrap.wrap(peers.ARMS[name].title, 26))


def _setting(setting) -> str:
    return (
        ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in setting.items()) or "-"
    )


def _interval(values, digits) -> str:
    return statistics.mean_interval(values).text(digits)


def _p(value) -> str:
    return "<.0001" if value < 1e-4 else f"{value:.4f}"
