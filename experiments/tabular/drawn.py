"""Figures of the study, each with what stands below it."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from experiments.tabular import figures, judging, settings
from experiments.tabular.study import (
    CONDITIONING,
    ENTROPY,
    NEAREST,
    ONE_HOT,
    RIDGE,
    UNTRAINED,
)
from nas.evaluation import statistics
from nas.evaluation.statistics import Interval
from nas.report.figures import bars_with_intervals


class Drawn(NamedTuple):
    """A figure and what stands below it."""

    name: str  # of its file
    figure: Figure
    caption: str


LEARNED = (settings.FACTORISED, *settings.CONTROLLERS)


def regret_figure(data) -> Drawn:
    curves = {
        settings.TITLES[n]: band(*_at_queries(data.judge.regret(arm.queries)))
        for n, arm in data.arms.items()
    }
    figure = figures.bands(
        curves, x_label="queries", y_label="class-mean regret (points)", log=True
    )
    return Drawn(
        f"{data.name}_regret",
        figure,
        "Regret of the best architecture so far; mean and 95 % interval over seeds.",
    )


def top_figure(data) -> Drawn:
    curves = {}
    for name, arm in data.arms.items():
        x, inside = _at_queries(data.judge.in_top(arm.queries))
        found = [proportion(column) for column in inside.T]
        curves[settings.TITLES[name]] = x, *(np.array([f[i] for f in found]) for i in range(3))
    figure = figures.bands(
        curves, x_label="queries", y_label="probability of the top 1 %", log=True
    )
    return Drawn(
        f"{data.name}_top",
        figure,
        "Whether the best architecture so far is as good as the top 1 %; Wilson's interval.",
    )


def difference_figure(data, tests) -> Drawn:
    others = [name for name in settings.STRATEGIES if name != settings.PG]
    found = [tests.regret[name, "mean"] for name in others]
    figure = bars_with_intervals(
        [settings.TITLES[name] for name in others],
        [f.mean for f in found],
        [f.low for f in found],
        [f.high for f in found],
        label="mean regret less that of PG only (points)",
    )
    return Drawn(
        f"{data.name}_differences",
        figure,
        "Regret averaged over all queries, less that of PG only on the same seed.",
    )


def entropy_figure(data) -> Drawn:
    curves = {}
    for name in LEARNED:
        values = data.arms[name].entropy
        curves[settings.TITLES[name]] = band(np.arange(1, values.shape[1] + 1), values)
    figure = figures.bands(curves, x_label="update", y_label="entropy (nats)")
    return Drawn(
        f"{data.name}_entropy", figure, "Entropy of the policy; mean and 95 % interval over seeds."
    )


def gibbs_figure(data) -> Drawn:
    groups = {
        settings.TITLES[n]: tuple(data.arms[n].numbers[key] for key in (ENTROPY, CONDITIONING))
        for n in LEARNED
    }
    line = ("Gibbs policy", *judging.gibbs_curve(data.space, data.judge.seen))
    figure = figures.points(
        groups, x_label="entropy (nats)", y_label="total correlation (nats)", line=line
    )
    return Drawn(
        f"{data.name}_gibbs",
        figure,
        "Conditioning of final policies, and what accuracies would warrant.",
    )


def conditioning_figure(data, tests) -> Drawn:
    groups = {
        settings.TITLES[n]: (data.arms[n].numbers[CONDITIONING], tests.mean[n])
        for n in settings.CONTROLLERS
    }
    figure = figures.points(
        groups, x_label="total correlation (nats)", y_label="mean regret (points)"
    )
    return Drawn(
        f"{data.name}_conditioning_regret",
        figure,
        "Conditioning of the final policy against regret; crosses: means.",
    )


def prediction_figure(data) -> Drawn:
    found = {
        f"{title}, {how}": statistics.mean_interval(numbers[how])
        for how in (RIDGE, NEAREST)
        for title, numbers in embeddings(data).items()
    }
    figure = bars_with_intervals(
        list(found),
        *np.transpose(list(found.values())),
        label="Spearman, predicted and true accuracy",
        references={f"{ONE_HOT}, {how}": data.references[ONE_HOT][how] for how in (RIDGE, NEAREST)},
    )
    return Drawn(
        f"{data.name}_prediction",
        figure,
        "Accuracy of held-out architectures, predicted from embeddings.",
    )


def embeddings(data) -> dict[str, dict[str, np.ndarray]]:
    arms = {settings.TITLES[name]: data.arms[name].numbers for name in settings.CONTROLLERS}
    return {UNTRAINED: data.untrained} | arms


def _at_queries(values) -> tuple[np.ndarray, np.ndarray]:
    """Some 60 numbers of queries, and the columns of values [S, Q] there."""
    x = np.unique(np.round(np.geomspace(min(4, values.shape[1]), values.shape[1], 60)).astype(int))
    return x, values[:, x - 1]


def band(x, values) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, and mean and ends of the interval over seeds of values [S, n]."""
    return x, *np.transpose([statistics.mean_interval(column) for column in values.T])


def proportion(inside) -> Interval:
    """The share that is true of inside [S], and Wilson's interval."""
    interval = binomtest(int(np.sum(inside)), len(inside)).proportion_ci(method="wilson")
    return Interval(float(np.mean(inside)), interval.low, interval.high)
