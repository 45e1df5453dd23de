"""Tables, figures and sentences of the study on one data set; intervals are over seeds, 95 %."""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from experiments.tabular import drawn, figures, judging, settings
from experiments.tabular.drawn import Drawn
from experiments.tabular.study import (
    CONDITIONING,
    ENTROPY,
    NEAREST,
    ONE_HOT,
    OWN,
    RIDGE,
    UNIFORM,
    DataSet,
    Sweep,
)
from nas.evaluation import statistics
from nas.evaluation.statistics import Interval, Paired
from nas.report.tables import Column, Empty, Row, Table

_MEASURES = (judging.OVERLAP, judging.EDIT, judging.ACCURACY)


class Answers(NamedTuple):
    """All that is said of one data set."""

    sentences: dict[str, str]  # question -> answer
    tables: dict[str, Table]  # file name -> table
    figures: dict[str, list[Drawn]]  # question -> figures


LEARNS = "Does L_Sup cost or help the search?"
PREDICTS = "Does conditioning predict regret across arms and seeds?"
ENCODES = (
    "Does the embedding predict the accuracy of held-out architectures better than one-hot "
    "decisions do?"
)


class _Tests:
    """The paired comparisons and correlations of one data set: one family, adjusted together."""

    def __init__(self, data: DataSet):
        regret = {name: data.judge.regret(arm.queries) for name, arm in data.arms.items()}
        self.mean = {name: of.mean(axis=1) for name, of in regret.items()}
        self.final = {name: of[:, -1] for name, of in regret.items()}
        others = [name for name in settings.STRATEGIES if name != settings.PG]
        self.regret = {
            (name, what): statistics.paired_difference(values[name], values[settings.PG])
            for what, values in (("mean", self.mean), ("final", self.final))
            for name in others
        }
        self.conditioning = {  # a factorised policy conditions on nothing
            name: _spearman(data.arms[name].numbers[CONDITIONING], self.mean[name])
            for name in settings.CONTROLLERS
        }
        self.prediction = {
            (name, how): statistics.paired_difference(
                data.arms[name].numbers[how],
                np.full_like(data.arms[name].numbers[how], data.references[ONE_HOT][how]),
            )
            for name in settings.CONTROLLERS
            for how in (RIDGE, NEAREST)
        }
        p_values = {key: found.p for key, found in (self.regret | self.prediction).items()}
        self.adjusted = statistics.holm(
            p_values | {key: p for key, (_, p) in self.conditioning.items()}
        )


def answers(data: DataSet, command: str) -> Answers:
    """Tables, figures and sentences of a data set."""
    tests = _Tests(data)
    tables = {
        "regret": _regret_table(data, command),
        "top": _top_table(data, command),
        "comparisons": _comparison_table(data, tests, command),
        "conditioning": _conditioning_table(data, tests, command),
        "embeddings": _embedding_table(data, command),
    }
    regret = [drawn.regret_figure(data), drawn.top_figure(data)]
    conditioning = [drawn.entropy_figure(data), drawn.gibbs_figure(data)]
    return Answers(
        {
            LEARNS: _learns(data, tests),
            PREDICTS: _predicts(data, tests),
            ENCODES: _encodes(data, tests),
        },
        {f"{data.name}_{name}": table for name, table in tables.items()},
        {
            LEARNS: [*regret, drawn.difference_figure(data, tests)],
            PREDICTS: [*conditioning, drawn.conditioning_figure(data, tests)],
            ENCODES: [drawn.prediction_figure(data)],
        },
    )


def sweep_answers(found: Sweep, command: str) -> tuple[str, dict[str, Table], list[Drawn]]:
    """Sentence, tables and figures of the study on generated tables."""
    x = np.array(settings.STRENGTHS)
    columns = [
        Column("strategy"),
        *(Column(f"interaction {strength:g}", 2) for strength in settings.STRENGTHS),
    ]

    def table(title, values, notes):
        rows = [Row([settings.TITLES[name], *map(_interval, row)]) for name, row in values.items()]
        return Table(title, columns, rows, notes, command)

    seeds = len(next(iter(found.regret.values()))[0])
    tables = {
        "regret": table(
            "Regret at the end on generated tables, points",
            found.regret,
            [
                f"Mean over {seeds} seeds, each with tables of its own [95 % interval]; "
                "accuracies span 10 to 95 percent."
            ],
        ),
        "conditioning": table(
            "Total correlation of the final policy, nats",
            found.conditioning,
            ["Of all 15,625 architectures, exact."],
        ),
        "gibbs": table(
            "Total correlation of the Gibbs policy p ~ exp(accuracy / beta) of the same entropy, "
            "nats",
            found.warranted,
            ["What a policy of that entropy has reason to condition."],
        ),
    }
    shown = [
        Drawn(
            f"synthetic_{name}",
            figures.bands(
                {settings.TITLES[arm]: drawn.band(x, rows.T) for arm, rows in values.items()},
                x_label="interaction",
                y_label=label,
            ),
            caption,
        )
        for name, values, label, caption in (
            (
                "regret",
                found.regret,
                "regret at the end (points)",
                "Regret against the share of variance that pairs explain.",
            ),
            (
                "conditioning",
                found.conditioning,
                "total correlation (nats)",
                "Conditioning of the final policy.",
            ),
        )
    ]
    best = [
        min(found.regret, key=lambda name, i=i: found.regret[name][i].mean()) for i in range(len(x))
    ]
    sentence = "Lowest mean regret: " + ", ".join(
        f"{settings.TITLES[name]} ({found.regret[name][i].mean():.2f}) at interaction {x[i]:g}"
        for i, name in enumerate(best)
    )
    factorised, lstm = found.regret[settings.FACTORISED], found.regret[settings.PG]
    gaps = (
        f"{statistics.paired_difference(factorised[i], lstm[i]).mean:+.2f}" for i in (0, len(x) - 1)
    )
    return (
        f"{sentence}. Factorised less PG only: {' without interaction, '.join(gaps)} with nothing "
        "but.",
        tables,
        shown,
    )


