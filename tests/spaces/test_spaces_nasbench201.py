"""The cell of NAS-Bench-201: its text form, its pruned line graph and its two canonical forms, by
hand and by enumeration.
"""

import itertools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from nas.errors import UserError
from nas.evaluation.edit_distance import pairwise_edit_distance
from nas.spaces.nasbench201 import EDGES, OPERATIONS, NASBench201Space

SPACE = NASBench201Space()
NONE, SKIP, CONV1, CONV3, POOL = range(5)
TEXT = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
DECISIONS = [CONV3, NONE, SKIP, POOL, CONV1, NONE]
EVERY = SPACE.every()


def test_text_form_by_hand():
    assert SPACE.format(DECISIONS) == TEXT
    assert SPACE.parse(TEXT).tolist() == DECISIONS


def test_text_form_of_every_architecture_is_its_own():
    texts = [SPACE.format(row) for row in EVERY]
    assert len(set(texts)) == 15_625
    np.testing.assert_array_equal([SPACE.parse(text) for text in texts], EVERY)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            TEXT.replace("avg_pool_3x3", "max_pool_3x3"),
            "position 3: unknown operation 'max_pool_3x3'",
        ),
        (TEXT.replace("~1|none", "~0|none"), "is written"),  # the fifth edge begins at point 1
        (TEXT.replace("+", ""), "is written"),
        (TEXT + "\n", "is written"),
        (TEXT[:-1], "is written"),
        (" ".join("012340"), "is written"),
    ],
)
def test_text_that_is_no_architecture(text, told):
    with pytest.raises(UserError, match=told) as error:
        SPACE.parse(text)
    assert "\n" not in str(error.value)


def test_every_vector_once_in_the_order_of_its_index():
    assert EVERY.tolist() == [list(cell) for cell in itertools.product(range(5), repeat=6)]
    np.testing.assert_array_equal(SPACE.index(EVERY), np.arange(15_625))
    assert SPACE.index(np.array([0, 0, 1, 0, 2, 3])) == 125 + 2 * 5 + 3


def test_index_of_traced_decisions():
    index = jax.jit(SPACE.index)(jnp.asarray(EVERY[::7].reshape(7, -1, 6)))
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(index.ravel(), np.arange(0, 15_625, 7))


# Graphs.


def labels_and_edges(decisions):
    graph = SPACE.to_graphs(decisions)[0]
    names = dict(graph.nodes("label"))
    assert len(set(names.values())) == len(names)  # in these examples labels tell nodes apart
    return set(names.values()), {(names[a], names[b]) for a, b in graph.edges}


def test_graph_by_hand():
    nodes, edges = labels_and_edges(
        [CONV1, NONE, NONE, SKIP, POOL, CONV3]
    )  # nothing enters point 2: its conv 3x3 is dead
    assert nodes == {"input", "nor_conv_1x1", "skip_connect", "avg_pool_3x3", "output"}
    assert edges == {
        ("input", "nor_conv_1x1"),
        ("nor_conv_1x1", "avg_pool_3x3"),
        ("avg_pool_3x3", "output"),
        ("input", "skip_connect"),
        ("skip_connect", "output"),
    }


def test_an_edge_that_leads_nowhere_is_dead():
    nodes, edges = labels_and_edges([CONV1, CONV3, NONE, SKIP, NONE, NONE])
    assert nodes == {"input", "skip_connect", "output"}
    assert edges == {("input", "skip_connect"), ("skip_connect", "output")}


def test_a_cell_that_computes_nothing_is_two_unconnected_nodes():
    assert labels_and_edges([CONV3, CONV3, NONE, NONE, NONE, NONE]) == ({"input", "output"}, set())


def test_a_full_cell():
    graph = SPACE.to_graphs([CONV3] * 6, io=False)[0]
    assert len(graph) == 6
    heads = dict(enumerate(EDGES))
    assert set(graph.edges) == {(a, b) for a in heads for b in heads if heads[a][1] == heads[b][0]}


