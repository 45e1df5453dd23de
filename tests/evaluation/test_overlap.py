"""Similarities against plain loops, and the known facts of uniformly sampled cells."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from nas.evaluation import correlations, overlap
from nas.spaces.recurrent import RecurrentSpace

SPACE = RecurrentSpace(num_nodes=12)


def sample(n, seed=0):
    return (np.random.default_rng(seed).random((n, 23)) * np.array(SPACE.num_choices)).astype(
        np.int32
    )


def test_counts_against_plain_loops():
    decisions = sample(12)
    activations = overlap.common_decisions(SPACE, decisions, "activation")
    connections = overlap.common_decisions(SPACE, decisions, "connection")
    total = overlap.common_decisions(SPACE, decisions, "activation", "connection")
    edges = overlap.common_labelled_edges(SPACE, decisions)
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    for k, (i, j) in enumerate(pairs):
        same = decisions[i] == decisions[j]
        assert activations[k] == same[0::2].sum()
        assert connections[k] == same[3::2].sum()  # p_1 is a constant and left out
        assert total[k] == activations[k] + connections[k]
        assert edges[k] == (same[0::2] & np.concatenate([[True], same[1::2]])).sum()


def test_feature_difference():
    assert overlap.feature_difference(np.array([1, 4, 2])).tolist() == [3, 1, 2]


def test_distance_of_one_hot_decisions_is_total_overlap():
    decisions = sample(40)
    total = overlap.common_decisions(SPACE, decisions, "activation", "connection")
    np.testing.assert_allclose(
        pdist(overlap.one_hot(SPACE, decisions)) ** 2, 2 * (22 - total), atol=1e-9
    )


def test_facts_of_uniform_cells():
    """The variances are those of sums of independent matches; the correlations are known from an
    independent program.
    """
    decisions = sample(1000)
    activations = overlap.common_decisions(SPACE, decisions, "activation")
    connections = overlap.common_decisions(SPACE, decisions, "connection")
    total = activations + connections
    assert activations.var() == pytest.approx(12 * 0.25 * 0.75, rel=0.05)
    assert connections.var() == pytest.approx(sum((1 - 1 / i) / i for i in range(2, 12)), rel=0.05)
    assert correlations.spearman(total, activations) == pytest.approx(0.77, abs=0.02)
    assert correlations.spearman(total, connections) == pytest.approx(0.61, abs=0.02)
    edges = overlap.common_labelled_edges(SPACE, decisions)
    assert correlations.spearman(edges, activations) == pytest.approx(0.54, abs=0.02)
    distance = correlations.distances(overlap.random_projection(SPACE, decisions, 100))
    assert correlations.spearman(distance, activations) == pytest.approx(-0.47, abs=0.05)
    assert correlations.spearman(distance, total) == pytest.approx(-0.61, abs=0.05)


def test_spearman_by_hand_and_where_it_is_undefined():
    x, y = np.array([1.0, 2.0, 2.0, 4.0]), np.array([3.0, 1.0, 2.0, 2.0])
    ranks_x, ranks_y = np.array([1, 2.5, 2.5, 4]), np.array([4, 1, 2.5, 2.5])
    assert correlations.spearman(x, y) == pytest.approx(np.corrcoef(ranks_x, ranks_y)[0, 1])
    assert math.isnan(correlations.spearman(x, np.ones(4)))
    assert math.isnan(correlations.spearman(np.array([1.0, math.nan, 2.0, 3.0]), y))
