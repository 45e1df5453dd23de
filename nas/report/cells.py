"""Drawings of architectures: any space's graph as layers of labelled boxes."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from nas.report.layout import layered
from nas.report.style import new_figure, style, text_width

# colours of boxes, so that even yellow can be used
_COLORS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
)
_END_COLOR = "#8a939d"
_WIDTH = 300.0  # points: 400 pixels
_WIDEST = 340.0  # points: letters are legible when this is shrunk to 400 pixels
_MARGIN, _LINE = 4.0, 12.0  # points: margin around the drawing; height of a line of the title


def cell_drawing(
    graph: nx.DiGraph,
    label_names: Sequence[str],
    io_labels: Sequence[str],
    title: str | None = None,
) -> Figure:
    """An architecture, or a part of one, as a layered graph with one colour per label.

    It is about 400 pixels wide on a screen, top down or left to right. Nodes other than inputs and
    the output carry a number, counted in the order of the graph. Long edges into one node share a
    lane. Artists have the identifiers `node-NODE` and `edge-TAIL-HEAD`.

    Args:
      graph: as `SearchSpace.to_graphs` returns it.
      label_names: names of labels, in the order of their colours.
      io_labels: labels of nodes that carry no number.
      title: printed above.
    """
    labels = dict(graph.nodes(data="label"))
    inner = [node for node in graph if labels[node] not in io_labels]
    names = [name for name in label_names if name not in io_labels]
    colors = {name: _COLORS[i % len(_COLORS)] for i, name in enumerate(names)}
    with style():
        plans = []
        for sideways, separator in itertools.product((False, True), (" ", "\n")):
            texts = labels | {node: f"{i}{separator}{labels[node]}" for i, node in enumerate(inner)}
            plans.append(_plan(graph, texts, sideways))
        plan = min(plans, key=lambda plan: (max(plan.width, _WIDEST), plan.height))
        lines = textwrap.wrap(title or "", 46)
        above = _LINE * len(lines) + (3 if lines else 0)
        width, height = max(plan.width, _WIDTH), plan.height + above
        figure = new_figure(width / 72, height / 72)
        left = (plan.width - width) / 2
        ax = figure.add_axes((0, 0, 1, 1), xlim=(left, left + width), ylim=(plan.height, -above))
        ax.axis("off")
        for i, line in enumerate(lines):
            ax.text(
                plan.width / 2,
                _LINE * i + 8 - above,
                line,
                ha="center",
                va="center",
                fontsize=9,
                weight="bold",
            )
        for (tail, head), path in plan.paths.items():
            arrow = FancyArrowPatch(
                path=path, arrowstyle="-|>", mutation_scale=7, linewidth=0.9, color="#6b7580"
            )
            arrow.set_gid(f"edge-{tail}-{head}")
            ax.add_patch(arrow)
        for node, (x, y) in plan.centres.items():
            w, h = plan.sizes[node]
            color = colors.get(labels[node], _END_COLOR)
            box = FancyBboxPatch(
                (x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=4", zorder=3
            )
            box.set(
                facecolor=0.3 * np.array(to_rgb(color)) + 0.7,
                edgecolor=color,
                linewidth=1.1,
                gid=f"node-{node}",
            )
            ax.add_patch(box)
            ax.text(x, y, plan.texts[node], ha="center", va="center", linespacing=1.05, zorder=4)
        return figure


class _Plan(NamedTuple):
    """A drawing in points, y downwards."""

    width: float
    height: float
    texts: dict
    centres: dict  # node -> (x, y)
    sizes: dict  # node -> (width, height)
    paths: dict[tuple, Path]  # edge -> its path


def _plan(graph: nx.DiGraph, texts: dict, sideways: bool) -> _Plan:
    """Places boxes in layers, from top to bottom or, `sideways`, from left to right."""
    height = 15 + 10 * max(text.count("\n") for text in texts.values())
    sizes = {
        node: (8 + max(map(text_width, text.split("\n"))), height) for node, text in texts.items()
    }
    # Indices into (width, height): which runs along a layer, and which along the flow.
    across, along = (1, 0) if sideways else (0, 1)
    layout = layered(graph, {node: size[across] for node, size in sizes.items()}, gap=5)
    depth = 1 + max(layout.layer.values())
    thickness = [
        max(sizes[node][along] for node in graph if layout.layer[node] == k) for k in range(depth)
    ]
    space = _space(layout, thickness, sideways)
    start = _MARGIN + np.arange(depth) * space + np.cumsum([0, *thickness[:-1]])
    end = start + thickness
    place = {node: layout.across[node] + _MARGIN for node in graph}
    middle = {node: (start[layout.layer[node]] + end[layout.layer[node]]) / 2 for node in graph}
    paths = {}
    for u, v in graph.edges:
        first, last = layout.layer[u], layout.layer[v]
        stretches = [(place[u], middle[u] + sizes[u][along] / 2, end[first])]
        stretches += [
            (x + _MARGIN, start[k], end[k]) for k, x in enumerate(layout.lanes[u, v], first + 1)
        ]
        stretches += [(place[v], start[last], middle[v] - sizes[v][along] / 2)]
        paths[u, v] = _path(stretches, sideways)
    centres = {
        node: (middle[node], place[node]) if sideways else (place[node], middle[node])
        for node in graph
    }
    breadth, length = layout.breadth + 2 * _MARGIN, end[-1] + _MARGIN
    width, height = (length, breadth) if sideways else (breadth, length)
    return _Plan(width, height, texts, centres, sizes, paths)


def _space(layout, thickness, sideways) -> float:
    """Space between layers: more if an edge goes far aside; sideways, what the width allows."""
    aside = [
        abs(np.diff([layout.across[u], *lanes, layout.across[v]])).max()
        for (u, v), lanes in layout.lanes.items()
    ]
    space = np.clip(0.2 * max(aside, default=0), 14, 30)
    if sideways and len(thickness) > 1:
        space = np.clip((_WIDTH - 2 * _MARGIN - sum(thickness)) / (len(thickness) - 1), space, 60)
    return float(space)


def _path(stretches, sideways) -> Path:
    """A path straight through layers, each (across, from, to), and curved between them."""
    vertices, codes = [], []
    for across, start, end in stretches:
        if vertices:
            last, bend = vertices[-1][0], (vertices[-1][1] + start) / 2
            vertices += [(last, bend), (across, bend), (across, start)]
            codes += [Path.CURVE4] * 3
        else:
            vertices.append((across, start))
            codes.append(Path.MOVETO)
        if end > start + 1e-6:
            vertices.append((across, end))
            codes.append(Path.LINETO)
    return Path(np.array(vertices)[:, ::-1] if sideways else np.array(vertices), codes)
