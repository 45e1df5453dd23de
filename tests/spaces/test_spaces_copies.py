"""Relabelled cells: isomorphic graphs, every numbering equally likely, and as many as counted by
hand.
"""

import collections
import itertools

import networkx as nx
import numpy as np
import pytest
from scipy.stats import chisquare

from nas.spaces.recurrent import RecurrentSpace

SPACE = RecurrentSpace()


def isomorphic(space, a, b):
    same_label = nx.algorithms.isomorphism.categorical_node_match("label", None)
    return nx.is_isomorphic(space.to_graphs(a)[0], space.to_graphs(b)[0], node_match=same_label)


def test_copies_are_different_valid_and_isomorphic():
    rng = np.random.default_rng(0)
    for decisions in rng.integers(SPACE.num_choices, size=(20, SPACE.num_decisions)):
        copies = SPACE.copies(decisions, 8, rng)
        SPACE.validate(copies)
        assert copies.dtype == np.int32 and len({*map(tuple, copies)}) == len(copies) == 8
        assert all(isomorphic(SPACE, decisions, copy) for copy in copies)


def test_a_chain_has_no_other_copy():
    chain = np.array([0, 0, 1, 1, 2, 2, 3])
    np.testing.assert_array_equal(
        RecurrentSpace(num_nodes=4).copies(chain, 5, np.random.default_rng(0)), [chain]
    )


def test_all_copies_of_a_small_cell():
    """Node 0 has the children 1 and 2, and 1 the child 3: numberings 0123, 0132 (3 before 2) and
    0213 (2 before 1).
    """
    space = RecurrentSpace(num_nodes=4)
    copies = space.copies(np.array([0, 0, 1, 0, 2, 1, 3]), 10, np.random.default_rng(0))
    assert sorted(map(tuple, copies)) == [
        (0, 0, 1, 0, 2, 1, 3),
        (0, 0, 1, 1, 3, 0, 2),
        (0, 0, 2, 0, 1, 2, 3),
    ]


@pytest.mark.parametrize(
    "activations", [(0, 1, 2, 3, 0), (1, 1, 1, 1, 1)], ids=["distinct", "alike"]
)
def test_every_copy_is_equally_likely(activations):
    space, rng = RecurrentSpace(num_nodes=5), np.random.default_rng(0)
    decisions = np.zeros(9, np.int32)
    decisions[0::2], decisions[1::2] = activations, [0, 0, 1, 1]  # 3 and 4 read 1; 1 and 2 read 0
    expected = {
        tuple(d)
        for d in itertools.product(*map(range, space.num_choices))
        if sorted(d[0::2]) == sorted(activations) and isomorphic(space, decisions, d)
    }
    drawn = collections.Counter(
        tuple(space.copies(decisions, 1, rng)[0].tolist()) for _ in range(3000)
    )
    assert set(drawn) == expected
    assert chisquare(list(drawn.values())).pvalue > 1e-3


@pytest.mark.parametrize(
    ("num_nodes", "classes"),
    [
        # Of one node: 4. Of two: 4 x 4. Of three: a chain, 4 x 16, or two children, 4 x 10. Of
        # four, below the first: a cell of three, 104, one of two and one, 16 x 4, or three, 20.
        (2, 16),
        (3, 64 + 40),
        (4, 4 * (104 + 64 + 20)),
    ],
)
def test_canonical_cells_are_as_many_as_counted_by_hand(num_nodes, classes):
    space = RecurrentSpace(num_nodes=num_nodes)
    canonical = space.canonical(space.every())
    assert len(np.unique(canonical, axis=0)) == classes
    np.testing.assert_array_equal(space.canonical(canonical), canonical)


def test_cells_have_one_canonical_form_exactly_if_they_are_isomorphic():
    space, rng = RecurrentSpace(num_nodes=4), np.random.default_rng(0)
    cells = rng.integers(np.minimum(space.num_choices, (2, 9, 2, 9, 2, 9, 2)), size=(60, 7))
    canonical = space.canonical(cells)
    same = [tuple(a) == tuple(b) for a, b in itertools.combinations(canonical.tolist(), 2)]
    assert same == [isomorphic(space, a, b) for a, b in itertools.combinations(cells, 2)]
    assert any(same) and all(isomorphic(space, a, b) for a, b in zip(cells, canonical, strict=True))


def test_every_copy_has_the_canonical_form_of_its_cell():
    rng = np.random.default_rng(1)
    for decisions in rng.integers(SPACE.num_choices, size=(5, SPACE.num_decisions)):
        found = SPACE.canonical(SPACE.copies(decisions, 6, rng))
        np.testing.assert_array_equal(found, np.repeat(SPACE.canonical(decisions), 6, axis=0))
