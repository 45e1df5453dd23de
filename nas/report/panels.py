"""Figures of one controller, over one or several seeds: arrays in, `Figure` out.

A figure is 3.4 inches wide: it can be read at its own size on a telephone, and beside others on a
page.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nas.evaluation import statistics
from nas.evaluation.conditioning import Conditioning
from nas.evaluation.probes import Probe
from nas.report.style import INK, PALETTE, QUIET, fill, new_figure, style
from nas.spaces import SearchSpace

PREFIXES = 20  # own samples in a heat map
_POSITION = "position of the decision"
_WIDTH = 3.4  # inches
_ROOM = 72 * _WIDTH - 60  # points, for a title
_DENSITY_WIDTHS = (0, _WIDTH, 5.2, 7.0)  # inches, by number of columns
_LEVELS = 30  # bins of distances in a density
_MOST_VALUES = 40  # whole numbers with at most this many values get a column each
_LEAST = 0.005  # nats; an axis reaches at least this far, so that rounding errors are invisible
_COLORS = "cividis"  # looks the same to the colour-blind, and in grey


class Curve(NamedTuple):
    """A line: the mean over seeds, with its 95 % interval as a band."""

    label: str  # empty: not in the legend
    x: np.ndarray  # [X]
    values: np.ndarray  # [S, X]; NaN: no value
    color: str
    dashed: bool = False


class Panel(NamedTuple):
    """An axis of a figure and its curves."""

    curves: Sequence[Curve]
    y_label: str
    # ends of the y axis; None: what the curves need, from zero to at least _LEAST
    limits: tuple[float, float] | None = None


def probe_curves(space: SearchSpace, title: str, probes: Sequence[Probe]) -> Figure:
    """Accuracy of the probes by position, and that of the majority, one colour per kind of
    decision; one probe per seed.
    """
    accuracy, majority = (
        np.stack([getattr(probe, part) for probe in probes]) for part in ("accuracy", "majority")
    )
    curves = []
    for color, kind in zip(PALETTE, dict.fromkeys(space.kinds), strict=False):
        at = space.positions(kind)
        curves.append(Curve(kind, at, accuracy[:, at], color))
        curves.append(Curve(f"{kind}, majority", at, majority[:, at], color, dashed=True))
    return stacked_curves(title, [Panel(curves, "held-out accuracy", (0, 1.02))], _POSITION)


def conditioning_curves(
    space: SearchSpace, title: str, found: Mapping[str, Sequence[Conditioning]]
) -> Figure:
    """Entropy and conditioning by position. found: name -> one `Conditioning` per seed."""
    free = np.flatnonzero(np.array(space.num_choices) > 1)
    drawn = []
    for part, label in (("entropy", "entropy (nats)"), ("divergence", "conditioning, KL (nats)")):
        values = {
            name: np.stack([getattr(seed, part)[free] for seed in seeds])
            for name, seeds in found.items()
        }
        drawn.append(
            Panel(
                [
                    Curve(name, free, values[name], color)
                    for name, color in zip(found, PALETTE, strict=False)
                ],
                label,
            )
        )
    return stacked_curves(title, drawn, _POSITION)


def certainty(space: SearchSpace, title: str, log_probs: np.ndarray) -> Figure:
    """Probability of the likeliest action along the first sequences of log_probs [n, T, K]; white:
    no choice.
    """
    likeliest = np.exp(log_probs[:PREFIXES]).max(axis=-1)
    shown = np.where(np.array(space.num_choices) > 1, likeliest, np.nan)
    label = "probability of the likeliest action"
    return heat_map(title, shown, x_label=_POSITION, y_label="sequence", label=label)


def fractions(space: SearchSpace, decisions: np.ndarray) -> dict[str, np.ndarray]:
    """label -> [n] share of an architecture's nodes that have it."""
    chosen = decisions[:, [t for t, kind in enumerate(space.kinds) if kind == space.label_kind]]
    labels = space.choice_names[space.label_kind]
    return {f"fraction {label}": (chosen == k).mean(axis=1) for k, label in enumerate(labels)}


