"""Graphs packed for the edit distance: checked, padded with dummies, sets of nodes as bits. From
arrays or from networkx.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np

from nas.errors import UserError
from nas.evaluation.edit_distance.search import cost_dtype, find_twins
from nas.spaces import Graphs
from nas.spaces.space import ABSENT, MAX_NODES

MAX_NODES_BOUNDS = 64  # most nodes for bounds: sets of nodes are bits of an int64


class PackedGraphs(NamedTuple):
    """Graphs ready to be compared: nodes first, then dummies up to M = the largest number of nodes.
    Sets of nodes are bits.
    """

    sizes: np.ndarray  # [n] int64
    successors: np.ndarray  # [n, M] int64
    predecessors: np.ndarray  # [n, M] int64
    # [n, M] int64; nodes of lower index that an automorphism swaps with this one, all others fixed
    twins: np.ndarray
    # [n, 16] int16, or [n, 64] int32 with more than 16 nodes; forced labels first, dummies last
    labels: np.ndarray
    num_forced: int  # number of forced labels
    step: int  # distances that a pair can have differ by multiples of this


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
      UserError: names the first graph that has too many nodes, an unknown label, a self-loop, an
        edge at a row that holds no node, a cycle where there must be none, no node with a forced
        label, or not as many as graph 0.
    """
    adjacency, labels = np.asarray(graphs.adjacency, bool), np.asarray(graphs.labels)
    present = labels != ABSENT
    sizes = present.sum(axis=1)
    _check(adjacency, labels, present, sizes, label_names, max_nodes, acyclic)
    _check_forced(labels, label_names, forced)

    order = np.argsort(~present, axis=1, kind="stable")[:, : sizes.max(initial=0)]
    adjacency = np.take_along_axis(
        np.take_along_axis(adjacency, order[:, :, None], 1), order[:, None, :], 2
    )
    labels = np.take_along_axis(labels, order, 1)
    n, num_nodes = labels.shape
    dummy = len(forced) + len(label_names)
    new_ids = np.arange(len(forced), dummy) if labelled else np.full(len(label_names), len(forced))
    for new_id, name in enumerate(forced):
        new_ids[label_names.index(name)] = new_id
    new_ids = np.append(new_ids, dummy)  # found at index ABSENT
    in_use = np.unique(new_ids[labels])
    token = token_for(num_nodes)
    if dummy > (most := np.iinfo(cost_dtype(token)).max):
        raise UserError(f"{dummy:,} labels, at most {most:,} can be told apart")
    lanes = np.full((n, 8 * token.itemsize), dummy, cost_dtype(token))
    lanes[:, :num_nodes] = new_ids[labels]

    successors, predecessors, twins = (np.zeros((n, num_nodes), np.int64) for _ in range(3))
    for node in range(num_nodes):
        successors |= adjacency[:, :, node].astype(np.int64) << node
        predecessors |= adjacency[:, node, :].astype(np.int64) << node
    find_twins(successors, predecessors, lanes, twins)
    # With one label the number of mismatches is fixed, and each further common edge saves two.
    step = 2 if np.sum((in_use >= len(forced)) & (in_use < dummy)) <= 1 else 1
    return PackedGraphs(sizes, successors, predecessors, twins, lanes, len(forced), step)


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
        raise UserError(
            "forced nodes are found by their label: name the node attribute that holds it"
        )
    label_ids: dict[Hashable, int] = {}
    for index, graph in enumerate(graphs):
        if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
            raise UserError(
                f"graph {index}: must be a networkx.DiGraph, got {type(graph).__name__}"
            )
        _check_size(index, len(graph), max_nodes)
        for node, attributes in graph.nodes.items():
            if label is None:
                label_ids.setdefault(None, 0)
                continue
            if label not in attributes:
                raise UserError(
                    f"graph {index}: node {node!r} has no attribute {label!r} to hold its label"
                )
            try:
                label_ids.setdefault(attributes[label], len(label_ids))
            except TypeError:
                raise UserError(
                    f"graph {index}: the label of node {node!r} is not hashable"
                ) from None
    most = max((len(graph) for graph in graphs), default=0)
    adjacency = np.zeros((len(graphs), most, most), bool)
    labels = np.full((len(graphs), most), ABSENT, np.int32)
    for index, graph in enumerate(graphs):
        position = {node: i for i, node in enumerate(graph)}
        for node, attributes in graph.nodes.items():
            labels[index, position[node]] = label_ids[None if label is None else attributes[label]]
        for source, target in graph.edges:
            adjacency[index, position[source], position[target]] = True
    return pack(
        Graphs(adjacency, labels),
        tuple(label_ids),
        forced=forced,
        acyclic=acyclic,
        max_nodes=max_nodes,
    )


def refined_colours(packed: PackedGraphs) -> np.ndarray:
    """uint64[n]: equal for isomorphic graphs, and for few others. A node's colour depends on those
    of its neighbours, on those of their neighbours, and so on.
    """
    num_nodes = packed.successors.shape[1]
    colours = _mix(packed.labels[:, :num_nodes].astype(np.uint64))
    for _ in range(num_nodes):
        after, before = np.zeros_like(colours), np.zeros_like(colours)
        as_successor, as_predecessor = _mix(colours + np.uint64(1)), _mix(colours + np.uint64(2))
        for node in range(num_nodes):
            after += ((packed.successors >> node) & 1).astype(np.uint64) * as_successor[
                :, node, None
            ]
            before += ((packed.predecessors >> node) & 1).astype(np.uint64) * as_predecessor[
                :, node, None
            ]
        colours = _mix(_mix(colours + after) + before)
    return _mix(colours).sum(axis=1)


def token_for(num_nodes: int) -> np.unsignedinteger:
    """The `token` of the search for graphs of up to this many nodes."""
    return np.uint16(0) if num_nodes <= 16 else np.uint64(0)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scatters uint64 values (the finaliser of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _check_size(index, size, max_nodes):
    if size > max_nodes:
        hint = (
            f"; edit_distance_bounds takes up to {MAX_NODES_BOUNDS}"
            if max_nodes < MAX_NODES_BOUNDS
            else ""
        )
        raise UserError(f"graph {index}: {size} nodes, at most {max_nodes} can be compared{hint}")


def _check(adjacency, labels, present, sizes, label_names, max_nodes, acyclic):
    for index in np.flatnonzero(sizes > max_nodes)[:1]:
        _check_size(index, sizes[index], max_nodes)
    for index, node in np.argwhere((labels < ABSENT) | (labels >= len(label_names)))[:1]:
        raise UserError(
            f"graph {index}: node {node} has unknown label {labels[index, node]}; there are "
            f"{len(label_names)} labels"
        )
    for index, node in np.argwhere(np.diagonal(adjacency, axis1=1, axis2=2))[:1]:
        raise UserError(f"graph {index}: node {node} has a self-loop")
    for index, source, target in np.argwhere(
        adjacency & ~(present[:, :, None] & present[:, None, :])
    )[:1]:
        raise UserError(
            f"graph {index}: an edge from {source} to {target}, but one of them is no node"
        )
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
                f"graph {index}: {counts[index]} nodes have the forced label {name!r}, in graph 0 "
                f"{counts[0]} have it"
            )
