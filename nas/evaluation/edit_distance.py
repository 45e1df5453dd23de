"""Exact graph edit distance of small labelled directed graphs, for every pair of a thousand architectures.

Unit costs: 1 for substituting a node whose label differs, 1 for inserting or deleting a node or an edge; edges have no labels.
`_edit_distance_search` has the method. Every distance is exact: the search has no time-out. Larger graphs get bounds instead.

Isomorphic architectures are compared once. Graphs with the same colour refinement (Weisfeiler and Leman 1968), which isomorphic
graphs always have, are merged if the search finds the distance 0 between them.
"""

import os
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
from tqdm import tqdm

from nas.errors import UserError
from nas.evaluation._edit_distance_search import Workspace, cost_dtype, find_twins, make_workspace, search_pairs
from nas.spaces import Graphs, SearchSpace
from nas.spaces.space import ABSENT

MAX_NODES = 16  # of exact distances
MAX_NODES_BOUNDS = 64  # of bounds: sets of nodes are bits of an int64
MAX_APPROXIMATED = 100  # architectures that networkx can be asked to compare
IO_LABELS = ("input", "output")  # what `forced=True` matches to its counterpart

_BLOCK = 256  # pairs given to a thread at a time: milliseconds for cells
_UNLIMITED = 1 << 62


class PackedGraphs(NamedTuple):
    """Graphs ready to be compared: nodes first, then dummies up to M = the largest number of nodes. Sets of nodes are bits."""

    sizes: np.ndarray  # [n] int64
    successors: np.ndarray  # [n, M] int64
    predecessors: np.ndarray  # [n, M] int64
    twins: np.ndarray  # [n, M] int64; nodes of lower index that an automorphism swaps with this one, all others fixed
    labels: np.ndarray  # [n, 16] int16, or [n, 64] int32 with more than 16 nodes; forced labels first, dummies last
    num_forced: int  # number of forced labels
    step: int  # distances of a pair are a multiple of this apart


class Comparison(NamedTuple):
    """What the search found out about some pairs."""

    lower: np.ndarray  # [k] int32
    upper: np.ndarray  # [k] int32; the distance where it equals `lower`
    searched: np.ndarray  # [k] int64; search nodes


def edit_distance(a: nx.DiGraph, b: nx.DiGraph, *, label: Hashable | None = "label", forced: Sequence[Hashable] = ()) -> int:
    """Exact edit distance of two graphs of at most 16 nodes, cyclic or not, in any order of their nodes.

    Args:
      a, b: directed graphs without self-loops or parallel edges.
      label: the node attribute that holds the label; None ignores labels.
      forced: labels whose nodes may only be matched to each other, such as ("input", "output").

    Raises:
      UserError: not such a graph, a node without label, or forced nodes that are absent or differ in number; names the graph (0 or 1).
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
    """Lower and upper bound on the edit distance of two graphs of at most 64 nodes; equal bounds are the distance.

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
    progress: bool = True,
    threads: int = 0,
) -> np.ndarray:
    """int32[n, n] exact edit distances between all architectures; 4 n^2 bytes, whatever the number of threads gives the same.

    The primary definition is the default: labelled graphs with input and output nodes, each matched to its counterpart.

    Args:
      space: what the decisions mean.
      decisions: [n, T].
      labelled: whether a differing label costs 1; without, all labels but the forced ones are the same.
      io: whether the graphs have input and output nodes.
      forced: whether these may only be matched to each other; needs `io`.
      progress: whether to show a progress bar.
      threads: 0 uses all cores.

    Raises:
      UserError: invalid decisions; a graph with more than 16 nodes, a cycle, an unknown label or without the forced nodes.
    """
    packed = pack_decisions(space, decisions, labelled=labelled, io=io, forced=forced)
    return _all_pairs(packed, None, progress, threads, keep_lower=False)[1]


