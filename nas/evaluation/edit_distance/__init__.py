"""Exact graph edit distance of small labelled directed graphs, for every pair of a thousand
architectures.

Unit costs: 1 for substituting a node whose label differs, 1 for inserting or deleting a node or an
edge; edges have no labels. `search.py` explains the method. Every distance is exact: the search has
no time-out. Larger graphs get bounds instead.

Isomorphic architectures are compared once. Graphs with the same colour refinement (Weisfeiler and
Leman 1968), as isomorphic graphs always have, are merged if the search finds the distance 0 between
them.
"""

import itertools
from collections.abc import Hashable, Sequence

import networkx as nx
import numpy as np
from scipy.optimize import linear_sum_assignment

from nas.evaluation import blocks
from nas.evaluation.edit_distance.graphs import (
    MAX_NODES_BOUNDS,
    PackedGraphs,
    pack,
    pack_networkx,
)
from nas.evaluation.edit_distance.pairs import (
    Comparison,
    all_pairs,
    available_cores,
    compare,
    some_pairs,
)
from nas.spaces import SearchSpace
from nas.spaces.space import ABSENT, MAX_NODES

__all__ = [
    "MAX_NODES",
    "MAX_NODES_BOUNDS",
    "Comparison",
    "PackedGraphs",
    "available_cores",
    "compare",
    "edit_distance",
    "edit_distance_bounds",
    "edit_distances_within",
    "first_approximation",
    "pack",
    "pack_decisions",
    "pack_networkx",
    "pairwise_edit_distance",
    "pairwise_edit_distance_bounds",
]


def edit_distance(
    a: nx.DiGraph,
    b: nx.DiGraph,
    *,
    label: Hashable | None = "label",
    forced: Sequence[Hashable] = (),
) -> int:
    """Exact edit distance of two graphs of at most 16 nodes, cyclic or not, in any order of their
    nodes.

    Args:
      a, b: directed graphs without self-loops or parallel edges.
      label: the node attribute that holds the label; None ignores labels.
      forced: labels whose nodes may only be matched to each other, such as ("input", "output").

    Raises:
      UserError: not such a graph, a node without label, or forced nodes that are absent or differ
        in number; names the graph, 0 or 1.
    """
    packed = pack_networkx([a, b], label=label, forced=forced)
    return int(compare(packed, np.array([0]), np.array([1])).upper[0])


def edit_distance_bounds(
    a: nx.DiGraph,
    b: nx.DiGraph,
    *,
    label: Hashable | None = "label",
    forced: Sequence[Hashable] = (),
    limit: int = 10_000,
) -> tuple[int, int]:
    """Lower and upper bound on the edit distance of two graphs of at most 64 nodes; equal bounds
    are the distance.

    Args:
      a, b, label, forced: as for `edit_distance`.
      limit: search nodes after which the search gives up.

    Raises:
      UserError: as `edit_distance`.
    """
    packed = pack_networkx([a, b], label=label, forced=forced, max_nodes=MAX_NODES_BOUNDS)
    found = compare(packed, np.array([0]), np.array([1]), limit=limit)
    return int(found.lower[0]), int(found.upper[0])


def pairwise_edit_distance(
    space: SearchSpace,
    decisions,
    *,
    labelled: bool = True,
    io: bool = True,
    forced: bool = True,
    threads: int = 0,
) -> np.ndarray:
    """int32[n, n] exact edit distances between all architectures, summed over their parts.

    The primary definition is the default: labelled graphs with input and output nodes, each matched
    to its counterpart. Besides the result, no memory grows with the number of pairs. The result
    does not depend on the number of threads.

    Args:
      space: the space of the decisions.
      decisions: [n, T].
      labelled: whether a differing label costs 1; if not, all labels except the forced ones are the
        same.
      io: whether the graphs have the nodes of `space.io_labels`.
      forced: whether these may only be matched to each other; needs `io`.
      threads: 0 uses all cores.

    Raises:
      UserError: invalid decisions; a graph with more than 16 nodes, a cycle, an unknown label or
        without the forced nodes.
    """
    first, *others = pack_decisions(space, decisions, labelled=labelled, io=io, forced=forced)
    total = all_pairs(first, None, threads, keep_lower=False)[1]
    for part in others:
        total += all_pairs(part, None, threads, keep_lower=False)[1]
    return total


