"""The exact edit distance against independent computations and against what every distance must
satisfy.

Each test fails if the search charges an edge more than it costs, miscounts a label mismatch or
forgets the forced matches.
"""

import itertools

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from nas.evaluation.edit_distance import compare, edit_distance, pack
from nas.spaces import Graphs

FORCED = ("input", "output")
LABELS = ("tanh", "relu", "identity", "sigmoid", *FORCED)
NEVER = 1000


def random_graph(rng, nodes, density, labels=4):
    """Any directed graph without self-loops: (adjacency, label of each node)."""
    adjacency = rng.random((nodes, nodes)) < density
    np.fill_diagonal(adjacency, False)
    return adjacency, rng.integers(0, labels, nodes)


def cell(rng, nodes, chain=0.0):
    """A tree: every node but the first reads an earlier one; the one before it with probability
    `chain` or by chance.
    """
    adjacency = np.zeros((nodes, nodes), bool)
    for node in range(1, nodes):
        adjacency[node - 1 if rng.random() < chain else rng.integers(node), node] = True
    return adjacency, rng.integers(0, 4, nodes)


def layers(rng, nodes, skip):
    """A chain with random skip connections."""
    adjacency = np.triu(rng.random((nodes, nodes)) < skip, 1)
    adjacency[np.arange(nodes - 1), np.arange(1, nodes)] = True
    return adjacency, rng.integers(0, 4, nodes)


def with_io(graph):
    """Adds a node that feeds those that read nothing and a node that reads those that nothing
    reads.
    """
    adjacency, labels = graph
    bigger = np.pad(adjacency, 1)
    bigger[0, 1:-1] = ~adjacency.any(axis=0)
    bigger[1:-1, -1] = ~adjacency.any(axis=1)
    return bigger, np.concatenate([[LABELS.index("input")], labels, [LABELS.index("output")]])


def shuffled(rng, graph):
    adjacency, labels = graph
    order = rng.permutation(len(labels))
    return adjacency[np.ix_(order, order)], labels[order]


def packed(graphs, **settings):
    most = max(len(labels) for _, labels in graphs)
    adjacency = np.stack([np.pad(a, (0, most - len(a))) for a, _ in graphs])
    labels = np.stack(
        [np.pad(label, (0, most - len(label)), constant_values=-1) for _, label in graphs]
    )
    return pack(Graphs(adjacency, labels), LABELS, **settings)


def distances(graphs, first, second, **settings):
    """Distances of graphs first[k] and second[k]."""
    found = compare(packed(graphs, **settings), first, second)
    np.testing.assert_array_equal(found.lower, found.upper)
    return found.upper


def all_distances(graphs, **settings):
    """[n, n], each of the two directions computed."""
    i, j = (index.ravel() for index in np.indices((len(graphs), len(graphs))))
    return distances(graphs, i, j, **settings).reshape(len(graphs), len(graphs))


def padded(graph, nodes):
    """With dummies, labelled -1, up to a number of nodes."""
    adjacency, labels = graph
    missing = nodes - len(labels)
    return np.pad(adjacency, (0, missing)), np.pad(labels, (0, missing), constant_values=-1)


def substitution_costs(labels_a, labels_b, labelled, forced):
    """[nodes, nodes] cost of matching each pair of nodes."""
    ids = [LABELS.index(name) for name in forced]
    differ = labels_a[:, None] != labels_b
    never = differ & (np.isin(labels_a, ids)[:, None] | np.isin(labels_b, ids))
    one_is_dummy = (labels_a[:, None] == -1) != (labels_b == -1)
    return np.where(never, NEVER, differ if labelled else one_is_dummy)


def to_networkx(graph):
    adjacency, labels = graph
    result = nx.DiGraph(adjacency)
    nx.set_node_attributes(result, {i: LABELS[label] for i, label in enumerate(labels)}, "label")
    return result


def networkx_distance(a, b, labelled, forced):
    def substitution(x, y):
        if x["label"] == y["label"]:
            return 0
        return NEVER if x["label"] in forced or y["label"] in forced else int(labelled)

    def single(x):
        return NEVER if x["label"] in forced else 1

    return nx.graph_edit_distance(
        to_networkx(a),
        to_networkx(b),
        node_subst_cost=substitution,
        node_del_cost=single,
        node_ins_cost=single,
    )