def stacked_curves(title: str, panels: Sequence[Panel], x_label: str) -> Figure:
    """Panels one below another with one x axis; a label that occurs in several panels is explained
    once.
    """
    with style():
        figure, axes = _figure(title, len(panels), height=1.0 + 1.6 * len(panels), sharex=True)
        for ax, panel in zip(axes, panels, strict=True):
            for curve in panel.curves:
                if not len(curve.x):  # a kind of decision without a choice
                    continue
                mean, low, high = np.transpose(
                    [statistics.mean_interval(column) for column in np.transpose(curve.values)]
                )
                line = (
                    {"linestyle": (0, (4, 2)), "linewidth": 1.0}
                    if curve.dashed
                    else {"marker": "o", "markersize": 3}
                )
                ax.fill_between(curve.x, low, high, color=curve.color, alpha=0.2, linewidth=0)
                ax.plot(curve.x, mean, color=curve.color, label=curve.label, **line)
            ax.set_ylabel(panel.y_label)
            low, high = ax.get_ylim()
            ax.set_ylim(*(panel.limits or (min(0.0, low), max(_LEAST, high))))
            ax.yaxis.set_major_locator(ticker.MaxNLocator(5))
        axes[-1].set_xlabel(x_label)
        axes[-1].xaxis.set_major_locator(ticker.MaxNLocator(7, integer=True))
        handles = {
            label: handle
            for ax in axes
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(
                handles.values(),
                handles,
                loc="outside lower center",
                ncols=2,
                handlelength=2,
                columnspacing=1,
            )
        return figure


def heat_map(title: str, values: np.ndarray, *, x_label: str, y_label: str, label: str) -> Figure:
    """Probabilities [rows, columns] as colours on a scale from 0 to 1; NaN stays white."""
    with style():
        figure, (ax,) = _figure(title, 1, height=2.7)
        ax.grid(False)
        image = ax.pcolormesh(
            np.asarray(values, float), vmin=0, vmax=1, cmap=_COLORS, rasterized=True
        )
        for axis, count in ((ax.xaxis, values.shape[1]), (ax.yaxis, values.shape[0])):
            places = np.arange(0, count, max(1, -(-count // 6)))
            axis.set_ticks(places + 0.5, [str(place) for place in places])
        ax.invert_yaxis()
        ax.set(xlabel=x_label, ylabel=y_label)
        figure.colorbar(image, label=label, fraction=0.06, pad=0.02)
        return figure


def projections(title: str, embedding: np.ndarray, colorings: Mapping[str, np.ndarray]) -> Figure:
    """The first two principal components of states [n, H], once for each colouring name -> [n].

    The colours run from the 2nd to the 98th percentile of finite values; values that are not finite
    are crosses.
    """
    centred = np.asarray(embedding, np.float64) - np.mean(embedding, axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    singular, left = (np.pad(singular, (0, 2))[:2], np.pad(left, ((0, 0), (0, 2)))[:, :2])
    total = (centred**2).sum()
    share = singular**2 / total if total > 0 else np.zeros(2)
    x, y = (left * singular).T
    with style():
        rows = -(-len(colorings) // 2)
        figure, axes = _figure(title, rows, 2, height=0.7 + 1.5 * rows)
        for ax in axes[len(colorings) :]:
            ax.remove()
        for ax, (name, values) in zip(axes, colorings.items(), strict=False):
            values = np.asarray(values, float)
            finite = np.isfinite(values)
            if finite.any():
                low, high = np.percentile(values[finite], (2, 98))
                points = ax.scatter(
                    x[finite],
                    y[finite],
                    s=9,
                    c=values[finite],
                    vmin=low,
                    vmax=high,
                    cmap=_COLORS,
                    linewidths=0,
                )
                bar = figure.colorbar(points, ax=ax, fraction=0.08, pad=0.02)
                bar.locator = ticker.MaxNLocator(3)
            ax.scatter(x[~finite], y[~finite], s=10, c=INK, marker="x", linewidths=0.7)
            ax.set_title(fill(name, _ROOM / 2), loc="left", fontsize=8)
            ax.tick_params(labelbottom=False, labelleft=False, length=0)
            ax.grid(False)
        figure.supxlabel(f"first component ({share[0]:.0%} of the variance)", fontsize=8.5)
        figure.supylabel(f"second component ({share[1]:.0%})", fontsize=8.5)
        return figure


def densities(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], *, x_label: str, y_label: str
) -> Figure:
    """How many pairs have a value and a distance, with the median distance; whole numbers get a
    column per value.

    Args:
      panels: title -> values [P], distances [P]; three in a row, on one scale of colours.
    """
    pairs = {}
    for title, (x, distance) in panels.items():
        x, distance = np.asarray(x, float), np.asarray(distance, float)
        finite = np.isfinite(x) & np.isfinite(distance)
        pairs[title] = x[finite], distance[finite], int((~finite).sum())
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    room = 72 * _DENSITY_WIDTHS[columns] / columns - 60  # points, for a title
    with style():
        figure = new_figure(_DENSITY_WIDTHS[columns], 2.7 * rows, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(pairs) :]:
            ax.remove()
        counted = {title: _counted(x, y) for title, (x, y, _) in pairs.items() if len(x)}
        norm = LogNorm(1, max([2, *(of[0].max() for of in counted.values())]))
        drawn = None
        for place, (ax, (title, (x, distance, lost))) in enumerate(
            zip(axes, pairs.items(), strict=False)
        ):
            ax.grid(False)
            ax.set(xlabel=x_label, ylabel="" if place % columns else y_label)
            ax.set_title(fill(title, room / 1.2), loc="left", fontsize=9, weight="bold")
            if lost:
                note = f"{lost:,} not finite, left out"
                ax.text(1, 1.01, note, transform=ax.transAxes, ha="right", color=QUIET)
            if title not in counted:
                note = {"ha": "center", "style": "italic", "color": QUIET}
                ax.text(0.5, 0.5, "no finite pairs", transform=ax.transAxes, **note)
                continue
            counts, edges, levels = counted[title]
            shown = np.where(counts > 0, counts, np.nan).T
            drawn = ax.pcolormesh(edges, levels, shown, norm=norm, cmap="Blues", rasterized=True)
            inside = np.clip(np.digitize(x, edges) - 1, 0, len(edges) - 2)
            there = np.unique(inside)
            medians = [np.median(distance[inside == column]) for column in there]
            line = {"color": INK, "linewidth": 1, "markersize": 3, "label": "median"}
            ax.plot(((edges[:-1] + edges[1:]) / 2)[there], medians, "o-", **line)
            ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
            if ax is axes[0]:
                ax.legend(loc="best")
        if drawn:
            numbers = ticker.StrMethodFormatter("{x:,.0f}")
            bar = {"fraction": 0.06 / columns, "pad": 0.02, "format": numbers}
            figure.colorbar(drawn, ax=list(axes[: len(pairs)]), label="pairs", **bar)
        return figure


def _counted(x, distance):
    """Counts [columns, levels] of pairs, and the edges of both."""
    values = np.unique(x)
    if len(values) <= _MOST_VALUES and np.all(values == np.round(values)):
        edges = np.arange(values[0] - 0.5, values[-1] + 1)
    else:
        edges = np.histogram_bin_edges(x, _LEVELS)
    return np.histogram2d(x, distance, [edges, _LEVELS])


def ladder(names: Sequence[str], panels: Mapping[str, np.ndarray]) -> Figure:
    """One row per name and one panel per measure: label -> [rows, 3] mean, lower and upper end;
    dotted: the mean of the first row.
    """
    with style():
        figure = new_figure(2 * _WIDTH, 0.9 + 0.19 * len(names), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False).ravel()
        rows = np.arange(len(names))
        for ax, (label, values), color in zip(axes, panels.items(), PALETTE, strict=False):
            mean, low, high = np.transpose(values)
            ax.axvline(mean[0], color=QUIET, linestyle=":", linewidth=1)
            ax.hlines(rows, low, high, color=color, linewidth=1.5)
            ax.plot(mean, rows, "o", color=color, markersize=3.5)
            ax.set_xlabel(fill(label, 72 * 1.5))
            ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
        axes[0].set_yticks(rows, names)
        axes[0].invert_yaxis()
        return figure


def grid_maps(
    values: Mapping[str, np.ndarray],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str,
    y_label: str,
) -> Figure:
    """label -> [rows, columns] as colours with the numbers in them, one panel per label."""
    with style():
        figure = new_figure(2 * _WIDTH, 2.6, layout="constrained")
        for ax, (label, grid) in zip(
            figure.subplots(1, len(values), squeeze=False).ravel(), values.items(), strict=True
        ):
            ax.grid(False)
            ax.imshow(grid, cmap=_COLORS, aspect="auto")
            middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
            for (row, column), value in np.ndenumerate(grid):
                ax.text(
                    column,
                    row,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    color="white" if value < middle else INK,
                )
            ax.set_xticks(range(len(columns)), columns)
            ax.set_yticks(range(len(rows)), rows)
            ax.set(xlabel=x_label, ylabel=y_label)
            ax.set_title(label, loc="left", fontsize=9)
        return figure


def _figure(title, rows, columns=1, *, height, **options):
    figure = new_figure(_WIDTH, height, layout="constrained")
    figure.suptitle(fill(title, _ROOM / 1.2), x=0.02, ha="left", fontsize=9, weight="bold")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).ravel())
