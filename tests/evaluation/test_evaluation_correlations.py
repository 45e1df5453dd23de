"""Spearman's correlation where it is known or undefined, and the table's measures by hand."""

import itertools
import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.evaluation import correlations as table
from nas.evaluation import overlap
from nas.evaluation.samples import Sample
from nas.report.arms.arm import all_measures, common_performance, performance
from nas.report.arms.tables import published_protocol
from tests.helpers import recurrent_task

TASK = recurrent_task(4)
SPACE = TASK.space
ACTIVATIONS, CONNECTIONS = table.common("activation"), table.common("connection")
PERPLEXITY = table.difference_in("perplexity")
MEASURES = (
    ACTIVATIONS,
    CONNECTIONS,
    table.TOTAL,
    table.labelled_edges(SPACE),
    "loose ends, |difference|",
    *table.EDIT_DISTANCES,
    performance(TASK),
    common_performance(TASK),
)


def random_decisions(space, n, seed=0):
    return np.random.default_rng(seed).integers(0, space.num_choices, (n, space.num_decisions))


def sample(decisions, loss, embedding=None):
    embedding = overlap.one_hot(SPACE, decisions) if embedding is None else embedding
    return Sample(
        decisions, embedding, embedding, loss, loss, table.edit_distances(SPACE, decisions)
    )


def correlations(sample):
    return table.correlations(all_measures(TASK, sample), sample.after)


def free(decisions, node_match):
    """Exact edit distances of all pairs by networkx."""
    graphs = [SPACE.to_graphs(row)[0] for row in decisions]
    return [
        nx.graph_edit_distance(a, b, node_match=node_match)
        for a, b in itertools.combinations(graphs, 2)
    ]


def test_spearman_with_ties_by_hand():
    # Ranks 1, 2.5, 2.5, 4 and 1, 4, 2.5, 2.5 less 2.5: (-1.5, 0, 0, 1.5) . (-1.5, 1.5, 0, 0) =
    # 2.25, of 4.5 each.
    assert table.spearman(
        np.array([1, 20, 20, 300]), np.array([-1.0, 0.3, 0.2, 0.2])
    ) == pytest.approx(2.25 / 4.5)


def test_spearman_without_ties_by_hand():
    # Differences of ranks 0, 1, -1, 0, 0: 1 - 6 * 2 / (5 * 24).
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert table.spearman(x, np.array([1.0, 30.0, 20.0, 40.0, 50.0])) == pytest.approx(0.9)
    assert table.spearman(x, -x) == pytest.approx(-1)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_spearman_sees_order_alone_and_is_symmetric(points):
    x, y = np.array(points, float).T
    r = table.spearman(x, y)
    others = table.spearman(np.exp(x), y), table.spearman(y, x), -table.spearman(-x, y)
    constant = len(set(x)) == 1 or len(set(y)) == 1
    assert math.isnan(r) == constant
    assert others == pytest.approx((r, r, r), nan_ok=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.0])
def test_spearman_is_undefined_where_a_side_is_constant_or_not_finite(bad):
    x = np.array([2.0, 1.0, 3.0, 5.0])
    for y in ([bad, bad, bad, bad], [bad, 1.0, 1.0, 1.0]):
        assert math.isnan(table.spearman(x, np.array(y)))
        assert math.isnan(table.spearman(np.array(y), x))


def test_distances_by_hand():
    assert table.distances(np.array([[0, 0], [3, 4], [3, 0]], np.float32)).tolist() == [5, 3, 4]


