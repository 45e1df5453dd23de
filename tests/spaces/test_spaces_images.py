"""The two image spaces of ENAS: what their decisions mean, by hand; distances; copies."""

import networkx as nx
import numpy as np
import pytest

from nas.errors import UserError
from nas.evaluation import correlations
from nas.evaluation.edit_distance import pairwise_edit_distance
from nas.spaces.macro import MacroSpace
from nas.spaces.micro import MicroSpace

# The normal and the reduction cell that the authors of ENAS trained (Pham et al. 2018, figure 8).
PUBLISHED = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"


# Macro.


def test_macro_decisions_by_hand():
    """Layer 1 skips to the stem, layer 3 to the stem and to layer 1."""
    space = MacroSpace(layers=4)
    decisions = space.parse("2 0 1 4 0 0 5 1 0 1")
    assert space.kinds[:6] == ("operation", "operation", "skip", "operation", "skip", "skip")
    assert space.operations(decisions).tolist() == [2, 0, 4, 5]
    assert space.skips(decisions).tolist() == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 1, 0],
    ]
    (graph,) = space.to_graphs(decisions)
    assert [label for _, label in sorted(graph.nodes(data="label"))] == [
        "input",
        "conv_5x5",
        "conv_3x3",
        "avg_3x3",
        "max_3x3",
        "output",
    ]
    chain = {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)}
    assert set(graph.edges) == chain | {(0, 2), (0, 4), (2, 4)}
    assert space.features(decisions)["skips"].tolist() == [3]


def test_the_macro_space_of_the_paper_has_78_decisions():
    space = MacroSpace()
    assert space.num_decisions == 78 and space.kinds.count("skip") == 66
    assert space.largest_graph == 14
    with pytest.raises(UserError, match="no copies"):
        space.copies(np.zeros(78, np.int32), 3, np.random.default_rng(0))


def test_a_skip_or_an_operation_is_one_edit():
    space = MacroSpace()
    decisions = np.random.default_rng(0).integers(0, space.num_choices)
    others = [decisions]
    for position in (0, 2, 77):
        other = decisions.copy()
        other[position] = (other[position] + 1) % space.num_choices[position]
        others.append(other)
    found = pairwise_edit_distance(space, np.stack(others))
    assert found[0].tolist() == [0, 1, 1, 1]


# Micro.


def test_micro_decisions_by_hand():
    """Block 0 adds conv of both inputs, block 1 reads block 0 twice, in the normal cell."""
    space = MicroSpace(blocks=2)
    decisions = space.parse("0 0 1 1 2 2 2 4 0 3 0 3 1 4 1 4")
    assert space.kinds[:4] == ("connection", "operation", "connection", "operation")
    assert space.reads(decisions).tolist() == [[[0, 1], [2, 2]], [[0, 0], [1, 1]]]
    assert space.operations(decisions).tolist() == [[[0, 1], [2, 4]], [[3, 3], [4, 4]]]
    loose = space.loose_ends(decisions)
    assert loose.tolist() == [[[False, False, False, True], [False, False, True, True]]]
    counts = space.features(decisions)
    assert [int(of[0]) for of in counts.values()] == [1, 2]
    normal, reduction = space.to_graphs(decisions)
    assert [label for _, label in sorted(normal.nodes(data="label"))] == [
        "cell before",
        "last cell",
        "sep_3x3",
        "sep_5x5",
        "avg_3x3",
        "identity",
        "output",
    ]
    assert set(normal.edges) == {(0, 2), (1, 3), (2, 4), (3, 4), (2, 5), (3, 5), (4, 6), (5, 6)}
    ends = {(node, 6) for node in (2, 3, 4, 5)}
    assert set(reduction.edges) == {(0, 2), (0, 3), (1, 4), (1, 5)} | ends


def test_a_published_architecture_can_be_pasted():
    space = MicroSpace()
    decisions = space.parse(PUBLISHED)
    assert space.num_decisions == len(decisions) == 40 and space.format(decisions) == PUBLISHED
    # Its normal cell reads no block: all five are loose, and both inputs are read.
    assert space.loose_ends(decisions)[0, 0].tolist() == [False, False] + [True] * 5
    assert space.largest_graph == 13


def test_distances_of_both_cells_add_up():
    space = MicroSpace()
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, space.num_choices) for _ in range(2))
    mixed = np.concatenate([first[:20], second[20:]])
    found = pairwise_edit_distance(space, np.stack([first, mixed, second]))
    assert found[0, 1] > 0 and found[1, 2] > 0
    assert found[0, 2] == found[0, 1] + found[1, 2]


def test_copies_of_a_micro_architecture_are_isomorphic_and_different():
    space, rng = MicroSpace(), np.random.default_rng(0)
    for decisions in rng.integers(0, space.num_choices, (10, 40), np.int32):
        copies = space.copies(decisions, 6, rng)
        space.validate(copies)
        assert copies.dtype == np.int32 and len({*map(bytes, copies)}) == len(copies) == 6
        edits = pairwise_edit_distance(space, np.stack([decisions, *copies]))
        assert not edits.any()
        for copy in copies:
            for a, b in zip(space.to_graphs(decisions), space.to_graphs(copy), strict=True):
                match = nx.algorithms.isomorphism.categorical_node_match("label", None)
                assert nx.is_isomorphic(a, b, node_match=match)


def test_all_copies_of_a_small_micro_architecture():
    """Of two blocks that both read inputs alone either may be first, and in each either half."""
    space = MicroSpace(blocks=2)
    cell = [0, 0, 1, 1, 0, 2, 1, 3]
    found = space.copies(np.array(cell + [0, 0, 0, 0, 2, 1, 2, 1]), 100, np.random.default_rng(0))
    halves = ([0, 0, 1, 1], [1, 1, 0, 0]), ([0, 2, 1, 3], [1, 3, 0, 2])
    wanted = {
        (*a, *b, 0, 0, 0, 0, 2, 1, 2, 1)
        for first, second in (halves, halves[::-1])
        for a in first
        for b in second
    }
    assert set(map(tuple, found.tolist())) == wanted


# Both.


@pytest.mark.parametrize("space", [MacroSpace(), MicroSpace()], ids=["macro", "micro"])
def test_measures_have_a_name_for_every_kind(space):
    decisions = np.random.default_rng(0).integers(0, space.num_choices, (4, space.num_decisions))
    edits = correlations.edit_distances(space, decisions)
    assert np.isfinite(edits).all()
    found = correlations.measures(space, decisions, edits=edits)
    assert {correlations.common(kind) for kind in set(space.kinds)} <= set(found)
    assert all(column.shape == (6,) for column in found.values())