def _regret_table(data, command) -> Table:
    shown = _shown(data)
    rows = []
    for name, arm in data.arms.items():
        regret = data.judge.regret(arm.queries)
        rows.append(
            Row(
                [
                    settings.TITLES[name],
                    _interval(regret.mean(axis=1)),
                    *(_interval(regret[:, q - 1]) for q in shown),
                    float(np.mean(judging.distinct(arm.queries))),
                ]
            )
        )
    columns = [
        Column("strategy"),
        Column("mean over all", 3),
        *(Column(f"{q} queries", 3) for q in shown),
        Column(f"different of {regret.shape[1]}", 0),
    ]
    notes = [
        f"Mean over {len(regret)} seeds [95 % interval]: points of test accuracy by which the "
        "class of the best architecture "
        "so far (on validation) is worse than the best class. A query is one evaluated "
        "architecture, again if it was before.",
    ]
    return Table(f"{data.name}: class-mean regret", columns, rows, notes, command)


def _top_table(data, command) -> Table:
    shown = _shown(data)
    rows = []
    for name, arm in data.arms.items():
        inside = data.judge.in_top(arm.queries)
        rows.append(
            Row(
                [
                    settings.TITLES[name],
                    *(drawn.proportion(inside[:, q - 1]).text(2) for q in shown),
                ]
            )
        )
    columns = [Column("strategy"), *(Column(f"{q} queries", 2) for q in shown)]
    notes = [
        "Share of seeds whose best architecture so far is of a class as good as the top 1 % "
        "[Wilson's 95 % interval]."
    ]
    return Table(f"{data.name}: probability of the top 1 %", columns, rows, notes, command)


def _comparison_table(data, tests, command) -> Table:
    rows = []
    for (name, what), found in tests.regret.items():
        title = {"mean": "mean regret", "final": "final regret"}[what]
        rows.append(
            _paired_row(
                f"{title}: {settings.TITLES[name]} less PG only", found, tests.adjusted[name, what]
            )
        )
    for (name, how), found in tests.prediction.items():
        rows.append(
            _paired_row(
                f"{how}: {settings.TITLES[name]} less one-hot", found, tests.adjusted[name, how]
            )
        )
    for name, (r, p) in tests.conditioning.items():
        title = f"Spearman of total correlation and mean regret: {settings.TITLES[name]}"
        rows.append(Row([title, r, Empty("-"), Empty("-"), _p(p), _p(tests.adjusted[name])]))
    columns = [
        Column("comparison"),
        Column("estimate", 3, True),
        Column("95 % interval"),
        Column("effect (d_z)", 2, True),
        Column("p"),
        Column("p, Holm"),
    ]
    notes = [
        f"One family of {len(rows)} tests: paired t tests over seeds, and Spearman's test over "
        "the seeds of an arm."
    ]
    return Table(f"{data.name}: comparisons", columns, rows, notes, command)


def _conditioning_table(data, tests, command) -> Table:
    curve = judging.gibbs_curve(data.space, data.judge.seen)
    rows = []
    for name in drawn.LEARNED:
        numbers = data.arms[name].numbers
        gibbs = judging.gibbs_total_correlation(curve, numbers[ENTROPY])
        own = numbers[ENTROPY], numbers[CONDITIONING], gibbs
        spearman = tests.conditioning[name][0] if name in tests.conditioning else Empty("-")
        rows.append(Row([settings.TITLES[name], *map(_interval, own), spearman]))
    columns = [
        Column("arm"),
        Column("entropy, nats", 2),
        Column("total correlation, nats", 3),
        Column("Gibbs policy of that entropy", 3),
        Column("Spearman with mean regret", 3, True),
    ]
    notes = [
        "Exact, of the final policy over all 15,625 architectures; mean over seeds [95 % "
        "interval].",
        "Gibbs policy: p ~ exp(validation accuracy / beta), which has the highest expected "
        "accuracy of all of its entropy.",
    ]
    return Table(f"{data.name}: conditioning", columns, rows, notes, command)