def test_measures_by_hand():
    # Parents of nodes 1 to 3: 0 0 2, 0 0 1 and 0 1 2. Loose ends: 1 and 3; 2 and 3; 3.
    decisions = np.array([[0, 0, 1, 0, 2, 2, 3], [0, 0, 2, 0, 2, 1, 3], [3, 0, 1, 1, 0, 2, 1]])
    found = all_measures(TASK, sample(decisions, np.array([5.0, 4.5, 5.25])))
    assert {name: values.tolist() for name, values in found.items()} == {
        ACTIVATIONS: [3, 1, 0],
        CONNECTIONS: [1, 1, 0],
        table.TOTAL: [4, 2, 0],
        table.labelled_edges(SPACE): [2, 1, 0],
        "loose ends, |difference|": [0, 1, 1],
        # The chains 0-2-3 of the first and 0-1-3 of the second match, and one label beside them
        # differs. The third is one chain: of 6 and 5 edges 4 can match. Then 3 labels of the first
        # differ, or 4 of the second; fewer edges gain nothing.
        "edit distance": [1, 6, 7],
        "edit distance, labels ignored": [0, 3, 3],
        "edit distance, input and output free": free(
            decisions, lambda a, b: a["label"] == b["label"]
        ),
        "edit distance, free, labels ignored": free(decisions, None),
        performance(TASK): [0.5, 0.25, 0.75],
        common_performance(TASK): [0.5, 0.25, 0.75],
    }
    assert tuple(found) == MEASURES


def test_an_embedding_that_is_the_decisions_follows_total_overlap_exactly():
    found = correlations(
        sample(random_decisions(SPACE, 30), np.random.default_rng(1).normal(size=30))
    )
    assert tuple(found) == MEASURES
    assert found[table.TOTAL] == pytest.approx(-1, abs=1e-9)
    assert -1 < found[ACTIVATIONS] < -0.5 and -1 < found[CONNECTIONS] < -0.3
    assert found["edit distance"] > 0.2


def test_an_embedding_that_is_the_performance_follows_its_difference_exactly():
    perplexity = np.random.default_rng(1).normal(size=30)
    found = correlations(sample(random_decisions(SPACE, 30), perplexity, perplexity[:, None]))
    assert found[performance(TASK)] == pytest.approx(1)
    assert abs(found[table.TOTAL]) < 0.3


def test_undefined_columns_are_nan_and_the_others_are_not():
    decisions, perplexity = random_decisions(SPACE, 10), np.linspace(4, 5, 10)
    collapsed = correlations(sample(decisions, perplexity, np.ones((10, 3))))
    assert all(math.isnan(value) for value in collapsed.values())
    perplexity[3] = math.nan
    found = correlations(sample(decisions, perplexity))
    assert [name for name, value in found.items() if math.isnan(value)] == [
        performance(TASK),
        common_performance(TASK),
    ]


def test_the_papers_protocol_by_hand():
    """Three architectures whose states before the last decision lie on a line."""
    decisions = np.array([[0, 0, 1, 0, 2, 2, 3], [0, 0, 2, 0, 2, 1, 3], [3, 0, 1, 1, 0, 2, 1]])
    measured = sample(decisions, np.log([100.0, 104.0, 90.0]))._replace(
        before=np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    )
    found = table.paper_protocol(TASK, measured)
    # Distances 1, 2, 3. Overlaps 2, 1, 0. Of 6, 6 and 5 edges 4, 4 and 3 are common by position:
    # approximations 4, 3, 5. Perplexities differ by 4, 10 and 14.
    assert found[table.labelled_edges(SPACE), "Spearman", "L2"] == pytest.approx(-1)
    assert found[table.FIRST_APPROXIMATION, "Spearman", "L2"] == pytest.approx(0.5)
    assert found[table.FIRST_APPROXIMATION, "Pearson", "L2"] == pytest.approx(0.5)
    assert found[PERPLEXITY, "Spearman", "L2"] == pytest.approx(1)
    assert found[PERPLEXITY, "Pearson", "L2"] == pytest.approx(
        10 / math.sqrt(2 * (16 * 16 + 2 * 2 + 14 * 14) / 9)
    )
    assert math.isnan(
        found[PERPLEXITY, "Spearman", "cosine"]
    )  # one state is zero and has no direction
    turned = measured._replace(
        before=np.array([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0]])
    )  # cosines .71, -1, -.71
    assert table.paper_protocol(TASK, turned)[PERPLEXITY, "Spearman", "cosine"] == pytest.approx(
        0.5
    )
    assert set(published_protocol(TASK)) <= set(found)
