"""The public functions of the edit distance: conversions, merged duplicates, threads, interrupts,
bounds and bad input.
"""

import dataclasses
import re
import signal
import tracemalloc

import networkx as nx
import numpy as np
import pytest

from nas import progress
from nas.errors import UserError
from nas.evaluation import edit_distance as module
from nas.evaluation.edit_distance import (
    compare,
    edit_distance,
    edit_distance_bounds,
    first_approximation,
    pack,
    pack_networkx,
    pairs,
    pairwise_edit_distance,
    pairwise_edit_distance_bounds,
)
from nas.evaluation.edit_distance.graphs import refined_colours
from nas.spaces import Graphs
from nas.spaces.nasbench201 import NASBench201Space
from nas.spaces.recurrent import RecurrentSpace
from tests.helpers import finish_program, start_python

DEFINITIONS = [
    {"labelled": labelled, "io": io, "forced": forced}
    for labelled in (True, False)
    for io, forced in ((True, True), (True, False), (False, False))
]


def sample(space, n, seed=0):
    return np.random.default_rng(seed).integers(0, space.num_choices, (n, space.num_decisions))


def graph(labels="", *edges):
    """Nodes 0, 1, ... labelled by the letters of `labels`."""
    result = nx.DiGraph()
    result.add_nodes_from((node, {"label": label}) for node, label in enumerate(labels))
    result.add_edges_from(edges)
    return result


@dataclasses.dataclass(frozen=True)
class FixedSpace:
    """A decision picks one of given graphs."""

    adjacency: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...] = ("a", "b", "input", "output")
    io_labels: tuple[str, ...] = ("input", "output")

    def validate(self, decisions):
        return np.asarray(decisions)

    def graphs(self, decisions, *, io=True):
        return (Graphs(self.adjacency[decisions[:, 0]], self.labels[decisions[:, 0]]),)


def fixed_space(*graphs, labels=None):
    adjacency = np.stack([nx.to_numpy_array(g).astype(bool) for g in graphs])
    return FixedSpace(
        adjacency, np.zeros(adjacency.shape[:2], np.int32) if labels is None else np.array(labels)
    )


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
def test_decisions_and_networkx_graphs_agree(definition):
    space = RecurrentSpace(num_nodes=8)
    decisions = sample(space, 12)
    found = pairwise_edit_distance(space, decisions, **definition)
    assert found.dtype == np.int32 and found.shape == (12, 12)
    graphs = [space.to_graphs(row, io=definition["io"])[0] for row in decisions]
    if not definition["labelled"]:
        for g in graphs:
            for attributes in g.nodes.values():
                if attributes["label"] not in space.io_labels or not definition["forced"]:
                    attributes["label"] = "node"
    forced = space.io_labels if definition["forced"] else ()
    np.testing.assert_array_equal(
        found, [[edit_distance(a, b, forced=forced) for b in graphs] for a in graphs]
    )
    if not (definition["labelled"] or definition["forced"]):
        np.testing.assert_array_equal(
            found, [[edit_distance(a, b, label=None) for b in graphs] for a in graphs]
        )


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (graph(), graph(), 0),
        (graph(), graph("x"), 1),
        (graph("x"), graph("x"), 0),
        (graph("x"), graph("y"), 1),
        (graph("xx"), graph("xy"), 1),
        (graph("xxx", (0, 1), (1, 2), (2, 0)), graph(), 6),
        (graph("xxx", (0, 1), (1, 2), (2, 0)), graph("xxx", (0, 1), (1, 2), (0, 2)), 2),
        (graph("xy", (0, 1)), graph("xy", (1, 0)), 2),
        (graph("xy", (0, 1), (1, 0)), graph("yx", (1, 0)), 1),
        (graph("x" * 16), graph("x"), 15),
    ],
)
def test_hand_computed(a, b, expected):
    assert edit_distance(a, b) == edit_distance(b, a) == expected
    assert edit_distance_bounds(a, b) == (expected, expected)


def test_label_attribute_forced_nodes_and_no_labels():
    a, b = graph("xy", (0, 1)), graph("xy", (0, 1))
    nx.set_node_attributes(b, {0: "q", 1: "r"}, "kind")
    nx.set_node_attributes(a, {0: "q", 1: "q"}, "kind")
    assert edit_distance(a, b) == 0
    assert edit_distance(a, b, label="kind") == 1
    assert edit_distance(a, graph("pq", (0, 1)), label=None) == 0
    # Two nodes with a forced label in each graph: matched among themselves, in either order.
    a, b = graph("iixx", (0, 2), (1, 3), (2, 3)), graph("xiix", (1, 0), (2, 3), (3, 0))
    assert edit_distance(a, b, forced=("i",)) == 0
    assert edit_distance(graph("ix", (0, 1)), graph("xi", (0, 1)), forced=("i",)) == 2