def edit_distances_within(
    space: SearchSpace,
    decisions,
    *,
    block: int,
    labelled: bool = True,
    io: bool = True,
    forced: bool = True,
    threads: int = 0,
) -> np.ndarray:
    """int32[P] `pairwise_edit_distance` of the pairs within blocks, as in `nas.evaluation.blocks`.

    Args:
      block: architectures of a block.
      space, decisions, labelled, io, forced, threads: as for `pairwise_edit_distance`.

    Raises:
      UserError: as `pairwise_edit_distance`.
    """
    parts = pack_decisions(space, decisions, labelled=labelled, io=io, forced=forced)
    first, second = blocks.pairs(len(decisions), block)
    return sum(some_pairs(part, first, second, threads) for part in parts)


def pairwise_edit_distance_bounds(
    space: SearchSpace,
    decisions,
    *,
    labelled: bool = True,
    io: bool = True,
    forced: bool = True,
    limit: int = 10_000,
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds int32[n, n] on the distances of graphs of up to 64 nodes.

    A pair with lower < upper is left open; whoever prints bounds should say how many pairs are.

    Args:
      limit: search nodes after which a pair is left open.
      space, decisions, labelled, io, forced, threads: as for `pairwise_edit_distance`.

    Raises:
      UserError: as `pairwise_edit_distance`, from 65 nodes on.
    """
    parts = pack_decisions(
        space, decisions, labelled=labelled, io=io, forced=forced, max_nodes=MAX_NODES_BOUNDS
    )
    found = [all_pairs(part, limit, threads, keep_lower=True) for part in parts]
    return tuple(sum(bounds) for bounds in zip(*found, strict=True))


def first_approximation(space: SearchSpace, decisions, *, io: bool = True) -> np.ndarray:
    """int32[n, n] upper bounds: the first approximation of networkx, labels ignored, which the
    paper reports as edit distance.

    It matches nodes before it looks at edges, and without labels all matches of nodes cost the
    same. Nodes are therefore matched by position alone, and two graphs of one size differ by |E1| +
    |E2| - 2 |edges in common by position|. It is not symmetric for graphs of two sizes (each pair
    is computed once, the earlier architecture first). On random cells of 12 nodes it is about three
    times the exact distance without labels, and one and a half times the one with labels.

    Args:
      space: the space of the decisions.
      decisions: [n, T].
      io: whether the graphs have input and output nodes.

    Raises:
      UserError: invalid decisions.
    """
    parts = space.graphs(space.validate(decisions), io=io)
    return sum(_first_approximation(*graphs) for graphs in parts)


def _first_approximation(adjacency, labels):
    sizes = (labels != ABSENT).sum(axis=1)
    groups = {size: np.flatnonzero(sizes == size) for size in np.unique(sizes)}
    compact = {
        size: np.array(
            [adjacency[i][np.ix_(*[labels[i] != ABSENT] * 2)] for i in group], np.float32
        )
        for size, group in groups.items()
    }
    result = np.zeros((len(labels), len(labels)), np.int32)
    for (m, rows), (n, columns) in itertools.product(groups.items(), repeat=2):
        of_first, of_second = _matched_nodes(m, n)
        first, second = compact[m], compact[n]
        common = np.einsum(
            "iab,jab->ij",
            first[:, of_first[:, None], of_first[None]],
            second[:, of_second[:, None], of_second[None]],
            optimize=True,
        )
        edges = first.sum(axis=(1, 2))[:, None] + second.sum(axis=(1, 2))[None]
        result[np.ix_(rows, columns)] = np.rint(abs(m - n) + edges - 2 * common)
    upper = np.triu(result, 1)
    return upper + upper.T


def _matched_nodes(m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of m nodes networkx matches with which of n when all matches are free and an unmatched
    node costs 1.
    """
    never = m + n + 1
    cost = np.zeros((m + n, m + n))
    cost[:m, n:] = np.where(np.eye(m) > 0, 1, never)
    cost[m:, :n] = np.where(np.eye(n) > 0, 1, never)
    rows, columns = linear_sum_assignment(cost)
    matched = (rows < m) & (columns < n)
    return rows[matched], columns[matched]


def pack_decisions(
    space: SearchSpace,
    decisions,
    *,
    labelled: bool = True,
    io: bool = True,
    forced: bool = True,
    max_nodes: int = MAX_NODES,
) -> tuple[PackedGraphs, ...]:
    """The graphs of decisions [n, T], packed, one element per part.

    Args, Raises: as for `pairwise_edit_distance`.
    """
    return tuple(
        pack(
            graphs,
            space.label_names,
            labelled=labelled,
            forced=space.io_labels if forced else (),
            acyclic=True,
            max_nodes=max_nodes,
        )
        for graphs in space.graphs(space.validate(decisions), io=io)
    )
