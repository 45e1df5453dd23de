"""The strata, table and figure of rank agreement. Arrays in, numbers, tables and figures out."""

import numpy as np
from matplotlib import ticker
from scipy.stats import kendalltau, rankdata, spearmanr

from nas.report.style import PALETTE, QUIET, new_figure, style
from nas.report.tables import Column, Row, Table

_UNIFORM, _BEST = "drawn uniformly", "best tenth under shared weights"


def strata(shared, cells):
    """Stratum -> indices of its cells in the pool; losses [2, P] under shared weights choose the
    best ones.
    """
    ranks = rankdata(np.nan_to_num(shared, nan=np.inf), axis=1).mean(axis=0)
    return {_UNIFORM: np.arange(cells), _BEST: np.argsort(ranks, kind="stable")[:cells]}


def agreement(first, second, statistic):
    """Mean of `statistic` over pairs of a measurement from [M, n] and one from [N, n]: agreement of
    single measurements, as in a search.
    """
    return np.mean([statistic(a, b).statistic for a in first for b in second])


def table(measured, metric, command):
    """Kendall's tau and Spearman's correlation of each stratum, from (shared [2, n], alone [2, n])
    losses.
    """
    rows = []
    for title, (shared, alone) in measured.items():
        diverged = float(np.sum(~np.all(shared < metric.guessing, axis=0)))
        compared = {
            "shared weights against training alone": (shared, alone),
            "two trainings alone": (alone[:1], alone[1:]),
            "two searches' weights": (shared[:1], shared[1:]),
        }
        for comparison, pair in compared.items():
            cells = [_interval(*pair, statistic) for statistic in (kendalltau, spearmanr)]
            rows.append(
                Row(
                    [title, comparison, float(alone.shape[1]), diverged, *cells],
                    comparison.startswith("two"),
                )
            )
    columns = [
        Column("cells"),
        Column("what is compared"),
        Column("number", 0),
        Column("diverged", 0),
    ]
    notes = [
        "Of single measurements: the mean over four pairs of a search and a training. 95 % "
        "intervals: bootstrap over cells.",
        "Between rules: ceilings, a measurement against its repetition with another seed.",
        "Diverged: no better than guessing under the weights of a search.",
        "The best tenth is chosen by the mean rank under the same shared weights: a narrow range, "
        "harder to agree in.",
    ]
    columns += [Column("Kendall's tau", 2), Column("Spearman", 2)]
    return Table(
        f"Shared weights against training alone: rank correlations of validation {metric.name}",
        columns,
        rows,
        notes,
        command,
    )


def answer(measured):
    """How well shared weights and training alone agree, in a sentence."""
    told = [f"{title} {_interval(*pair, kendalltau)}" for title, pair in measured.items()]
    return f"Kendall's tau between a search's shared weights and training alone: {'; '.join(told)}."


def figure(measured):
    """Ranks under shared weights against ranks trained alone, one panel per stratum; ranks, since
    some cells diverge.
    """
    with style():
        drawn = new_figure(6.8, 3.4, layout="constrained")
        axes = drawn.subplots(1, len(measured))
        for i, (ax, (title, pair)) in enumerate(zip(axes, measured.items(), strict=True)):
            shared, alone = (
                rankdata(np.nan_to_num(values, nan=np.inf).mean(axis=0)) for values in pair
            )
            ax.axline((1, 1), slope=1, color=QUIET, linestyle=":", linewidth=1)
            ax.scatter(shared, alone, s=12, color=PALETTE[i])
            ax.set(
                title=title,
                xlabel="rank under shared weights",
                ylabel="rank trained alone",
                aspect="equal",
            )
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        return drawn


def _interval(first, second, statistic, *, resamples=1000):
    """The agreement with its bootstrap interval over cells, as text."""
    first, second = np.nan_to_num(first, nan=np.inf), np.nan_to_num(second, nan=np.inf)
    rng, cells = np.random.default_rng(0), first.shape[1]
    drawn = [rng.integers(cells, size=cells) for _ in range(resamples)]
    values = [
        agreement(first[:, rows], second[:, rows], statistic)
        for rows in drawn
        if len(np.unique(rows)) > 2
    ]
    low, high = np.nanquantile(values, (0.025, 0.975))
    return f"{agreement(first, second, statistic):.2f} [{low:.2f}, {high:.2f}]"
