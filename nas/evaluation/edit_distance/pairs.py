"""Compares many pairs of graphs: isomorphic graphs once, blocks of pairs in several threads."""

import os
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nas import progress
from nas.errors import UserError
from nas.evaluation.edit_distance.graphs import PackedGraphs, refined_colours, token_for
from nas.evaluation.edit_distance.search import Workspace, make_workspace, search_pairs

_BLOCK = 256  # pairs given to a thread at a time; those of cells take it milliseconds
_UNLIMITED = 1 << 62


class Comparison(NamedTuple):
    """What the search found out about some pairs."""

    lower: np.ndarray  # [k] int32
    upper: np.ndarray  # [k] int32; the distance where it equals `lower`
    searched: np.ndarray  # [k] int64; search nodes


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
      UserError: an index that is out of range, or vectors of different lengths.
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


def all_pairs(
    packed: PackedGraphs, limit: int | None, threads: int, *, keep_lower: bool
) -> tuple[np.ndarray, np.ndarray]:
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


def some_pairs(
    packed: PackedGraphs, first: np.ndarray, second: np.ndarray, threads: int
) -> np.ndarray:
    """int32[k] distances of graphs first[k] and second[k], which may repeat."""
    n, representatives = len(packed.sizes), _first_isomorphic(packed, None, threads)
    ends = np.sort([representatives[first], representatives[second]], axis=0)
    distinct, places = np.unique(ends[0] * n + ends[1], return_inverse=True)
    return compare(packed, distinct // n, distinct % n, threads=threads).upper[places]


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
    # Shared by the threads: each start goes to one of them.
    starts = iter(range(0, num_pairs, _BLOCK))
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
