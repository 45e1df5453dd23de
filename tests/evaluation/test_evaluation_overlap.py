"""Similarities of two architectures: worked out by hand, for cells of every size, and in any
order.
"""

import warnings

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from nas.evaluation import overlap
from nas.spaces.recurrent import RecurrentSpace

FOUR = RecurrentSpace(num_nodes=4)
# [f_0, p_1, f_1, p_2, f_2, p_3, f_3]. Of the first and second, f_0, f_2, f_3 and p_2 are equal, so
# that nodes 0 and 2 have the same input and activation; of the first and third f_1 and p_3 are, and
# so are f_0, f_1, p_2 of second and fourth.
BY_HAND = [
    [0, 0, 1, 0, 2, 2, 3],
    [0, 0, 2, 0, 2, 1, 3],
    [3, 0, 1, 1, 0, 2, 1],
    [0, 0, 2, 0, 3, 0, 1],
]
#                   pairs: 01 02 03 12 13 23
ACTIVATIONS_BY_HAND = [3, 1, 1, 0, 2, 1]
CONNECTIONS_BY_HAND = [1, 1, 1, 0, 1, 0]
LABELLED_BY_HAND = [2, 1, 1, 0, 2, 0]


def sizes():
    return st.sampled_from([3, 6, 12]).map(lambda nodes: RecurrentSpace(num_nodes=nodes))


def random_decisions(space, n, seed=0):
    return np.random.default_rng(seed).integers(0, space.num_choices, (n, space.num_decisions))


def pairs(n):
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def test_common_decisions_by_hand():
    common = overlap.common_decisions
    assert common(FOUR, BY_HAND, "activation").tolist() == ACTIVATIONS_BY_HAND
    assert common(FOUR, BY_HAND, "connection").tolist() == CONNECTIONS_BY_HAND
    both = [a + c for a, c in zip(ACTIVATIONS_BY_HAND, CONNECTIONS_BY_HAND, strict=True)]
    assert common(FOUR, BY_HAND, "activation", "connection").tolist() == both


def test_common_labelled_edges_by_hand():
    assert overlap.common_labelled_edges(FOUR, BY_HAND).tolist() == LABELLED_BY_HAND


@settings(deadline=None, max_examples=25)
@given(sizes(), st.integers(0, 10**6))
def test_every_size_equals_plain_loops(space, seed):
    n = 5
    decisions = random_decisions(space, n, seed)
    decisions[3] = decisions[1]  # two that are the same
    by_kind = {kind: list(space.positions(kind)) for kind in ("activation", "connection")}
    for kind, positions in by_kind.items():
        expected = [sum(decisions[i][t] == decisions[j][t] for t in positions) for i, j in pairs(n)]
        assert overlap.common_decisions(space, decisions, kind).tolist() == expected

    def labelled_edges(vector):
        graph = space.to_graphs(vector)[0]
        ends = nx.get_node_attributes(graph, "label")
        return {(u, v, ends[v]) for u, v in graph.edges if ends[v] != "output"}

    edges = [labelled_edges(vector) for vector in decisions]
    expected = [len(edges[i] & edges[j]) for i, j in pairs(n)]
    assert overlap.common_labelled_edges(space, decisions).tolist() == expected
    assert expected[pairs(n).index((1, 3))] == space.num_nodes  # one edge into every node


def test_cells_of_two_nodes_have_no_connection_to_share():
    space = RecurrentSpace(num_nodes=2)
    assert overlap.common_decisions(
        space, [[0, 0, 1], [0, 0, 2], [0, 0, 1]], "activation"
    ).tolist() == [1, 2, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert overlap.common_decisions(
            space, [[0, 0, 1], [0, 0, 2], [0, 0, 1]], "connection"
        ).tolist() == [0, 0, 0]


@settings(deadline=None, max_examples=15)
@given(sizes(), st.permutations(range(6)))
def test_the_order_of_architectures_does_not_matter(space, order):
    decisions = random_decisions(space, 6)
    for measure in (
        lambda d: overlap.common_decisions(space, d, "activation", "connection"),
        lambda d: overlap.common_labelled_edges(space, d),
        lambda d: overlap.feature_difference(d[:, 0]),
    ):
        matrix = squareform(measure(decisions), checks=False)
        np.testing.assert_array_equal(
            squareform(measure(decisions[order]), checks=False), matrix[np.ix_(order, order)]
        )


def test_feature_difference_by_hand():
    assert overlap.feature_difference([5, 1, 2]).tolist() == [4, 3, 1]
    assert overlap.feature_difference(np.array([True, False, True])).tolist() == [1, 0, 1]
    assert overlap.feature_difference([0.5, 0.5]).tolist() == [0]


def test_one_hot_by_hand():
    space = RecurrentSpace(num_nodes=3)  # choices 4, 1, 4, 2, 4
    encoded = overlap.one_hot(space, [[0, 0, 3, 1, 2]])
    assert encoded.tolist() == [[1, 0, 0, 0] + [1] + [0, 0, 0, 1] + [0, 1] + [0, 0, 1, 0]]


@pytest.mark.parametrize("nodes", [2, 3, 6, 12])
def test_one_hot_distances_order_pairs_exactly_as_total_overlap_does(nodes):
    space = RecurrentSpace(num_nodes=nodes)
    decisions = random_decisions(space, 40)
    total = overlap.common_decisions(space, decisions, "activation", "connection")
    distance = pdist(overlap.one_hot(space, decisions))
    assert spearmanr(distance.round(9), total).statistic == pytest.approx(-1, abs=1e-12)


def test_random_projection_is_a_fixed_linear_map_of_one_hot():
    decisions = random_decisions(FOUR, 30)
    projected = overlap.random_projection(FOUR, decisions, 7)
    assert projected.shape == (30, 7)
    np.testing.assert_array_equal(projected, overlap.random_projection(FOUR, decisions, 7))
    np.testing.assert_array_equal(projected[:4], overlap.random_projection(FOUR, decisions[:4], 7))
    assert not np.allclose(projected, overlap.random_projection(FOUR, decisions, 7, seed=1))
    # Linear: what decisions add to the sum does not depend on the other decisions.
    a, b = (
        ([0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]),
        ([0, 0, 2, 1, 3, 2, 1], [1, 0, 2, 1, 3, 2, 1]),
    )
    change = [np.diff(overlap.random_projection(FOUR, pair, 7), axis=0) for pair in (a, b)]
    np.testing.assert_allclose(change[0], change[1], atol=1e-12)


def test_random_projection_keeps_distances_on_average():
    # The squared length of a projection to w dimensions is that of the vector times chi-square(w) /
    # w, sd sqrt(2 / w).
    decisions = random_decisions(FOUR, 12)
    decisions = decisions[np.unique(overlap.one_hot(FOUR, decisions), axis=0, return_index=True)[1]]
    width = 5000
    ratio = (
        pdist(overlap.random_projection(FOUR, decisions, width)) ** 2
        / pdist(overlap.one_hot(FOUR, decisions)) ** 2
    )
    np.testing.assert_allclose(ratio, 1, atol=5 * np.sqrt(2 / width))