def programmed_distance(a, b, labelled, forced):
    """Integer program F2 (Lerouge et al. 2017): pairs of nodes, and pairs of edges whose ends are
    paired.
    """
    nodes = max(len(a[1]), len(b[1]))
    (adjacency_a, labels_a), (adjacency_b, labels_b) = (padded(graph, nodes) for graph in (a, b))
    costs = substitution_costs(labels_a, labels_b, labelled, forced)
    edges_a, edges_b = np.argwhere(adjacency_a), np.argwhere(adjacency_b)
    num_pairs, num_edge_pairs = nodes * nodes, len(edges_a) * len(edges_b)
    objective = np.concatenate([costs.ravel(), np.full(num_edge_pairs, -2.0)])
    one_to_one = scipy.sparse.lil_array((2 * nodes, len(objective)))
    for u, v in itertools.product(range(nodes), repeat=2):
        one_to_one[u, u * nodes + v] = one_to_one[nodes + v, u * nodes + v] = 1
    constraints = [LinearConstraint(one_to_one.tocsr(), 1, 1)]
    # An edge has a counterpart among those that leave (enter) v only if its tail (head) is paired
    # with v.
    entries = []
    row = 0
    for (index, edge), end, v in itertools.product(enumerate(edges_a), (0, 1), range(nodes)):
        counterparts = np.flatnonzero(edges_b[:, end] == v)
        entries += [(row, num_pairs + index * len(edges_b) + other, 1) for other in counterparts]
        entries.append((row, edge[end] * nodes + v, -1))
        row += 1
    if entries:
        rows, columns, values = zip(*entries, strict=True)
        matrix = scipy.sparse.csr_array((values, (rows, columns)), shape=(row, len(objective)))
        constraints.append(LinearConstraint(matrix, -np.inf, 0))
    upper = np.concatenate([costs.ravel() < NEVER, np.ones(num_edge_pairs)])
    integrality = np.concatenate([np.ones(num_pairs), np.zeros(num_edge_pairs)])
    solution = milp(
        objective, constraints=constraints, integrality=integrality, bounds=Bounds(0, upper)
    )
    assert solution.status == 0
    return round(solution.fun) + len(edges_a) + len(edges_b)


def brute_force_distance(a, b, labelled, forced):
    """The cheapest of all bijections between the nodes of two graphs, padded to the same size."""
    nodes = max(len(a[1]), len(b[1]))
    (adjacency_a, labels_a), (adjacency_b, labels_b) = (padded(graph, nodes) for graph in (a, b))
    costs = substitution_costs(labels_a, labels_b, labelled, forced)
    return min(
        np.sum(costs[np.arange(nodes), list(p)]) + np.sum(adjacency_a != adjacency_b[np.ix_(p, p)])
        for p in itertools.permutations(range(nodes))
    )


def star(input_node):
    """Node 0 feeds four others; one of the five is the input."""
    adjacency = np.zeros((5, 5), bool)
    adjacency[0, 1:] = True
    labels = np.zeros(5, int)
    labels[input_node] = LABELS.index("input")
    return adjacency, labels


def assert_known(change=lambda graph: graph):
    """Distances known by hand, which `change` leaves as they are."""
    chain = cell(np.random.default_rng(0), 6, chain=1.0)
    relabelled = chain[0], np.append(chain[1][:-1], (chain[1][-1] + 1) % 4)
    stars = [star(input_node=0), star(input_node=1)]
    assert distances([change(chain), change(relabelled)], [0], [1]) == 1
    assert distances([change(s) for s in stars], [0], [1]) == 2  # two labels
    assert (
        distances([change(s) for s in stars], [0], [1], forced=("input",)) == 8
    )  # nothing reads the second input


@pytest.mark.parametrize(
    ("labelled", "forced"), [(True, ()), (False, ()), (True, FORCED), (False, FORCED)]
)
def test_equals_networkx(labelled, forced):
    rng = np.random.default_rng(0)
    free = [
        lambda: random_graph(rng, rng.integers(1, 7), rng.uniform(0.1, 0.5)),
        lambda: cell(rng, rng.integers(2, 7)),
        lambda: layers(rng, rng.integers(2, 6), 0.5),
    ]
    with_ends = [
        lambda: shuffled(rng, with_io(random_graph(rng, rng.integers(1, 5), 0.3))),
        lambda: with_io(cell(rng, rng.integers(2, 5))),
    ]
    graphs = [rng.choice(with_ends if forced else free)() for _ in range(400)]
    ours = distances(
        graphs, np.arange(0, 400, 2), np.arange(1, 400, 2), labelled=labelled, forced=forced
    )
    theirs = [
        networkx_distance(a, b, labelled, forced)
        for a, b in zip(graphs[::2], graphs[1::2], strict=True)
    ]
    np.testing.assert_array_equal(ours, theirs)
    assert_known()