def pairwise_edit_distance_bounds(
    space: SearchSpace,
    decisions,
    *,
    labelled: bool = True,
    io: bool = True,
    forced: bool = True,
    limit: int = 10_000,
    progress: bool = True,
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds int32[n, n] for graphs of up to 64 nodes. Whoever prints them counts the pairs left open (lower < upper).

    Args:
      limit: search nodes after which a pair is left open.
      space, decisions, labelled, io, forced, progress, threads: as for `pairwise_edit_distance`.

    Raises:
      UserError: as `pairwise_edit_distance`, from 65 nodes on.
    """
    packed = pack_decisions(space, decisions, labelled=labelled, io=io, forced=forced, max_nodes=MAX_NODES_BOUNDS)
    return _all_pairs(packed, limit, progress, threads, keep_lower=True)


def first_approximation(space: SearchSpace, decisions, *, io: bool = True, progress: bool = True) -> np.ndarray:
    """int32[n, n] upper bounds: the first approximation of networkx, labels ignored, which the paper reports as edit distance.

    It depends on the order of the nodes, is not symmetric (each pair is computed once, the earlier architecture first), and is 40
    to 120 % too large at 12 nodes.

    Args:
      space: what the decisions mean.
      decisions: [n, T], n at most 100.
      io: whether the graphs have input and output nodes.
      progress: whether to show a progress bar.

    Raises:
      UserError: invalid decisions or too many.
    """
    decisions = space.validate(decisions)
    n = len(decisions)
    if n > MAX_APPROXIMATED:
        raise UserError(f"the first approximation of networkx is slow: at most {MAX_APPROXIMATED} architectures, got {n}")
    graphs = [space.to_graph(row, io=io) for row in decisions]
    result = np.zeros((n, n), np.int32)
    with tqdm(total=n * (n - 1) // 2, desc="first approximation", unit="pair", disable=not progress) as bar:
        for i in range(n):
            for j in range(i + 1, n):
                result[i, j] = result[j, i] = next(nx.optimize_graph_edit_distance(graphs[i], graphs[j]))
                bar.update()
    return result


def pack_decisions(
    space: SearchSpace,
    decisions,
    *,
    labelled: bool = True,
    io: bool = True,
    forced: bool = True,
    max_nodes: int = MAX_NODES,
) -> PackedGraphs:
    """Packs the graphs of decisions [n, T]; arguments and errors as for `pairwise_edit_distance`."""
    graphs = space.graphs(space.validate(decisions), io=io)
    labels = IO_LABELS if forced else ()
    return pack(graphs, space.label_names, labelled=labelled, forced=labels, acyclic=True, max_nodes=max_nodes)


def pack_networkx(
    graphs: Sequence[nx.DiGraph],
    *,
    label: Hashable | None = "label",
    forced: Sequence[Hashable] = (),
    acyclic: bool = False,
    max_nodes: int = MAX_NODES,
) -> PackedGraphs:
    """Packs networkx graphs; arguments and errors as for `edit_distance` and `pack`."""
    if label is None and forced:
        raise UserError("forced nodes are found by their label: name the node attribute that holds it")
    label_ids: dict[Hashable, int] = {}
    for index, graph in enumerate(graphs):
        if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
            raise UserError(f"graph {index}: must be a networkx.DiGraph, got {type(graph).__name__}")
        _check_size(index, len(graph), max_nodes)
        for node, attributes in graph.nodes.items():
            if label is None:
                label_ids.setdefault(None, 0)
                continue
            if label not in attributes:
                raise UserError(f"graph {index}: node {node!r} has no attribute {label!r} to hold its label")
            try:
                label_ids.setdefault(attributes[label], len(label_ids))
            except TypeError:
                raise UserError(f"graph {index}: the label of node {node!r} is not hashable") from None
    most = max((len(graph) for graph in graphs), default=0)
    adjacency = np.zeros((len(graphs), most, most), bool)
    labels = np.full((len(graphs), most), ABSENT, np.int32)
    for index, graph in enumerate(graphs):
        position = {node: i for i, node in enumerate(graph)}
        for node, attributes in graph.nodes.items():
            labels[index, position[node]] = label_ids[None if label is None else attributes[label]]
        for source, target in graph.edges:
            adjacency[index, position[source], position[target]] = True
    return pack(Graphs(adjacency, labels), tuple(label_ids), forced=forced, acyclic=acyclic, max_nodes=max_nodes)


def pack(
    graphs: Graphs,
    label_names: Sequence[Hashable],
    *,
    labelled: bool = True,
    forced: Sequence[Hashable] = (),
    acyclic: bool = False,
    max_nodes: int = MAX_NODES,
) -> PackedGraphs:
    """Checks and packs n graphs in one vectorised step.

    Args:
      graphs: adjacency [n, M, M] and labels [n, M].
      label_names: names of the labels; label i is label_names[i].
      labelled: whether labels other than the forced ones count.
      forced: names of labels whose nodes may only be matched to each other.
      acyclic: whether the graphs must be acyclic.
      max_nodes: the largest number of nodes allowed.

    Raises:
      UserError: names the first graph that has too many nodes, an unknown label, a self-loop, an edge at a row that holds no node,
        a cycle where there must be none, no node with a forced label, or not as many as graph 0.
    """
    adjacency, labels = np.asarray(graphs.adjacency, bool), np.asarray(graphs.labels)
    present = labels != ABSENT
    sizes = present.sum(axis=1)
    _check(adjacency, labels, present, sizes, label_names, max_nodes, acyclic)
    _check_forced(labels, label_names, forced)

    order = np.argsort(~present, axis=1, kind="stable")[:, : sizes.max(initial=0)]
    adjacency = np.take_along_axis(np.take_along_axis(adjacency, order[:, :, None], 1), order[:, None, :], 2)
    labels = np.take_along_axis(labels, order, 1)
    n, num_nodes = labels.shape
    dummy = len(forced) + len(label_names)
    new_ids = np.arange(len(forced), dummy) if labelled else np.full(len(label_names), len(forced))
    for new_id, name in enumerate(forced):
        new_ids[label_names.index(name)] = new_id
    new_ids = np.append(new_ids, dummy)  # found at index ABSENT
    in_use = np.unique(new_ids[labels])
    token = _token(num_nodes)
    lanes = np.full((n, 8 * token.itemsize), dummy, cost_dtype(token))
    lanes[:, :num_nodes] = new_ids[labels]

    successors, predecessors, twins = (np.zeros((n, num_nodes), np.int64) for _ in range(3))
    for node in range(num_nodes):
        successors |= adjacency[:, :, node].astype(np.int64) << node
        predecessors |= adjacency[:, node, :].astype(np.int64) << node
    find_twins(successors, predecessors, lanes, twins)
    # With one label the number of mismatches is fixed, and a common edge more saves two.
    step = 2 if np.sum((in_use >= len(forced)) & (in_use < dummy)) <= 1 else 1
    return PackedGraphs(sizes, successors, predecessors, twins, lanes, len(forced), step)


def compare(
    packed: PackedGraphs,
    first: np.ndarray,
    second: np.ndarray,
    *,
    limit: int | None = None,
    threads: int = 0,
    progress: bool = False,
) -> Comparison:
    """Compares graphs first[k] and second[k] for every k.

    Args:
      packed: the graphs.
      first, second: [k] indices of graphs.
      limit: search nodes after which a pair is left open; None never leaves one open.
      threads: 0 uses all cores.
      progress: whether to show a progress bar.
    """
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    found = Comparison(np.zeros(len(first), np.int32), np.zeros(len(first), np.int32), np.zeros(len(first), np.int64))

    def search_block(search, block):
        search(first[block], second[block], *(part[block] for part in found))

    _search_blocks(packed, len(first), search_block, limit, threads, progress)
    return found


def _check_size(index, size, max_nodes):
    if size > max_nodes:
        hint = f"; edit_distance_bounds takes up to {MAX_NODES_BOUNDS}" if max_nodes < MAX_NODES_BOUNDS else ""
        raise UserError(f"graph {index}: {size} nodes, at most {max_nodes} can be compared{hint}")


def _check(adjacency, labels, present, sizes, label_names, max_nodes, acyclic):
    for index in np.flatnonzero(sizes > max_nodes)[:1]:
        _check_size(index, sizes[index], max_nodes)
    for index, node in np.argwhere((labels < ABSENT) | (labels >= len(label_names)))[:1]:
        raise UserError(f"graph {index}: node {node} has label {labels[index, node]}, unknown: there are {len(label_names)}")
    for index, node in np.argwhere(np.diagonal(adjacency, axis1=1, axis2=2))[:1]:
        raise UserError(f"graph {index}: node {node} has a self-loop")
    for index, source, target in np.argwhere(adjacency & ~(present[:, :, None] & present[:, None, :]))[:1]:
        raise UserError(f"graph {index}: an edge from {source} to {target}, but one of them is no node")
    if acyclic:
        remaining = present.copy()
        for _ in range(sizes.max(initial=0)):  # nodes that no remaining node precedes are removed
            remaining &= (adjacency & remaining[:, :, None]).any(axis=1)
        for index in np.flatnonzero(remaining.any(axis=1))[:1]:
            raise UserError(f"graph {index}: has a cycle, and must be acyclic")


def _check_forced(labels, label_names, forced):
    for name in forced:
        if name not in label_names:
            raise UserError(f"graph 0: no node has the forced label {name!r}")
        counts = (labels == label_names.index(name)).sum(axis=1)
        for index in np.flatnonzero(counts == 0)[:1]:
            raise UserError(f"graph {index}: no node has the forced label {name!r}")
        for index in np.flatnonzero(counts != counts[:1])[:1]:
            raise UserError(
                f"graph {index}: {counts[index]} nodes have the forced label {name!r}, in graph 0 {counts[0]} have it"
            )


def _all_pairs(packed, limit, progress, threads, keep_lower):
    """Lower and upper bounds int32[n, n]; the same array unless `keep_lower`."""
    n = len(packed.sizes)
    upper = np.zeros((n, n), np.int32)
    lower = np.zeros((n, n), np.int32) if keep_lower else upper
    representatives = _first_isomorphic(packed, limit, threads)
    distinct = np.unique(representatives)
    # Pairs are numbered row by row through the upper triangle; `row_starts` has the number of the first pair of each row.
    lengths = np.arange(len(distinct) - 1, -1, -1)
    row_starts = np.cumsum(lengths) - lengths

    def search_block(search, block):
        pairs = np.arange(block.start, block.stop)
        rows = np.searchsorted(row_starts, pairs, side="right") - 1
        columns = rows + 1 + pairs - row_starts[rows]
        found = Comparison(np.zeros(len(pairs), np.int32), np.zeros(len(pairs), np.int32), np.zeros(len(pairs), np.int64))
        i, j = distinct[rows], distinct[columns]
        search(i, j, *found)
        lower[i, j] = lower[j, i] = found.lower
        upper[i, j] = upper[j, i] = found.upper

    _search_blocks(packed, lengths.sum(), search_block, limit, threads, progress)
    for matrix in (lower, upper) if keep_lower else (upper,):
        for i in distinct:
            matrix[i] = matrix[i, representatives]
        for i in np.flatnonzero(representatives != np.arange(n)):
            matrix[i] = matrix[representatives[i]]
    return lower, upper


def _first_isomorphic(packed: PackedGraphs, limit: int | None, threads: int) -> np.ndarray:
    """int[n]: for each graph the first one that is isomorphic to it, possibly itself."""
    keys = _refined_colours(packed)
    representatives = np.arange(len(keys))
    pending = representatives
    while len(pending):
        _, leaders, groups = np.unique(keys[pending], return_index=True, return_inverse=True)
        leaders = pending[leaders][groups]
        others = leaders != pending
        leaders, pending = leaders[others], pending[others]
        isomorphic = compare(packed, leaders, pending, limit=limit, threads=threads).upper == 0
        representatives[pending[isomorphic]] = leaders[isomorphic]
        pending = pending[~isomorphic]
    return representatives


def _refined_colours(packed: PackedGraphs) -> np.ndarray:
    """uint64[n]: equal for isomorphic graphs, and for few others. A node's colour takes in its neighbours' until it has seen all."""
    num_nodes = packed.successors.shape[1]
    colours = _mix(packed.labels[:, :num_nodes].astype(np.uint64))
    for _ in range(num_nodes):
        after, before = np.zeros_like(colours), np.zeros_like(colours)
        as_successor, as_predecessor = _mix(colours + np.uint64(1)), _mix(colours + np.uint64(2))
        for node in range(num_nodes):
            after += ((packed.successors >> node) & 1).astype(np.uint64) * as_successor[:, node, None]
            before += ((packed.predecessors >> node) & 1).astype(np.uint64) * as_predecessor[:, node, None]
        colours = _mix(_mix(colours + after) + before)
    return _mix(colours).sum(axis=1)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scatters uint64 values (the finaliser of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _token(num_nodes: int) -> np.unsignedinteger:
    return np.uint16(0) if num_nodes <= 16 else np.uint64(0)


def _search_blocks(
    packed: PackedGraphs,
    num_pairs: int,
    search_block: Callable[[Callable, slice], None],
    limit: int | None,
    threads: int,
    progress: bool,
) -> None:
    """Calls search_block(search, block) for slices that cover all pairs, on several threads that are stopped with the caller.

    `search(first, second, lower, upper, searched)` is `search_pairs` with the thread's own workspace; it runs without the global
    interpreter lock.
    """
    if limit is not None and limit < 1:
        raise UserError(f"the limit of search nodes must be at least 1, got {limit}")
    num_nodes = packed.successors.shape[1]
    token = _token(num_nodes)
    max_searched = _UNLIMITED if limit is None else limit
    interrupt = np.zeros(1, np.int64)
    starts = iter(range(0, num_pairs, _BLOCK))  # shared by the threads: each start goes to one of them
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

    count = min(threads or _num_cores(), -(-num_pairs // _BLOCK))
    workers = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    with tqdm(total=num_pairs, desc="edit distance", unit="pair", disable=not progress) as bar:
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
                bar.update(outcome)
        finally:
            interrupt[0] = 1
            for worker in workers:
                if worker.ident is not None:
                    worker.join()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