def _embedding_table(data, command) -> Table:
    keys = [f"{which}/{name}" for which in (UNIFORM, OWN) for name in _MEASURES] + [RIDGE, NEAREST]
    columns = [Column("embedding"), *(Column(key.replace("/", ": "), 3, True) for key in keys)]
    rows = [
        Row([title, *(_interval(numbers[key]) for key in keys)])
        for title, numbers in drawn.embeddings(data).items()
    ]
    for title, numbers in data.references.items():
        rows.append(Row([title, *(numbers.get(key, Empty("-")) for key in keys)], reference=True))
    notes = [
        "Spearman's correlation of the L2 distance of embeddings (state after the last decision) "
        "with each measure, all pairs "
        f"of {settings.OWN_SAMPLES} architectures; edit distances: exact, of pruned graphs; "
        "accuracies: class means on test.",
        "Ridge and nearest neighbours: Spearman's correlation of predicted and true accuracy of "
        f"{settings.UNIFORM_SAMPLE} "
        f"architectures, no two of one class, {judging.FOLDS}-fold cross-validated, settings "
        "chosen inside the other folds.",
        "Mean over seeds [95 % interval].",
    ]
    return Table(f"{data.name}: embeddings", columns, rows, notes, command)


def _learns(data, tests) -> str:
    said = []
    for name in settings.WITH_MEMORY:
        found, p = tests.regret[name, "mean"], tests.adjusted[name, "mean"]
        verdict = (
            "no difference seen" if not p < 0.05 else "it costs" if found.mean > 0 else "it helps"
        )
        said.append(f"{settings.TITLES[name]} {_signed(found)} (p = {_p(p)}: {verdict})")
    regret = _interval(tests.mean[settings.PG])
    return (
        f"Regret averaged over queries, less that of PG only ({regret} points), on {data.name}: "
        f"{'; '.join(said)}."
    )


def _predicts(data, tests) -> str:
    within = [
        f"{settings.TITLES[n]} {r:+.2f} (p = {_p(tests.adjusted[n])})"
        for n, (r, _) in tests.conditioning.items()
    ]
    means = [
        (data.arms[n].numbers[CONDITIONING].mean(), tests.mean[n].mean())
        for n in settings.CONTROLLERS
    ]
    across, _ = _spearman(*np.transpose(means))
    return (
        "Spearman's correlation of total correlation and mean regret over the seeds of an arm on "
        f"{data.name}: "
        f"{'; '.join(within)}; over the means of these {len(means)} arms {across:+.2f}."
    )


def _encodes(data, tests) -> str:
    said = []
    for how in (RIDGE, NEAREST):
        ranked = sorted(
            settings.CONTROLLERS, key=lambda name, how=how: -data.arms[name].numbers[how].mean()
        )
        best = ranked[0]
        found, p = tests.prediction[best, how], tests.adjusted[best, how]
        said.append(
            f"{how}: one-hot {data.references[ONE_HOT][how]:.3f}, untrained "
            f"{_interval(data.untrained[how])}, PG only "
            f"{_interval(data.arms[settings.PG].numbers[how])}, best {settings.TITLES[best]} "
            f"{_interval(data.arms[best].numbers[how])}, {_signed(found)} from one-hot (p = "
            f"{_p(p)})"
        )
    return (
        f"Spearman's correlation of predicted and true accuracy on {data.name}, {'; '.join(said)}."
    )


def _shown(data) -> list[int]:
    total = data.arms[settings.PG].queries.shape[1]
    return [q for q in (50, 100, 250, 500, 1000, 2000, 4000) if q <= total]


def _spearman(x, y) -> tuple[float, float]:
    """Correlation and p-value of independent points; NaN where one side is constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan
    found = spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)


def _interval(values) -> str:
    return _text(statistics.mean_interval(values))


def _text(found: Interval) -> str:
    if math.isnan(found.low):
        return f"{found.estimate:.3f}"
    return found.text()


def _signed(found: Paired) -> str:
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _paired_row(title, found: Paired, adjusted) -> Row:
    return Row(
        [
            title,
            found.mean,
            f"[{found.low:+.3f}, {found.high:+.3f}]",
            found.effect,
            _p(found.p),
            _p(adjusted),
        ]
    )


def _p(value) -> str:
    return "undefined" if math.isnan(value) else "<.0001" if value < 1e-4 else f"{value:.4f}"