def test_isomorphic_architectures_are_compared_once():
    space = RecurrentSpace(num_nodes=5)
    decisions = sample(space, 30)
    swapped = np.array(
        [[0, 0, 1, 0, 2, 1, 3, 2, 0], [0, 0, 2, 0, 1, 2, 3, 1, 0]]
    )  # siblings in the other order
    decisions = np.concatenate([decisions, swapped, decisions[::-1]])
    told = []
    with progress.listening(told.append):
        found = pairwise_edit_distance(space, decisions)
    (packed,) = module.pack_decisions(space, decisions)
    i, j = (index.ravel() for index in np.indices(found.shape))
    np.testing.assert_array_equal(found, compare(packed, i, j).upper.reshape(found.shape))
    distinct = len(np.unique(found, axis=0))
    assert distinct <= 31 and told[-1].done == told[-1].total == distinct * (distinct - 1) // 2
    assert found[30, 31] == 0


def test_graphs_that_colour_refinement_cannot_tell_apart_are_not_merged():
    eight = nx.DiGraph([(i, (i + step) % 8) for i in range(0, 8, 2) for step in (1, -1)])
    fours = nx.DiGraph(
        [(i, (i // 4) * 4 + (i + step) % 4) for i in range(0, 8, 2) for step in (1, -1)]
    )
    space = fixed_space(eight, fours)
    (packed,) = module.pack_decisions(space, np.array([[0], [1]]), forced=False)
    keys = refined_colours(packed)
    assert keys[0] == keys[1]
    found = pairwise_edit_distance(space, np.array([[0], [1], [0]]), forced=False)
    assert found[0, 1] > 0 and found[0, 2] == 0


def test_rows_that_hold_no_node_may_be_anywhere():
    adjacency = np.zeros((2, 4, 4), bool)
    adjacency[0, 1, 3] = adjacency[1, 0, 1] = True
    space = FixedSpace(adjacency, np.array([[-1, 0, -1, 1], [0, 1, -1, -1]]))
    assert not pairwise_edit_distance(space, np.array([[0], [1]]), forced=False).any()


@pytest.mark.parametrize("n", [0, 1])
def test_few_architectures(n):
    space = RecurrentSpace(num_nodes=4)
    assert pairwise_edit_distance(space, sample(space, n)).tolist() == [[0]] * n
    assert first_approximation(space, sample(space, n)).tolist() == [[0]] * n


def test_threads_do_not_change_the_result():
    space = RecurrentSpace()
    decisions = sample(space, 60)
    exact = [pairwise_edit_distance(space, decisions, threads=t) for t in (1, 2, 5)]
    bounds = [
        pairwise_edit_distance_bounds(space, decisions, threads=t, limit=5) for t in (1, 2, 5)
    ]
    for other in exact[1:]:
        np.testing.assert_array_equal(exact[0], other)
    for other in bounds[1:]:
        np.testing.assert_array_equal(bounds[0], other)


def test_memory_is_that_of_the_result():
    space = RecurrentSpace(num_nodes=8)
    decisions = sample(space, 1000)
    pairwise_edit_distance(space, decisions[:2])  # compiles
    tracemalloc.start()
    pairwise_edit_distance(space, decisions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1000**2 + 1_500_000


ENDLESS = """
import numpy as np
from nas.evaluation import edit_distance
from nas.evaluation.edit_distance import pairs
from nas.spaces import Graphs

def announced(*arguments):
    if len(arguments[3]):
        print("searching", flush=True)
    search(*arguments)

search, pairs.search_pairs = pairs.search_pairs, announced
adjacency = np.random.default_rng(0).random((2, 40, 40)) < 0.5
adjacency[:, np.arange(40), np.arange(40)] = False
packed = edit_distance.pack(Graphs(adjacency, np.zeros((2, 40), int)), ("x",), max_nodes=64)
edit_distance.compare(packed, [0], [1])
"""


def test_interrupt_stops_within_a_pair(user_environment):
    """A pair whose search would take years."""
    program = start_python(user_environment, "-c", ENDLESS)
    assert program.stdout.readline() == "searching\n"
    program.send_signal(signal.SIGINT)
    program = finish_program(program)
    assert program.returncode != 0 and "KeyboardInterrupt" in program.stderr


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    def fail(*arguments):
        if len(arguments[3]):
            raise RuntimeError("in a thread")

    monkeypatch.setattr(pairs, "search_pairs", fail)
    space = RecurrentSpace(num_nodes=4)
    with pytest.raises(RuntimeError, match="in a thread"):
        pairwise_edit_distance(space, sample(space, 10))


def layer_graphs(rng, n, nodes, skip):
    adjacency = np.triu(rng.random((n, nodes, nodes)) < skip, 1)
    return Graphs(adjacency, rng.integers(0, 4, (n, nodes)))


def test_bounds_hold_and_close_with_more_search_nodes():
    packed = pack(layer_graphs(np.random.default_rng(0), 40, 11, 0.4), "abcd")
    first, second = np.arange(0, 40, 2), np.arange(1, 40, 2)
    exact = compare(packed, first, second)
    np.testing.assert_array_equal(exact.lower, exact.upper)
    for limit in (1, 10, 100, 1000):
        bounds = compare(packed, first, second, limit=limit)
        assert np.all(bounds.lower <= exact.lower) and np.all(exact.upper <= bounds.upper)
        assert np.all(bounds.searched <= limit)
        closed = exact.searched <= limit
        np.testing.assert_array_equal(bounds.lower[closed], exact.lower[closed])
        assert np.all(bounds.lower[exact.searched > limit] < bounds.upper[exact.searched > limit])
    assert (
        compare(packed, first, second, limit=1).lower.sum()
        < compare(packed, first, second, limit=100).lower.sum()
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_larger_graphs_are_searched_the_same_way(labelled):
    small = layer_graphs(np.random.default_rng(0), 30, 10, 0.3)
    adjacency = np.pad(small.adjacency, ((0, 1), (0, 7), (0, 7)))
    labels = np.pad(small.labels, ((0, 1), (0, 7)), constant_values=-1)
    labels[-1] = 0  # one graph of 17 nodes takes the others along
    first, second = np.triu_indices(30, 1)
    narrow, wide = (
        compare(pack(graphs, "abcd", max_nodes=64, labelled=labelled), first, second)
        for graphs in (small, Graphs(adjacency, labels))
    )
    for one, other in zip(narrow, wide, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bounds_of_the_largest_graphs():
    complete, edgeless = nx.complete_graph(64, nx.DiGraph), nx.empty_graph(64, nx.DiGraph)
    assert edit_distance_bounds(complete, edgeless, label=None) == (64 * 63, 64 * 63)
    assert edit_distance_bounds(complete, graph("x"), label=None) == (64 * 63 + 63, 64 * 63 + 63)
    space = RecurrentSpace(num_nodes=40)
    lower, upper = pairwise_edit_distance_bounds(space, sample(space, 6), limit=50)
    assert (
        np.all(lower <= upper)
        and np.all(np.diagonal(upper) == 0)
        and np.all(lower[np.triu_indices(6, 1)] > 0)
    )


@pytest.mark.parametrize(
    "space",
    [RecurrentSpace(num_nodes=5), NASBench201Space()],
    ids=["cells", "graphs of many sizes"],
)
def test_first_approximation_is_networkx(space):
    decisions = sample(space, 8)
    found = first_approximation(space, decisions)
    graphs = [space.to_graphs(row)[0] for row in decisions]
    expected = [
        [next(nx.optimize_graph_edit_distance(*sorted((a, b), key=graphs.index))) for b in graphs]
        for a in graphs
    ]
    np.testing.assert_array_equal(found + np.diag(np.diagonal(expected)), expected)
    assert np.all(found >= pairwise_edit_distance(space, decisions, labelled=False, forced=False))


GOOD = graph("ix", (0, 1))


@pytest.mark.parametrize(
    ("bad", "settings", "message"),
    [
        (graph("x" * 17), {}, "graph 1: 17 nodes, at most 16"),
        (graph("ix", (0, 0)), {}, "graph 1: node 0 has a self-loop"),
        (graph("ix", (0, 2)), {}, "graph 1: node 2 has no attribute 'label'"),
        (graph("xx", (0, 1)), {"forced": ("i",)}, "graph 1: no node has the forced label 'i'"),
        (
            graph("iix"),
            {"forced": ("i",)},
            "graph 1: 2 nodes have the forced label 'i', in graph 0 1 have it",
        ),
        (GOOD, {"forced": ("z",)}, "graph 0: no node has the forced label 'z'"),
        (GOOD, {"label": None, "forced": ("i",)}, "name the node attribute"),
        (nx.Graph([(0, 1)]), {}, "graph 1: must be a networkx.DiGraph, got Graph"),
        (nx.MultiDiGraph([(0, 1)]), {}, "graph 1: must be a networkx.DiGraph, got MultiDiGraph"),
        (GOOD, {"label": "colour"}, "graph 0: node 0 has no attribute 'colour'"),
    ],
)
def test_bad_graphs_are_named(bad, settings, message, monkeypatch):
    monkeypatch.setattr(pairs, "search_pairs", None)
    with pytest.raises(ValueError, match=re.escape(message)):
        edit_distance(GOOD, bad, **settings)
    assert issubclass(UserError, ValueError)


def test_unhashable_labels_and_too_many_nodes_for_bounds():
    bad = graph("x")
    bad.nodes[0]["label"] = []
    with pytest.raises(UserError, match="graph 0: the label of node 0 is not hashable"):
        edit_distance(bad, GOOD)
    with pytest.raises(UserError, match="graph 1: 65 nodes, at most 64 can be compared$"):
        edit_distance_bounds(GOOD, graph("x" * 65))
    with pytest.raises(UserError, match="limit of search nodes must be at least 1, got 0"):
        edit_distance_bounds(GOOD, GOOD, limit=0)
    with pytest.raises(UserError, match="graph 0: has a cycle"):
        pack_networkx([graph("xx", (0, 1), (1, 0))], acyclic=True)


def chain_with(label=0, extra=None, nodes=3):
    g = nx.DiGraph([(i, i + 1) for i in range(nodes - 1)])
    g.add_edges_from([extra] if extra else [])
    return g, [2, *[label] * (nodes - 2), 3]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (chain_with(extra=(2, 0)), "graph 2: has a cycle"),
        (chain_with(extra=(1, 1)), "graph 2: node 1 has a self-loop"),
        (chain_with(label=7), "graph 2: node 1 has unknown label 7; there are 4 labels"),
        (chain_with(label=-2), "graph 2: node 1 has unknown label -2; there are 4 labels"),
        (chain_with(label=-1), "graph 2: an edge from 0 to 1, but one of them is no node"),
        (
            chain_with(label=2),
            "graph 2: 2 nodes have the forced label 'input', in graph 0 1 have it",
        ),
        ((chain_with()[0], [2, 0, 0]), "graph 2: no node has the forced label 'output'"),
    ],
)
def test_bad_spaces_are_named_before_anything_is_computed(bad, message, monkeypatch):
    monkeypatch.setattr(pairs, "search_pairs", None)
    good = chain_with()
    space = fixed_space(*(g for g, _ in (good, bad)), labels=[labels for _, labels in (good, bad)])
    with pytest.raises(ValueError, match=re.escape(message)):
        pairwise_edit_distance(space, np.array([[0], [0], [1]]))


def test_bad_arguments():
    space = RecurrentSpace(num_nodes=15)
    with pytest.raises(
        UserError,
        match="graph 0: 17 nodes, at most 16 can be compared; edit_distance_bounds takes up to 64",
    ):
        pairwise_edit_distance(space, sample(space, 3))
    assert pairwise_edit_distance(space, sample(space, 3), io=False, forced=False).shape == (3, 3)
    with pytest.raises(UserError, match="graph 0: no node has the forced label 'input'"):
        pairwise_edit_distance(space, sample(space, 3), io=False)
    with pytest.raises(UserError, match="architecture 0, position 1"):
        pairwise_edit_distance(space, sample(space, 3) + [[0, 1, *[0] * 27]])
    with pytest.raises(UserError, match="number of threads must be 0"):
        pairwise_edit_distance(space, sample(space, 3), io=False, forced=False, threads=-1)
    packed = pack_networkx([GOOD, GOOD])
    for first, second in (([0], [2]), ([-1], [0]), ([0, 1], [0])):
        with pytest.raises(UserError, match=r"indices in 0\.\.1"):
            compare(packed, first, second)


def test_more_labels_than_can_be_told_apart():
    def labelled(first, last):
        built = nx.DiGraph()
        built.add_nodes_from((i, {"label": i}) for i in range(first, last))
        return built

    graphs = [labelled(first, first + 16) for first in range(0, 32_752, 16)]
    assert pack_networkx(graphs).labels.max() == 32_751
    with pytest.raises(UserError, match="^32,768 labels, at most 32,767 can be told apart$"):
        pack_networkx([*graphs, labelled(32_752, 32_768)])
    wide = pack_networkx([*graphs, labelled(32_752, 32_769)], max_nodes=64)  # of another width
    assert len(wide.labels) == 2048
