"""What every registered search space promises, at several sizes; a new space fails here until SIZES
names it. And what a space of one's own must promise, with its defaults:

    SPACE=own_task:Layers PYTHONPATH=tests python -m pytest tests/spaces/test_spaces_contract.py
"""

import dataclasses
import functools
import os

import jax
import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from nas import tasks
from nas.errors import UserError
from nas.spaces import SearchSpace
from nas.spaces.space import ABSENT
from nas.tasks import SPACES
from tests import own_task

SIZES = {
    "recurrent": [{"num_nodes": nodes} for nodes in (2, 4, 12)],
    "nasbench201": [{}],
    "macro": [{"layers": layers} for layers in (2, 3, 12)],
    "micro": [{"blocks": blocks} for blocks in (1, 5)],
}
EVERY_SPACE = {
    f"{name} {size}": tasks.space(name, size) for name in SPACES for size in SIZES.get(name, [{}])
}
EVERY_SPACE["own_task"] = own_task.Layers()
if own := os.environ.get("SPACE"):
    EVERY_SPACE = {own: tasks.space(own, {})}
NUMBERED = {
    name: space for name, space in EVERY_SPACE.items() if type(space).format is SearchSpace.format
}
NOT_NUMBERS = ["x", "1.0", "-1", "+1", "1e0", "0x1", "1_0", "½", "²", "١", "nan", "1,2"]

# The fixture is a frozen space: nothing that one example does can be seen by the next.
properties = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=EVERY_SPACE)
def space(request):
    return EVERY_SPACE[request.param]


@pytest.fixture(params=NUMBERED)
def numbered(request):
    """A space whose text form is the decisions themselves."""
    return EVERY_SPACE[request.param]


def vectors(space):
    """Any decision vector of a space, as a list."""
    return st.tuples(*(st.integers(0, choices - 1) for choices in space.num_choices)).map(list)


@functools.cache
def uniform(space):
    """3,000 uniform samples."""
    return np.asarray(space.sample_uniform(jax.random.key(0), 3000))


def message(function, *arguments):
    """The one line that a rejection is told with."""
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_registered_space_is_tested():
    assert set(SIZES) == set(SPACES)


# What a space says of its decisions.


def test_description_is_consistent(space):
    assert len(space.num_choices) == len(space.kinds) == space.num_decisions
    assert min(space.num_choices) >= 1 and max(space.num_choices) == space.max_choices
    assert space.label_kind in space.kinds and set(space.choice_names) <= set(space.kinds)
    assert set(space.io_labels) <= set(space.label_names) and len(space.part_names) >= 1
    for kind, names in space.choice_names.items():
        assert len(set(names)) == len(names) == max(_choices_of(space, kind))
    assert len(set(space.label_names)) == len(space.label_names)


def test_choice_mask_marks_the_first_choices_of_every_position(space):
    mask = space.choice_mask()
    assert mask.shape == (space.num_decisions, space.max_choices) and mask.dtype == bool
    for row, choices in zip(mask, space.num_choices, strict=True):
        assert row.tolist() == [True] * choices + [False] * (space.max_choices - choices)


def test_positions_of_all_kinds_are_the_decisions_that_have_a_choice(space):
    found = [(int(t), kind) for kind in set(space.kinds) for t in space.positions(kind)]
    assert sorted(found) == [
        (t, space.kinds[t]) for t in range(space.num_decisions) if space.num_choices[t] > 1
    ]
    assert all(np.all(np.diff(space.positions(kind)) > 0) for kind in space.kinds)


def test_a_space_is_a_value(space):
    twin = dataclasses.replace(space)
    assert twin is not space and twin == space and hash(twin) == hash(space)
    assert sum(space == other for other in EVERY_SPACE.values()) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        space.num_choices = (1,)


# Uniform sampling.


def test_uniform_samples_are_valid_and_every_choice_is_equally_likely(space):
    decisions, n = uniform(space), 3000
    assert decisions.shape == (n, space.num_decisions) and decisions.dtype == np.int32
    np.testing.assert_array_equal(space.validate(decisions), decisions)
    for column, choices in zip(decisions.T, space.num_choices, strict=True):
        counts = np.bincount(column, minlength=choices)
        assert counts.min() > 0
        statistic = np.sum((counts - n / choices) ** 2) / (n / choices)
        assert choices == 1 or statistic < chi2.ppf(1 - 1e-5, choices - 1)


def test_uniform_samples_of_pairs_of_positions_are_independent(space):
    decisions, n = uniform(space), 3000
    one_hot = [
        np.eye(c)[column] - 1 / c for column, c in zip(decisions.T, space.num_choices, strict=True)
    ]
    for t, first in enumerate(one_hot):
        for second in one_hot[t + 1 :]:
            assert np.abs(first.T @ second / n).max() < 6 * 0.25 / np.sqrt(
                n
            )  # a product's standard deviation is below 1/4


