"""Figures of the report. Arrays in, matplotlib `Figure` out; nothing here reads or writes files or
keeps global state.

Sizes are print sizes: a panel is 3.2 inches wide (three in a row are narrowed to a page), letters
have 8 points or more.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas.report.style import INK, PALETTE, QUIET, fill, new_figure, style, text_width

_PANEL = (3.2, 2.5)  # inches
_PAGE_WIDTH = 7.0  # inches
_LINES = ("-", "--", ":")  # the next one once all colours are taken


class Logged(NamedTuple):
    """One panel of training curves."""

    key: str
    label: str  # with its unit
    log: bool = False


def training_curves(
    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    metrics: Sequence[Logged],
    *,
    x_label: str = "update",
    window: int = 1,
    columns: int = 2,
) -> Figure:
    """Metrics over training, one panel per metric and one line per arm.

    Args:
      curves: arm -> metric key -> (steps [S], values [S]). A metric that an arm lacks is not drawn
        for it.
      metrics: which to draw.
      x_label: what steps count.
      window: values averaged (a centred running mean, shorter at the ends); the panel says so and
        shows each value faintly. 1: no smoothing.
      columns: panels side by side.
    """
    with style():
        figure, axes = _grid(len(metrics), columns)
        looks = {
            arm: {"color": PALETTE[i % 7], "linestyle": _LINES[i // 7 % 3]}
            for i, arm in enumerate(curves)
        }
        for ax, metric in zip(axes, metrics, strict=True):
            notes = [f"running mean of {window}; faint: each value"] if window > 1 else []
            missing = 0
            for arm, recorded in curves.items():
                if metric.key in recorded:
                    steps, values = (
                        np.asarray(part, float).ravel() for part in recorded[metric.key]
                    )
                    drawable = np.isfinite(values) & ((values > 0) | (not metric.log))
                    missing += int((~drawable).sum())
                    _curve(ax, steps, np.where(drawable, values, np.nan), window, looks[arm], arm)
            if missing:
                notes.append(
                    f"{missing:,} {'not positive or ' if metric.log else ''}not finite, left out"
                )
            if not any(np.isfinite(line.get_ydata()).any() for line in ax.lines):
                _say(ax, "no finite values" if ax.lines else "not recorded")
            elif metric.log:
                ax.set_yscale("log")
                log_axis(ax.yaxis)
            else:
                _plain_axis(ax.yaxis)
            _heading(ax, "", "\n".join(notes))
            ax.set_xlabel(x_label)
            ax.set_ylabel(metric.label)
            ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, min_n_ticks=1))
            ax.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        drawn = {line.get_label() for ax in axes for line in ax.lines}
        legend(figure, {arm: looks[arm] for arm in curves if arm in drawn})
        return figure


def bars_with_intervals(
    names: Sequence[str],
    values: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    label: str,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Horizontal bars from zero, each with its interval; dashed lines for reference values.

    A value that is not finite is written out as undefined.

    Args:
      names: one for each bar, top to bottom.
      values: their lengths.
      low: lower ends of the intervals; NaN: no interval.
      high: upper ends.
      label: of the axis, with its unit.
      references: name -> value of a line.
    """
    references = references or {}
    with style():
        names = [textwrap.fill(name, 24) for name in names]
        lines = sum(1.2 + name.count("\n") for name in names)
        figure, (ax,) = _grid(1, 1, size=(4.4, 0.75 + 0.22 * (lines + bool(references))))
        for row, (value, start, end) in enumerate(zip(values, low, high, strict=True)):
            if not np.isfinite(value):
                ax.text(0, row, " undefined", va="center", style="italic", color=QUIET)
                continue
            ax.barh(row, value, height=0.62, color=PALETTE[0], alpha=0.55, linewidth=0)
            ax.plot([value], [row], "o", markersize=3.5, color=INK)
            if np.isfinite(start) and np.isfinite(end):
                ax.plot([start, end], [row, row], color=INK, linewidth=1.3)
        ax.axvline(0, color=QUIET, linewidth=0.8)
        looks = {
            name: {"color": PALETTE[1 + i % 6], "linestyle": (0, (4, 2))}
            for i, name in enumerate(references)
        }
        for name in (name for name, value in references.items() if np.isfinite(value)):
            ax.axvline(references[name], **looks[name], linewidth=1.3)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.spines["left"].set_visible(False)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.grid(False, axis="y")
        ax.set_xlabel(label)
        ax.margins(x=0.08)
        legend(
            figure,
            {f"{name}: {_number(value, 3)}": looks[name] for name, value in references.items()},
        )
        return figure


