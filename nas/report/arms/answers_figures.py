"""Figures of the answers: numbers with intervals as dots, what cells reach as ranges; arrays in.

A figure is as wide as a telephone shows it at its own size; on a page it is beside a sentence.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.report import figures
from nas.report.style import INK, PALETTE, QUIET, fill, new_figure, style, text_width
from nas.tasks import Metric

_WIDTH = 3.5  # inches
_LABEL = 72 * 1.15  # points, for the name of a row
_PITCH = 0.14  # inches between the dots of one row
_SETS = ("#9aa4af", PALETTE[2])  # colours of sets of cells, other than those of arms
_DASHES = ((0, (4, 2)), (0, (1, 1.5)))  # lines of yardsticks, in turn
_PAPER = {
    "marker": "D",
    "markersize": 5,
    "markerfacecolor": "none",
    "color": INK,
    "linestyle": "none",
}


class Dots(NamedTuple):
    """A panel: rows of numbers, one in each row per series."""

    rows: Sequence[str]
    series: Mapping[str, np.ndarray]  # name -> [rows, 3] number, lower and upper end; NaN: none
    x_label: str
    least: float = 0.0  # the axis reaches at least this far
    paper: Sequence[float] | None = None  # [rows]; NaN: none


class Range(NamedTuple):
    """What the cells of one arm reach."""

    name: str
    sets: Mapping[str, np.ndarray]  # name of a set of cells -> [n] as shown
    best: float


def dots(panels: Sequence[Dots], colors: Mapping[str, str]) -> Figure:
    """Panels one below another: dots with their intervals, open diamonds for what is published.

    Args:
      colors: name of a series -> colour; where a panel has one series, name of a row -> colour, and
        no legend is needed.
    """
    with style():
        heights = [len(panel.rows) * (_PITCH * len(panel.series) + 0.11) for panel in panels]
        several = [panel.series for panel in panels if len(panel.series) > 1]
        names = list(dict.fromkeys(name for series in several for name in series))
        published = [panel.paper for panel in panels if panel.paper is not None]
        has_paper = any(np.isfinite(numbers).any() for numbers in published)
        figure = new_figure(_WIDTH, sum(heights) + 0.45 * len(panels), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for ax, panel in zip(axes, panels, strict=True):
            _dots(ax, panel, colors)
        looks = {name: {"color": colors[name], "marker": "o", "markersize": 4} for name in names}
        if has_paper:
            looks["paper"] = _PAPER
        if looks:
            _legend(figure, looks)
        return figure


def ranges(arms: Sequence[Range], yardsticks: Mapping[str, float], metric: Metric) -> Figure:
    """One row per arm: quartiles and median of sets of cells, the best cell; lines for yardsticks.

    Args:
      yardsticks: name -> what it reaches; names are cut off at a comma.
    """
    sets = list(dict.fromkeys(name for arm in arms for name in arm.sets))
    colors = dict(zip(sets, _SETS, strict=False))
    looks = {name: {"color": color, "linewidth": 3} for name, color in colors.items()}
    best = {"color": INK, "marker": "*", "markersize": 7, "linestyle": "none"}
    lines = {
        f"{name.partition(',')[0]} {value:.{metric.digits}f}": {
            "color": QUIET,
            "linewidth": 1,
            "linestyle": dashes,
        }
        for (name, value), dashes in zip(yardsticks.items(), _DASHES, strict=False)
    }
    with style():
        height = len(arms) * (_PITCH * (len(sets) + 1) + 0.08)
        figure = new_figure(_WIDTH, height + 0.5, layout="constrained")
        ax = figure.subplots()
        offsets = _offsets(len(sets) + 1)
        for row, arm in enumerate(arms):
            ax.plot(arm.best, row + offsets[0], **best)
            for offset, (name, reached) in zip(offsets[1:], arm.sets.items(), strict=True):
                finite, look = reached[np.isfinite(reached)], looks[name]
                if len(finite):
                    low, middle, high = np.percentile(finite, (25, 50, 75))
                    ax.hlines(row + offset, low, high, **look)
                    ax.plot(middle, row + offset, "|", color=INK, markersize=7)
        for value, look in zip(yardsticks.values(), lines.values(), strict=False):
            ax.axvline(value, **look)
        ax.set_xscale("log")
        figures.log_axis(ax.xaxis)
        _rows(ax, [arm.name for arm in arms])
        ax.set_xlabel(f"{metric.name} under its shared weights")
        _legend(figure, {"best cell": best} | looks | lines)
        return figure


def nothing(message: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    with style():
        figure = new_figure(_WIDTH, 0.9)
        text = fill(message, 72 * _WIDTH - 20)
        figure.text(0.5, 0.5, text, ha="center", va="center", style="italic", color=QUIET)
        return figure


def _dots(ax, panel, colors):
    offsets = _offsets(len(panel.series))
    for offset, (name, values) in zip(offsets, panel.series.items(), strict=True):
        number, low, high = np.transpose(np.asarray(values, float).reshape(-1, 3))
        y = np.arange(len(panel.rows)) + offset
        there = np.isfinite(low) & np.isfinite(high)
        shades = np.array([colors[name if len(panel.series) > 1 else row] for row in panel.rows])
        ax.hlines(y[there], low[there], high[there], colors=shades[there], linewidth=1.5)
        ax.scatter(number, y, s=16, c=shades, zorder=3)
    if panel.paper is not None:
        ax.plot(panel.paper, np.arange(len(panel.rows)), **_PAPER)
    ax.axvline(0, color=QUIET, linewidth=0.8)
    ax.set_xlabel(panel.x_label)
    ax.margins(x=0.08)
    left, right = ax.get_xlim()
    ax.set_xlim(min(left, -panel.least / 8), max(right, panel.least))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5))
    _rows(ax, panel.rows)


def _legend(figure, looks):
    """A legend above the panels, in as many columns as there is room for."""
    handles = [Line2D([], [], **look, label=name) for name, look in looks.items()]
    width, height = figure.get_size_inches()
    widest = max(text_width(name) for name in looks) + 32
    columns = max(1, min(len(looks), int((72 * width - 10) // widest)))
    lines = -(-len(looks) // columns)
    figure.set_size_inches(width, height + 0.16 * lines + 0.06)
    options = {"ncols": columns, "handlelength": 1.4, "columnspacing": 1}
    figure.legend(handles=handles, loc="outside upper left", **options)


def _offsets(count):
    """[count] offsets of the dots of each series within a row that is one unit high."""
    return (np.arange(count) - (count - 1) / 2) * 0.72 / max(1, count)


def _rows(ax, names):
    ax.set_yticks(range(len(names)), [fill(name, _LABEL) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(False, axis="y")
