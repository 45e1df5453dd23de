"""Figures of the study: curves with bands, and points of arms beside a curve. Arrays in, matplotlib
figures out.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments.tabular import settings
from nas.report.style import PALETTE, QUIET, new_figure, style

COLORS = {title: PALETTE[i % len(PALETTE)] for i, title in enumerate(settings.TITLES.values())}
_SIZE = (6.4, 3.6)  # inches


def bands(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
    dashed: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Figure:
    """Lines with intervals.

    Args:
      curves: arm -> x, mean, lower end, upper end, each [n].
      log: whether the x axis is logarithmic.
      dashed: name -> x, y of lines without interval.
    """
    with style():
        figure = new_figure(*_SIZE, layout="constrained")
        ax = figure.subplots()
        colors = _colors(curves)
        for arm, (x, mean, low, high) in curves.items():
            color = colors[arm]
            ax.plot(x, mean, color=color, label=arm)
            ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        for name, (x, y) in (dashed or {}).items():
            ax.plot(x, y, color=QUIET, linestyle=(0, (4, 2)), label=name)
        if log:
            ax.set_xscale("log")
        return _finish(figure, ax, x_label, y_label)


def points(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    x_label: str,
    y_label: str,
    line: tuple[str, np.ndarray, np.ndarray] | None = None,
) -> Figure:
    """A point for every seed, a cross for the mean of every arm.

    Args:
      groups: arm -> x, y, each [S].
      line: name, x, y of a dashed line.
    """
    with style():
        figure = new_figure(*_SIZE, layout="constrained")
        ax = figure.subplots()
        colors = _colors(groups)
        for arm, (x, y) in groups.items():
            color = colors[arm]
            ax.plot(x, y, "o", color=color, markersize=3, alpha=0.4, markeredgewidth=0)
            ax.plot(
                np.mean(x),
                np.mean(y),
                "X",
                color=color,
                markersize=8,
                markeredgecolor="white",
                label=arm,
            )
        if line is not None:
            name, x, y = line
            ax.plot(x, y, color=QUIET, linestyle=(0, (4, 2)), label=name)
        return _finish(figure, ax, x_label, y_label)


def _colors(names) -> dict[str, str]:
    """Name -> color: its own of COLORS, or one that none of the others has while there is one."""
    own = {name: COLORS[name] for name in names if name in COLORS}
    free = [color for color in PALETTE if color not in own.values()] or PALETTE
    others = [name for name in names if name not in own]
    return own | {name: free[i % len(free)] for i, name in enumerate(others)}


def _finish(figure, ax, x_label, y_label) -> Figure:
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    figure.legend(loc="outside right upper", handlelength=2)
    return figure