PROGRAMMED = {
    "cells": lambda rng: cell(rng, rng.integers(12, 15)),
    "chain-like cells": lambda rng: cell(rng, rng.integers(12, 15), chain=0.8),
    "dense": lambda rng: layers(rng, 12, 0.4),
    "forced cells": lambda rng: with_io(cell(rng, 12)),
    "forced layers": lambda rng: with_io(layers(rng, rng.integers(10, 13), 0.3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROGRAMMED)
def test_equals_integer_program(kind):
    rng = np.random.default_rng(1)
    forced = FORCED if kind.startswith("forced") else ()
    for pair in range(12):
        a, b = PROGRAMMED[kind](rng), PROGRAMMED[kind](rng)
        labelled = pair % 3 < 2
        ours = distances([a, b], [0], [1], labelled=labelled, forced=forced)
        assert ours == programmed_distance(a, b, labelled, forced), (kind, pair)
    assert_known()


@pytest.mark.parametrize("forced", [(), FORCED])
def test_is_a_metric(forced):
    rng = np.random.default_rng(2)
    graphs = [with_io(cell(rng, rng.integers(4, 7))) for _ in range(40)]
    graphs += [with_io(random_graph(rng, rng.integers(4, 7), 0.3, labels=2)) for _ in range(40)]
    graphs += [with_io(layers(rng, rng.integers(4, 13), 0.4)) for _ in range(20)]
    graphs += [shuffled(rng, graphs[i]) for i in rng.choice(100, 20, replace=False)]
    distance = all_distances(graphs, forced=forced)
    np.testing.assert_array_equal(distance, distance.T)
    graphs = [to_networkx(graph) for graph in graphs]
    same = nx.algorithms.isomorphism.categorical_node_match("label", None)
    isomorphic = [[nx.is_isomorphic(a, b, node_match=same) for b in graphs] for a in graphs]
    np.testing.assert_array_equal(distance == 0, isomorphic)
    a, b, c = rng.integers(0, len(graphs), (3, 50_000))
    assert np.all(distance[a, c] <= distance[a, b] + distance[b, c])
    assert_known()


@pytest.mark.parametrize("labelled", [True, False])
def test_does_not_depend_on_the_order_of_nodes_or_on_the_names_of_labels(labelled):
    rng = np.random.default_rng(3)
    graphs = [with_io(cell(rng, 12, chain=rng.choice([0, 0.8]))) for _ in range(30)]
    graphs += [with_io(layers(rng, rng.integers(9, 12), 0.4)) for _ in range(10)]
    first, second = np.triu_indices(len(graphs), 1)
    for forced in ((), FORCED):
        settings = {"labelled": labelled, "forced": forced}
        expected = distances(graphs, first, second, **settings)
        reordered = [shuffled(rng, graph) for graph in graphs]
        np.testing.assert_array_equal(distances(reordered, first, second, **settings), expected)
        names = np.append(rng.permutation(4), [4, 5])
        renamed = [(adjacency, names[labels]) for adjacency, labels in reordered]
        np.testing.assert_array_equal(distances(renamed, second, first, **settings), expected)
    assert_known(lambda graph: shuffled(rng, graph))


@st.composite
def small_graphs(draw):
    """At most 5 nodes, cycles and isolated nodes included; one input if there is a node."""
    nodes = draw(st.integers(0, 5))
    bits = draw(st.integers(0, 2 ** (nodes * nodes) - 1)) & draw(
        st.integers(0, 2 ** (nodes * nodes) - 1)
    )
    adjacency = np.array([bits >> i & 1 for i in range(nodes * nodes)], bool).reshape(nodes, nodes)
    np.fill_diagonal(adjacency, False)
    labels = np.array(draw(st.lists(st.integers(0, 2), min_size=nodes, max_size=nodes)), int)
    labels[:1] = LABELS.index("input")
    return adjacency, labels


def graph_of(edges, labels):
    adjacency = np.zeros((len(labels), len(labels)), bool)
    adjacency[tuple(zip(*edges, strict=True))] = True
    return adjacency, np.array(labels)


# Its distance is 5, and 6 with the input forced: a bound that charges an edge twice, or forgets the
# input, misses these.
CLOSE_CALL = (
    graph_of([(0, 1), (1, 4), (2, 1), (2, 3), (3, 4)], [4, 1, 1, 0, 1]),
    graph_of([(0, 3), (3, 2), (3, 4), (4, 2)], [4, 0, 1, 0, 1]),
)


@settings(max_examples=300, deadline=None)
@given(a=small_graphs(), b=small_graphs(), labelled=st.booleans(), force=st.booleans())
@example(*CLOSE_CALL, True, False)
@example(*CLOSE_CALL, True, True)
def test_equals_brute_force(a, b, labelled, force):
    forced = ("input",) if force and len(a[1]) and len(b[1]) else ()
    assert distances([a, b], [0], [1], labelled=labelled, forced=forced) == brute_force_distance(
        a, b, labelled, forced
    )


def test_known_distances():
    assert_known()
    assert_known(lambda graph: (graph[0].T, graph[1]))


def test_public_function_agrees_with_the_packed_one():
    rng = np.random.default_rng(4)
    graphs = [with_io(cell(rng, rng.integers(3, 13))) for _ in range(10)]
    expected = all_distances(graphs, forced=FORCED)
    found = [
        [edit_distance(to_networkx(a), to_networkx(b), forced=FORCED) for b in graphs]
        for a in graphs
    ]
    np.testing.assert_array_equal(found, expected)