def test_uniform_samples_depend_on_the_key_alone(space):
    # The space is a static argument: it must be hashable, and closing over it must not change a
    # number.
    jitted = jax.jit(lambda s, k: s.sample_uniform(k, 3000), static_argnums=0)
    np.testing.assert_array_equal(jitted(space, jax.random.key(0)), uniform(space))
    assert not np.array_equal(jitted(space, jax.random.key(1)), uniform(space))


# The text form.


@properties
@given(st.data())
def test_format_and_parse_are_inverses(space, data):
    vector = data.draw(vectors(space))
    text = space.format(vector)
    parsed = space.parse(text)
    assert parsed.dtype == np.int32 and parsed.tolist() == vector
    assert space.format(parsed) == text


def test_decisions_are_written_as_numbers(numbered):
    vector = [choices - 1 for choices in numbered.num_choices]
    assert numbered.format(vector) == " ".join(map(str, vector))


def test_parse_ignores_how_numbers_are_spaced(numbered):
    vector = [choices - 1 for choices in numbered.num_choices]
    assert numbered.parse("\n " + "  \t".join(map(str, vector)) + " \n").tolist() == vector


@properties
@given(st.data())
def test_parse_names_the_token_that_is_no_number(numbered, data):
    tokens = [str(d) for d in data.draw(vectors(numbered))]
    position = data.draw(st.integers(0, len(tokens) - 1))
    tokens[position] = data.draw(st.sampled_from(NOT_NUMBERS))
    told = message(numbered.parse, " ".join(tokens))
    assert f"position {position}:" in told and repr(tokens[position]) in told


@properties
@given(st.data())
def test_parse_names_the_number_out_of_range(numbered, data):
    vector = data.draw(vectors(numbered))
    position = data.draw(st.integers(0, len(vector) - 1))
    excess = data.draw(st.sampled_from([0, 1, 2**31, 2**32]))
    vector[position] = numbered.num_choices[position] + excess
    told = message(numbered.parse, " ".join(map(str, vector)))
    assert (
        f"position {position} " in told
        and f" {vector[position]} is not in 0..{numbered.num_choices[position] - 1}" in told
    )


@pytest.mark.parametrize(
    "digits", [18, 19, 20, 5000]
)  # an int64 holds 18 digits, Python's int() reads 4300
def test_parse_rejects_numbers_of_any_length(numbered, digits):
    tokens = ["0"] * numbered.num_decisions
    tokens[2] = "9" * digits
    told = message(numbered.parse, " ".join(tokens))
    assert "position 2" in told and tokens[2] in told


@pytest.mark.parametrize("change", [-1, 1, 5])
def test_parse_counts(numbered, change):
    count = max(0, numbered.num_decisions + change)
    told = message(numbered.parse, " ".join(["0"] * count))
    assert f"has {numbered.num_decisions} numbers" in told and f"got {count}" in told


def test_parse_of_nothing(numbered):
    assert "got 0" in message(numbered.parse, "  \n")


def test_parse_rejects_what_is_no_architecture(space):
    text = space.format([0] * space.num_decisions)
    for wrong in ("", " ", "x", text[:-1], text + text, text.replace("0", "é")):
        message(space.parse, wrong)


# Validation.


@properties
@given(st.data())
def test_validate_returns_what_is_valid(space, data):
    batch = data.draw(st.lists(vectors(space), min_size=1, max_size=4))
    dtype = data.draw(st.sampled_from([np.uint8, np.int32, np.int64, list]))
    checked = space.validate(batch if dtype is list else np.array(batch, dtype))
    assert checked.dtype == np.int32 and checked.tolist() == batch
    assert space.validate(batch[0]).tolist() == batch[:1]


@properties
@given(st.data())
def test_validate_names_architecture_position_and_value(space, data):
    batch = np.array(data.draw(st.lists(vectors(space), min_size=1, max_size=4)))
    row = data.draw(st.integers(0, len(batch) - 1))
    position = data.draw(st.integers(0, space.num_decisions - 1))
    value = data.draw(st.integers(-(2**40), 2**40))
    assume(not 0 <= value < space.num_choices[position])
    batch[row, position] = value
    told = message(space.validate, batch)
    assert told.startswith(
        f"architecture {row}, position {position} ({space.kinds[position]}): {value} "
    )
    assert told.endswith(f"0..{space.num_choices[position] - 1}")


def test_validate_tells_the_first_fault(space):
    batch = np.zeros((3, space.num_decisions), int)
    batch[1, -1] = batch[2, 0] = -7
    assert message(space.validate, batch).startswith(
        f"architecture 1, position {space.num_decisions - 1} "
    )


def test_validate_rejects_other_shapes_and_types(space):
    length = space.num_decisions
    for shape in [(length + 1,), (2, length - 1), (1, 2, length), (0,), ()]:
        told = message(space.validate, np.zeros(shape, int))
        assert f"has {length} numbers" in told and str(shape) in told
    for dtype in ("bool", "complex64"):
        assert (
            message(space.validate, np.zeros((2, length), dtype))
            == f"decisions must be whole numbers, got {dtype}"
        )


