"""The recurrent cell of ENAS: worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.spaces.recurrent import RecurrentSpace

# The cell that Pham et al. (2018) found, read by hand: node 1 reads node 0 and is a tanh, node 2
# reads 1 and is a ReLU, ...
PAPERS_CELL = "0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1"
PAPERS_PARENTS = {1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 5, 7: 1, 8: 6, 9: 8, 10: 8, 11: 8}
PAPERS_ACTIVATIONS = [
    "tanh",
    "tanh",
    "relu",
    "relu",
    "tanh",
    "tanh",
    "relu",
    "tanh",
    "relu",
    "relu",
    "relu",
    "relu",
]
PAPERS_LOOSE_ENDS = [3, 4, 7, 9, 10, 11]


def test_the_papers_cell():
    space = RecurrentSpace()
    decisions = space.parse(PAPERS_CELL)
    graph = space.to_graphs(decisions, io=False)[0]
    assert sorted(graph) == list(range(12))
    assert set(graph.edges) == {(parent, node) for node, parent in PAPERS_PARENTS.items()}
    assert [graph.nodes[i]["label"] for i in range(12)] == PAPERS_ACTIVATIONS
    assert np.flatnonzero(space.loose_ends(decisions)[0]).tolist() == PAPERS_LOOSE_ENDS
    assert space.parents(decisions).tolist() == list(PAPERS_PARENTS.values())
    assert space.activations(decisions).tolist() == [0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1]


def test_the_papers_cell_with_input_and_output():
    space = RecurrentSpace()
    graph = space.to_graphs(space.parse(PAPERS_CELL))[0]
    assert [graph.nodes[i]["label"] for i in range(14)] == ["input", *PAPERS_ACTIVATIONS, "output"]
    # Node i of the cell is number i + 1; node 0 reads the input, and the output the loose ends.
    inner = {(parent + 1, node + 1) for node, parent in PAPERS_PARENTS.items()}
    assert set(graph.edges) == inner | {(0, 1)} | {(end + 1, 13) for end in PAPERS_LOOSE_ENDS}


def test_two_nodes_by_hand():
    space = RecurrentSpace(num_nodes=2)
    assert (space.num_choices, space.kinds) == (
        (4, 1, 4),
        ("activation", "connection", "activation"),
    )
    assert (
        space.positions("activation").tolist() == [0, 2]
        and space.positions("connection").tolist() == []
    )
    graph = space.to_graphs([3, 0, 2])[0]
    assert list(graph.nodes("label")) == [
        (0, "input"),
        (1, "sigmoid"),
        (2, "identity"),
        (3, "output"),
    ]
    assert set(graph.edges) == {(0, 1), (1, 2), (2, 3)}
    assert space.loose_ends([3, 0, 2]).tolist() == [[False, True]]


def test_four_nodes_by_hand():
    space = RecurrentSpace(num_nodes=4)
    assert space.num_choices == (4, 1, 4, 2, 4, 3, 4)
    assert space.positions("activation").tolist() == [0, 2, 4, 6]
    assert space.positions("connection").tolist() == [
        3,
        5,
    ]  # node 1 can only read node 0: no choice
    adjacency, labels = space.graphs([[0, 0, 1, 0, 2, 1, 3]], io=False)[
        0
    ]  # nodes 1 and 2 read 0, node 3 reads 1
    assert np.argwhere(adjacency[0]).tolist() == [[0, 1], [0, 2], [1, 3]]
    assert labels.tolist() == [[0, 1, 2, 3]]
    assert space.loose_ends([0, 0, 1, 0, 2, 1, 3]).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(
    ("nodes", "decisions", "sequences"), [(2, 3, 16), (3, 5, 128), (4, 7, 1536), (12, 23, None)]
)
def test_number_of_decisions_and_of_sequences(nodes, decisions, sequences):
    space = RecurrentSpace(num_nodes=nodes)
    assert space.num_decisions == decisions
    assert math.prod(space.num_choices) == (sequences or 4**12 * math.factorial(11))
    assert sequences or math.prod(space.num_choices) == pytest.approx(6.7e14, rel=1e-3)


@pytest.mark.parametrize("nodes", [1, 0, -3])
def test_too_few_nodes(nodes):
    with pytest.raises(UserError, match=f"at least 2, got {nodes}$"):
        RecurrentSpace(num_nodes=nodes)


def test_spaces_are_told_apart_by_their_nodes():
    assert RecurrentSpace() == RecurrentSpace(num_nodes=12) != RecurrentSpace(num_nodes=11)
    assert {RecurrentSpace(num_nodes=3): "three"}[RecurrentSpace(num_nodes=3)] == "three"


def test_an_equal_space_is_the_same_static_argument():
    traces = []

    @jax.jit
    def traced(decisions):
        traces.append(None)
        return decisions

    static = jax.jit(lambda space, decisions: space.parents(traced(decisions)), static_argnums=0)
    decisions = jnp.arange(5, dtype=jnp.int32)
    for _ in range(3):
        assert static(RecurrentSpace(num_nodes=3), decisions).tolist() == [1, 3]
    assert static._cache_size() == len(traces) == 1


def test_parts_of_traced_vectors():
    space, decisions = RecurrentSpace(num_nodes=3), np.array([[3, 0, 2, 1, 0], [1, 0, 1, 0, 2]])
    activations, parents = jax.jit(lambda d: (space.activations(d), space.parents(d)))(decisions)
    assert activations.tolist() == [[3, 2, 0], [1, 1, 2]] and parents.tolist() == [[0, 1], [0, 0]]


@settings(deadline=None)
@given(st.integers(2, 9), st.randoms(use_true_random=False))
def test_every_node_but_the_first_reads_its_parent_and_the_output_what_nobody_reads(nodes, random):
    space = RecurrentSpace(num_nodes=nodes)
    parents = [random.randrange(i) for i in range(1, nodes)]
    vector = [0, *(d for parent in parents for d in (parent, random.randrange(4)))]
    graph = space.to_graphs(vector)[0]
    assert [sorted(graph.predecessors(i + 1)) for i in range(nodes)] == [
        [0],
        *([parent + 1] for parent in parents),
    ]
    loose = [i for i in range(nodes) if i not in parents]
    assert sorted(graph.predecessors(nodes + 1)) == [i + 1 for i in loose]
    assert np.flatnonzero(space.loose_ends(vector)[0]).tolist() == loose