def test_nodes_are_the_edges_on_a_path_from_the_input_to_the_output():
    rng = np.random.default_rng(0)
    for row in EVERY[rng.choice(len(EVERY), 300, replace=False)]:
        points = nx.DiGraph(
            [edge for edge, choice in zip(EDGES, row, strict=True) if choice != NONE]
        )
        points.add_nodes_from(range(4))
        used = {
            pair for path in nx.all_simple_paths(points, 0, 3) for pair in itertools.pairwise(path)
        }
        labels = SPACE.graphs(row, io=False)[0].labels[0]
        assert {edge for edge, label in zip(EDGES, labels, strict=True) if label >= 0} == used
        assert all(label in (-1, choice) for label, choice in zip(labels, row, strict=True))


def test_edit_distances_of_pruned_graphs_by_hand():
    nothing = [NONE] * 6
    one = [NONE, NONE, NONE, CONV3, NONE, NONE]
    chain = [CONV3, NONE, NONE, NONE, SKIP, NONE]  # one node more; one edge less, two more
    other = [NONE, NONE, NONE, POOL, NONE, NONE]
    dead = [NONE, NONE, NONE, CONV3, POOL, CONV1]  # as `one`
    distances = pairwise_edit_distance(SPACE, [nothing, one, chain, other, dead])
    assert distances[0].tolist() == [0, 3, 5, 3, 3]
    assert distances[1].tolist() == [3, 0, 4, 1, 0]
    assert distances[3].tolist() == [3, 1, 5, 0, 1]


# Canonical forms.


@pytest.mark.parametrize(
    ("classes", "count"), [("official_class", 6466), ("canonical_class", 5390)]
)
def test_number_of_classes(classes, count):
    found = getattr(SPACE, classes)(EVERY)
    assert found.shape == (15_625,)
    np.testing.assert_array_equal(np.unique(found), np.arange(count))
    some = np.array([7, 15_000, 7])
    np.testing.assert_array_equal(getattr(SPACE, classes)(EVERY[some]), found[some])


def test_canonical_classes_are_unions_of_official_ones():
    official, canonical = SPACE.official_class(EVERY), SPACE.canonical_class(EVERY)
    assert len(set(zip(official, canonical, strict=True))) == 6466


@pytest.mark.parametrize(
    ("a", "b", "official", "canonical"),
    [
        (
            [NONE, NONE, NONE, SKIP, NONE, NONE],
            [SKIP, NONE, NONE, NONE, SKIP, NONE],
            True,
            True,
        ),  # the input itself
        ([NONE, NONE, NONE, CONV3, NONE, NONE], [SKIP, NONE, NONE, NONE, CONV3, NONE], True, True),
        (
            [CONV1, NONE, NONE, SKIP, SKIP, NONE],
            [SKIP, NONE, NONE, CONV1, SKIP, NONE],
            True,
            True,
        ),  # order of summands
        # Point 2 is 0 + 0; what follows it is an operation on a sum to the official rule, and 0 to
        # the other.
        (
            [NONE, NONE, NONE, CONV3, NONE, NONE],
            [NONE, NONE, NONE, CONV3, NONE, CONV1],
            False,
            True,
        ),
        (
            [CONV1, NONE, NONE, NONE, CONV3, NONE],
            [CONV3, NONE, NONE, NONE, CONV1, NONE],
            False,
            False,
        ),  # order of a chain
        (
            [NONE, NONE, NONE, SKIP, NONE, NONE],
            [SKIP, NONE, NONE, SKIP, SKIP, NONE],
            False,
            False,
        ),  # x and 2 x
    ],
)
def test_equal_cells_by_hand(a, b, official, canonical):
    assert len(set(SPACE.official_class([a, b]))) == (1 if official else 2)
    assert len(set(SPACE.canonical_class([a, b]))) == (1 if canonical else 2)


def test_architectures_of_one_class_use_the_same_operations():
    def operations(row):
        labels = SPACE.graphs(row, io=False)[0].labels[0]
        return sorted(OPERATIONS[label] for label in labels if label > SKIP)

    canonical = SPACE.canonical_class(EVERY)
    rng = np.random.default_rng(1)
    for number in rng.choice(5390, 100, replace=False):
        members = EVERY[canonical == number]
        # A skip can carry a value to two places: as many of each kind only up to repetition.
        assert len({tuple(sorted(set(operations(row)))) for row in members}) == 1
