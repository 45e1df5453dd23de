"""Layered placement of a small directed acyclic graph (after Sugiyama, Tagawa and Toda, 1981).

Nodes are put into layers by the longest path from a source. An edge that spans several layers keeps
to a lane between the nodes, shared with the other edges into the same node. The order within layers
is chosen for few crossings, positions for straight edges.
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import networkx as nx
import numpy as np

_SWEEPS = 12
_LANE = 5.0  # breadth of a lane, in the units of the nodes' breadths


class Layout(NamedTuple):
    """Positions of nodes and edges. `across` runs along a layer, from 0 to `breadth`; depth is
    counted in layers.
    """

    layer: dict[Hashable, int]  # node -> its layer
    across: dict[Hashable, float]  # node -> its centre
    # edge -> `across` in every layer between its ends
    lanes: dict[tuple[Hashable, Hashable], list[float]]
    breadth: float


def layered(graph: nx.DiGraph, breadths: Mapping[Hashable, float], gap: float) -> Layout:
    """Places every node of `graph`; `breadths` are the sizes of the nodes along their layer, at
    least `gap` apart.

    Raises:
      networkx.NetworkXUnfeasible: the graph has a cycle.
    """
    layer = {}
    for node in nx.topological_sort(graph):
        layer[node] = max((layer[parent] + 1 for parent in graph.predecessors(node)), default=0)
    links = set()
    for tail, head in graph.edges:
        chain = [tail, *(_lane(head, depth) for depth in range(layer[tail] + 1, layer[head])), head]
        links.update(zip(chain, chain[1:], strict=False))
    depths = layer | {end: end[2] for link in links for end in link if _is_lane(end)}
    up, down = ({slot: [] for slot in depths} for _ in range(2))
    # Dead ends come first, so that their lanes keep to one side.
    below = {node: len(nx.descendants(graph, node)) for node in graph}
    place = {node: i for i, node in enumerate(graph)}

    def turn(link):
        return [
            (below.get(end, 0), _is_lane(end), place[end[1] if _is_lane(end) else end], depths[end])
            for end in link[::-1]
        ]

    for tail, head in sorted(links, key=turn):
        down[tail].append(head)
        up[head].append(tail)
    sizes = {slot: _LANE if _is_lane(slot) else breadths[slot] for slot in depths}
    drawings = [
        (rows, _straighten(rows, up, down, sizes, gap)) for rows in _orders(depths, up, down)
    ]
    _, across = min(drawings, key=lambda drawing: _untidiness(*drawing, down))
    first = min(across[slot] - sizes[slot] / 2 for slot in across)
    across = {slot: float(value - first) for slot, value in across.items()}
    return Layout(
        layer,
        {node: across[node] for node in layer},
        {
            (u, v): [across[_lane(v, depth)] for depth in range(layer[u] + 1, layer[v])]
            for u, v in graph.edges
        },
        max(across[slot] + sizes[slot] / 2 for slot in across),
    )


def _lane(head, depth):
    return ("lane", head, depth)


def _is_lane(slot):
    return isinstance(slot, tuple) and len(slot) == 3 and slot[0] == "lane"


def _orders(depths, up, down) -> list[list[list]]:
    """Orders of the slots (nodes and lanes) within layers, to choose from: depth first, then sweeps
    that sort by the mean place of neighbours.
    """
    seen = {}  # depth-first: a tree starts without crossings

    def visit(slot):
        if slot not in seen:
            seen[slot] = len(seen)
            for child in down[slot]:
                visit(child)

    for slot in depths:
        visit(slot)
    rows = [
        sorted((s for s in depths if depths[s] == depth), key=seen.get)
        for depth in range(max(depths.values()) + 1)
    ]
    orders = [[list(row) for row in rows]]
    for sweep in range(_SWEEPS):
        neighbours, sequence = (up, rows) if sweep % 2 == 0 else (down, rows[::-1])
        place = {slot: i for row in rows for i, slot in enumerate(row)}
        for row in sequence:
            wanted = {
                s: sum(place[n] for n in neighbours[s]) / len(neighbours[s])
                if neighbours[s]
                else place[s]
                for s in row
            }
            row.sort(key=wanted.get)
            place |= {slot: i for i, slot in enumerate(row)}
        if rows not in orders:
            orders.append([list(row) for row in rows])
    return orders


def _untidiness(rows, across, down) -> tuple[int, float]:
    """The number of crossings, then how far edges stray sideways."""
    return _crossings(rows, down), round(
        sum(abs(across[u] - across[v]) for u in across for v in down[u]), 6
    )


def _crossings(rows, down) -> int:
    total = 0
    for row, below in zip(rows, rows[1:], strict=False):
        place = {slot: i for i, slot in enumerate(below)}
        ends = [sorted(place[child] for child in down[slot]) for slot in row]
        total += sum(
            a > b
            for i, left in enumerate(ends)
            for right in ends[i + 1 :]
            for a in left
            for b in right
        )
    return total


def _straighten(rows, up, down, sizes, gap) -> dict:
    """Centres that keep the order and the gaps, each near the mean of its neighbours; links between
    lanes count most.
    """
    offsets = []  # least distance of each slot from the first of its row
    for row in rows:
        steps = [(sizes[a] + sizes[b]) / 2 + gap for a, b in zip(row, row[1:], strict=False)]
        offsets.append(np.concatenate([[0.0], np.cumsum(steps)]))
    across = {
        s: x - offset[-1] / 2
        for row, offset in zip(rows, offsets, strict=True)
        for s, x in zip(row, offset, strict=True)
    }
    for sweep in range(2 * _SWEEPS):
        for row, offset in list(zip(rows, offsets, strict=True))[:: 1 if sweep % 2 == 0 else -1]:
            wanted = []
            for slot in row:
                near = up[slot] + down[slot]
                weights = [4.0 if _is_lane(slot) and _is_lane(n) else 1.0 for n in near]
                pull = sum(weight * across[n] for weight, n in zip(weights, near, strict=True))
                wanted.append(pull / sum(weights) if near else across[slot])
            across |= zip(row, _nondecreasing(np.array(wanted) - offset) + offset, strict=True)
    return across


def _nondecreasing(values: np.ndarray) -> np.ndarray:
    """The nearest non-decreasing sequence in least squares (pool adjacent violators)."""
    pools = []  # [mean, count]
    for value in values:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            pools[-1] = [
                (pools[-1][0] * pools[-1][1] + mean * count) / (pools[-1][1] + count),
                pools[-1][1] + count,
            ]
    return np.concatenate([np.full(count, mean) for mean, count in pools])
