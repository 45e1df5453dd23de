"""Exact graph edit distance of small labelled directed graphs, for every pair of a thousand
architectures.

Unit costs: 1 for substituting a node whose label differs, 1 for inserting or deleting a node or an
edge; edges have no labels. `_edit_distance_search` has the method. Every distance is exact: the
search has no time-out. Larger graphs get bounds instead.

Isomorphic architectures are compared once. Graphs with the same colour refinement (Weisfeiler and
Leman 1968), which isomorphic graphs always have, are merged if the search finds the distance 0
between them.
"""

import itertools
import os
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
from scipy.optimize import linear_sum_assignment

from nas import progress
from nas.errors import UserError
from nas.evaluation._edit_distance_graphs import (
    MAX_NODES,
    MAX_NODES_BOUNDS,
    PackedGraphs,
    pack,
    pack_networkx,
    refined_colours,
    token_for,
)
from nas.evaluation._edit_distance_search import Workspace, make_workspace, search_pairs
from nas.spaces import SearchSpace
from nas.spaces.space import ABSENT

__all__ = [
    "MAX_NODES",
    "MAX_NODES_BOUNDS",
    "Comparison",
    "PackedGraphs",
    "available_cores",
    "compare",
    "edit_distance",
    "edit_distance_bounds",
    "first_approximation",
    "pack",
    "pack_decisions",
    "pack_networkx",
    "pairwise_edit_distance",
    "pairwise_edit_distance_bounds",
]

IO_LABELS = ("input", "output")  # what `forced=True` matches to its counterpart

_BLOCK = 256  # pairs given to a thread at a time: milliseconds for cells
_UNLIMITED = 1 << 62