def _grid(count, columns, *, size=None, **options) -> tuple[Figure, list]:
    """A figure with `count` axes in rows of at most `columns`, no wider than a page."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    width = min(columns * _PANEL[0], _PAGE_WIDTH)
    figure = new_figure(
        *(size or (width, rows * min(_PANEL[1], 1.05 * width / columns))), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for ax in axes[count:]:
        ax.remove()
    return figure, list(axes[:count])


def _heading(ax, title, subtitle) -> None:
    room = (
        72 * ax.get_figure().get_size_inches()[0] / ax.get_subplotspec().get_gridspec().ncols - 52
    )  # without the axis
    small = fill(subtitle, room)
    if small:
        ax.annotate(
            small,
            (0, 1),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            va="bottom",
            color=QUIET,
            fontsize=8,
        )
    if title:
        ax.set_title(
            fill(title, room / 1.3),
            loc="left",
            weight="bold",
            pad=6 + 10.5 * (1 + small.count("\n")),
        )


def _curve(ax, steps, values, window, look, arm) -> None:
    marker = "o" if np.isfinite(values).sum() < 3 else None  # a line of one point is invisible
    if window > 1:
        ax.plot(steps, values, color=look["color"], alpha=0.22, linewidth=0.7)
        values = _running_mean(values, window)
    ax.plot(steps, values, **look, marker=marker, markersize=4, label=arm)


def _running_mean(values, window) -> np.ndarray:
    if not len(values):
        return values
    kernel, finite = np.ones(window), np.isfinite(values)
    start = (window - 1) // 2
    total, count = (
        np.convolve(part, kernel)[start : start + len(values)]
        for part in (np.where(finite, values, 0.0), finite.astype(float))
    )
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def _plain_axis(axis) -> None:
    """A linear axis with the power of ten in each label: a single one for the whole axis would be
    where the heading is.
    """
    axis.set_major_locator(ticker.MaxNLocator(5))
    if not 1e-3 < max(map(abs, axis.get_view_interval())) < 1e5:
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:.3g}"))


def log_axis(axis: Axis) -> None:
    """Plain numbers on an axis with a logarithmic scale: evenly spaced if it spans less than a
    factor of five.
    """
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    if decades < 0.7:
        axis.set_major_locator(ticker.MaxNLocator(5))
    else:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def legend(figure: Figure, looks: Mapping[str, Mapping[str, Any]]) -> None:
    """A legend above the panels. looks: name -> how its line is drawn."""
    if not looks:
        return
    room = figure.get_size_inches()[0] * 72 - 20
    widest = max(text_width(name) for name in looks) + 40
    columns = int(np.clip(room // widest, 1, len(looks)))
    width, height = figure.get_size_inches()
    # Further lines of the legend take nothing from the panels.
    figure.set_size_inches(width, height + 0.16 * (-(-len(looks) // columns) - 1))
    handles = [Line2D([], [], **look, label=name) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=2)


def _say(ax, message) -> None:
    ax.text(
        0.5,
        0.5,
        message,
        transform=ax.transAxes,
        ha="center",
        va="center",
        style="italic",
        color=QUIET,
    )
    ax.tick_params(length=0, labelbottom=False, labelleft=False)


def _number(value, digits) -> str:
    return (
        f"{value:z.{digits}f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "undefined"
    )