def test_whole_numbers_may_be_stored_as_floats(space):
    decisions = np.zeros((2, space.num_decisions), np.float32)
    assert space.validate(decisions).dtype == np.int32
    for value in (0.5, np.nan, np.inf, -1e30):
        decisions[1, 2] = value
        assert message(space.validate, decisions).startswith("architecture 1, position 2")


# Graphs.


@properties
@given(st.data())
def test_arrays_and_networkx_graphs_say_the_same(space, data):
    batch = data.draw(st.lists(vectors(space), min_size=1, max_size=3))
    for io in (False, True):
        parts = space.graphs(batch, io=io)
        assert len(parts) == len(space.part_names)
        for part, graphs in enumerate(parts):
            shape = (len(batch), *graphs.labels.shape[1:] * 2)
            assert graphs.adjacency.dtype == bool and graphs.adjacency.shape == shape
            for vector, adjacency, labels in zip(batch, *graphs, strict=True):
                graph = space.to_graphs(vector, io=io)[part]
                assert sorted(graph) == [i for i, label in enumerate(labels) if label != ABSENT]
                assert all(graph.nodes[i]["label"] == space.label_names[labels[i]] for i in graph)
                assert set(graph.edges) == set(map(tuple, np.argwhere(adjacency).tolist()))


@properties
@given(st.data())
def test_io_adds_inputs_and_an_output_and_nothing_else(space, data):
    vector = data.draw(vectors(space))
    parts = (space.to_graphs(vector, io=io) for io in (False, True))
    for inner, graph in zip(*parts, strict=True):
        ends = _ends(space, graph)
        *sources, sink = ends
        assert all(graph.in_degree(source) == 0 for source in sources)
        assert graph.out_degree(sink) == 0
        assert not set(space.io_labels) & {label for _, label in inner.nodes("label")}
        rest = graph.subgraph(set(graph) - set(ends))
        # In both graphs nodes are numbered in the same order.
        number = dict(zip(sorted(rest), sorted(inner), strict=True))
        renumbered = nx.relabel_nodes(rest, number)
        assert dict(renumbered.nodes("label")) == dict(inner.nodes("label"))
        assert set(renumbered.edges) == set(inner.edges)


@properties
@given(st.data())
def test_every_node_computes_something_that_is_used(space, data):
    for graph in space.to_graphs(data.draw(vectors(space))):
        *sources, sink = _ends(space, graph)
        assert nx.is_directed_acyclic_graph(graph)
        inner = set(graph) - {*sources, sink}
        reached = set().union(*(nx.descendants(graph, source) for source in sources))
        assert reached - {sink} == inner == nx.ancestors(graph, sink) - set(sources)


def test_different_decisions_give_different_graphs_unless_nodes_are_left_out(space):
    decisions = np.unique(_uniform(space, 4, 200), axis=0)
    whole = [(part.labels != ABSENT).all(axis=1) for part in space.graphs(decisions)]
    decisions = decisions[np.all(whole, axis=0)]
    assert len(decisions) > 10
    arrays = [array for part in space.graphs(decisions) for array in part]
    described = {tuple(a.tobytes() for a in each) for each in zip(*arrays, strict=True)}
    assert len(described) == len(decisions)


def test_features_are_a_number_an_architecture(space):
    decisions = uniform(space)[:20]
    for name, values in space.features(decisions).items():
        assert name and values.shape == (20,) and np.issubdtype(values.dtype, np.number)


def _ends(space, graph):
    """The node of each of `io_labels`; a graph has one of each."""
    found = [[i for i in graph if graph.nodes[i]["label"] == label] for label in space.io_labels]
    assert all(len(nodes) == 1 for nodes in found)
    return [nodes[0] for nodes in found]


def _choices_of(space, kind):
    return [c for k, c in zip(space.kinds, space.num_choices, strict=True) if k == kind]


def _uniform(space, seed, n):
    return np.random.default_rng(seed).integers(0, space.num_choices, (n, space.num_decisions))


# Other architectures near one.


def test_neighbours_differ_in_one_decision_and_are_all_there(space):
    decisions = uniform(space)[0]
    found = np.asarray(space.neighbours(decisions))
    np.testing.assert_array_equal(space.validate(found), found)
    assert np.all((found != decisions).sum(axis=1) == 1)
    expected = sum(choices - 1 for choices in space.num_choices)
    assert len(np.unique(found, axis=0)) == len(found) == expected


def test_mutations_are_neighbours(space):
    parents = uniform(space)[:100]
    found = np.asarray(space.mutate(jax.random.key(1), parents))
    np.testing.assert_array_equal(space.validate(found), found)
    assert np.all((found != parents).sum(axis=1) == 1)