class Comparison(NamedTuple):
    """What the search found out about some pairs."""

    lower: np.ndarray  # [k] int32
    upper: np.ndarray  # [k] int32; the distance where it equals `lower`
    searched: np.ndarray  # [k] int64; search nodes


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
    """int32[n, n] exact edit distances between all architectures.

    The primary definition is the default: labelled graphs with input and output nodes, each matched
    to its counterpart. Needs no memory that grows with the number of pairs but the result. The
    number of threads does not change it.

    Args:
      space: what the decisions mean.
      decisions: [n, T].
      labelled: whether a differing label costs 1; without, all labels but the forced ones are the
        same.
      io: whether the graphs have input and output nodes.
      forced: whether these may only be matched to each other; needs `io`.
      threads: 0 uses all cores.

    Raises:
      UserError: invalid decisions; a graph with more than 16 nodes, a cycle, an unknown label or
        without the forced nodes.
    """
    packed = pack_decisions(space, decisions, labelled=labelled, io=io, forced=forced)
    return _all_pairs(packed, None, threads, keep_lower=False)[1]


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

    Whoever prints them counts the pairs left open: those with lower < upper.

    Args:
      limit: search nodes after which a pair is left open.
      space, decisions, labelled, io, forced, threads: as for `pairwise_edit_distance`.

    Raises:
      UserError: as `pairwise_edit_distance`, from 65 nodes on.
    """
    packed = pack_decisions(
        space, decisions, labelled=labelled, io=io, forced=forced, max_nodes=MAX_NODES_BOUNDS
    )
    return _all_pairs(packed, limit, threads, keep_lower=True)


def first_approximation(space: SearchSpace, decisions, *, io: bool = True) -> np.ndarray:
    """int32[n, n] upper bounds: the first approximation of networkx, labels ignored, which the
    paper reports as edit distance.

    It matches nodes before it looks at edges, and without labels all matches of nodes cost the
    same: nodes are matched by where they stand alone, so that two graphs of one size differ by |E1|
    + |E2| - 2 |edges in common by position|. It is not symmetric for two sizes (each pair is
    computed once, the earlier architecture first). On random cells of 12 nodes it is about three
    times the exact distance without labels, half as much again as the one with.

    Args:
      space: what the decisions mean.
      decisions: [n, T].
      io: whether the graphs have input and output nodes.

    Raises:
      UserError: invalid decisions.
    """
    adjacency, labels = space.graphs(space.validate(decisions), io=io)
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
) -> PackedGraphs:
    """Packs the graphs of decisions [n, T]; arguments and errors as for
    `pairwise_edit_distance`.
    """
    graphs = space.graphs(space.validate(decisions), io=io)
    labels = IO_LABELS if forced else ()
    return pack(
        graphs,
        space.label_names,
        labelled=labelled,
        forced=labels,
        acyclic=True,
        max_nodes=max_nodes,
    )


def compare(
    packed: PackedGraphs,
    first: np.ndarray,
    second: np.ndarray,
    *,
    limit: int | None = None,
    threads: int = 0,
) -> Comparison:
    """Compares graphs first[k] and second[k] for every k.

    Args:
      packed: the graphs.
      first, second: [k] indices of graphs.
      limit: search nodes after which a pair is left open; None never leaves one open.
      threads: 0 uses all cores.

    Raises:
      UserError: an index of no graph, or a different number of them.
    """
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    n = len(packed.sizes)
    if (
        first.shape != second.shape
        or first.ndim != 1
        or np.any((first < 0) | (first >= n) | (second < 0) | (second >= n))
    ):
        raise UserError(
            f"first and second must be two vectors of the same number of indices in 0..{n - 1}"
        )
    found = Comparison(
        np.zeros(len(first), np.int32),
        np.zeros(len(first), np.int32),
        np.zeros(len(first), np.int64),
    )

    def search_block(search, block):
        search(first[block], second[block], *(part[block] for part in found))

    _search_blocks(packed, len(first), search_block, limit, threads)
    return found


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _all_pairs(packed, limit, threads, keep_lower):
    """Lower and upper bounds int32[n, n]; the same array unless `keep_lower`."""
    n = len(packed.sizes)
    upper = np.zeros((n, n), np.int32)
    lower = np.zeros((n, n), np.int32) if keep_lower else upper
    representatives = _first_isomorphic(packed, limit, threads)
    distinct = np.unique(representatives)
    # Pairs are numbered row by row through the upper triangle; `row_starts` has the number of the
    # first pair of each row.
    lengths = np.arange(len(distinct) - 1, -1, -1)
    row_starts = np.cumsum(lengths) - lengths

    def search_block(search, block):
        pairs = np.arange(block.start, block.stop)
        rows = np.searchsorted(row_starts, pairs, side="right") - 1
        columns = rows + 1 + pairs - row_starts[rows]
        found = Comparison(
            np.zeros(len(pairs), np.int32),
            np.zeros(len(pairs), np.int32),
            np.zeros(len(pairs), np.int64),
        )
        i, j = distinct[rows], distinct[columns]
        search(i, j, *found)
        lower[i, j] = lower[j, i] = found.lower
        upper[i, j] = upper[j, i] = found.upper

    _search_blocks(packed, lengths.sum(), search_block, limit, threads)
    for matrix in (lower, upper) if keep_lower else (upper,):
        for i in distinct:
            matrix[i] = matrix[i, representatives]
        for i in np.flatnonzero(representatives != np.arange(n)):
            matrix[i] = matrix[representatives[i]]
    return lower, upper


def _first_isomorphic(packed: PackedGraphs, limit: int | None, threads: int) -> np.ndarray:
    """int[n]: for each graph the first one that is isomorphic to it, possibly itself."""
    keys = refined_colours(packed)
    representatives, pending = np.arange(len(keys)), np.arange(len(keys))
    while len(pending):
        _, leaders, groups = np.unique(keys[pending], return_index=True, return_inverse=True)
        leaders = pending[leaders][groups]
        others = leaders != pending
        leaders, pending = leaders[others], pending[others]
        isomorphic = compare(packed, leaders, pending, limit=limit, threads=threads).upper == 0
        representatives[pending[isomorphic]] = leaders[isomorphic]
        pending = pending[~isomorphic]
    return representatives


def _search_blocks(
    packed: PackedGraphs,
    num_pairs: int,
    search_block: Callable[[Callable, slice], None],
    limit: int | None,
    threads: int,
) -> None:
    """Calls search_block(search, block) for slices that cover all pairs, on several threads that
    are stopped with the caller.

    `search(first, second, lower, upper, searched)` is `search_pairs` with the thread's own
    workspace; it runs without the global interpreter lock.
    """
    if limit is not None and limit < 1:
        raise UserError(f"the limit of search nodes must be at least 1, got {limit}")
    if threads < 0:
        raise UserError(f"the number of threads must be 0 (all cores) or more, got {threads}")
    num_nodes = packed.successors.shape[1]
    token = token_for(num_nodes)
    max_searched = _UNLIMITED if limit is None else limit
    interrupt = np.zeros(1, np.int64)
    starts = iter(
        range(0, num_pairs, _BLOCK)
    )  # shared by the threads: each start goes to one of them
    finished: queue.SimpleQueue = queue.SimpleQueue()

    def search_with(work: Workspace):
        def search(first, second, *results):
            search_pairs(token, work, packed, first, second, max_searched, interrupt, *results)

        return search

    def run():
        try:
            search = search_with(make_workspace(num_nodes, token))
            for start in starts:
                block = slice(start, min(start + _BLOCK, num_pairs))
                search_block(search, block)
                if interrupt[0]:
                    return
                finished.put(block.stop - block.start)
        except BaseException as error:  # raised again in the caller's thread
            finished.put(error)

    count = min(threads or available_cores(), -(-num_pairs // _BLOCK))
    workers = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    with progress.track("edit distance", total=num_pairs, unit="pair") as advance:
        nothing = np.zeros(0, np.int64)
        # Compiled here, not in a thread, so that it can be interrupted.
        search_with(make_workspace(num_nodes, token))(
            nothing, nothing, nothing.astype(np.int32), nothing.astype(np.int32), nothing
        )
        try:
            for worker in workers:
                worker.start()
            done = 0
            while done < num_pairs:
                outcome = finished.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                done += outcome
                advance(outcome)
        finally:
            interrupt[0] = 1
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
