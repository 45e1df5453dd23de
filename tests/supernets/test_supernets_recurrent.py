"""The shared-weight recurrent model against a plain numpy cell written from the equations, and its
gradients against others.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import native_loop, shared
from nas.supernets.recurrent.settings import LanguageModelSettings
from tests.supernets.numpy_cell import (
    MAX_NORM,
    PAPERS_CELL,
    ROWS,
    WIDTH,
    numpy_loss,
    problem,
    random_decisions,
    single_precision,
)

pytestmark = pytest.mark.device

# Compiled as a whole: operation by operation, most of the time would go into compiling each.
read_cell = jax.jit(shared.read_cell, static_argnums=0)


@functools.cache
def compiled_loss(space, max_norm, deferred):
    @jax.jit
    def run(weights, decisions, tokens, hidden, masks):
        cell = shared.read_cell(space, decisions)
        used = shared.gather(weights, cell)
        dropout = shared.Dropout(*(masks or (None, None, None)))
        return shared.loss(
            used, cell, tokens, hidden, max_norm=max_norm, dropout=dropout, deferred=deferred
        )

    return run


@functools.cache
def compiled_losses(space, max_norm, chunk, platform="cpu"):
    def choose(*operands, **functions):
        return functions.get(platform, functions["default"])(*operands)

    @jax.jit
    def run(weights, decisions, tokens, hidden):
        cells = jax.vmap(functools.partial(shared.read_cell, space))(decisions)
        with pytest.MonkeyPatch.context() as patch:  # what an accelerator computes, computed here
            patch.setattr(jax.lax, "platform_dependent", choose)
            if platform != "cpu":
                patch.setattr(native_loop, "available", lambda dtype: False)
            return shared.losses(weights, cells, tokens, hidden, max_norm=max_norm, chunk=chunk)

    return run


def assert_close(actual, desired, tolerance):
    """Their difference is small against the length of `desired`."""
    actual, desired = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
    assert actual.shape == desired.shape
    assert np.linalg.norm(actual - desired) <= tolerance * np.linalg.norm(desired)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# Cells and their weights.


def test_read_cell_of_the_papers_own_cell():
    cell = read_cell(RecurrentSpace(), np.array(PAPERS_CELL, np.int32))
    assert cell.activation.tolist() == [0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1]
    parents = [0, 1, 2, 2, 2, 5, 1, 6, 8, 8, 8]  # of nodes 1..11
    assert cell.slot.tolist() == [
        0,
        *(j + 1 for j in parents),
    ]  # slot 0 holds h_{t-1}, so node j is in slot j + 1
    # Before node i's matrices come node 0's one and 1 + 2 + ... + (i - 1) of the nodes before it.
    first = [1, 2, 4, 7, 11, 16, 22, 29, 37, 46, 56]
    assert cell.edge.tolist() == [0, *(row + j for row, j in zip(first, parents, strict=True))]
    loose = [3, 4, 7, 9, 10, 11]
    np.testing.assert_allclose(
        cell.output, [1 / 6 if i in loose else 0 for i in range(12)], rtol=1e-6
    )


@pytest.mark.parametrize("nodes", [2, 3, 12])
def test_every_edge_has_a_matrix_of_its_own(nodes):
    space = RecurrentSpace(num_nodes=nodes)
    rows = []
    for i in range(1, nodes):
        for j in range(i):
            decisions = np.zeros(space.num_decisions, np.int32)
            decisions[2 * i - 1] = j
            cell = read_cell(space, decisions)
            assert cell.edge[0] == 0
            rows.append(int(cell.edge[i]))
    assert sorted(rows) == list(range(1, nodes * (nodes - 1) // 2 + 1))
    weights = jax.eval_shape(
        lambda key: shared.init(space, LanguageModelSettings(width=4), 7, key), jax.random.key(0)
    )
    assert weights["recurrent"].shape == (len(rows) + 1, 4, 8)


def test_initial_weights_fill_the_given_range():
    space, config = RecurrentSpace(num_nodes=4), LanguageModelSettings(width=32, init_scale=0.25)
    weights = jax.tree.map(
        np.asarray, jax.jit(functools.partial(shared.init, space, config, 50))(jax.random.key(0))
    )
    assert {name: leaf.shape for name, leaf in weights.items()} == {
        "embedding": (50, 32),
        "bias": (50,),
        "input": (32, 64),
        "recurrent": (7, 32, 64),
    }
    assert not weights.pop("bias").any()
    for leaf in weights.values():
        assert -0.25 <= leaf.min() < -0.24 and 0.24 < leaf.max() < 0.25
        assert abs(leaf.mean()) < 5 * 0.25 / np.sqrt(3 * leaf.size)


def test_gather_takes_the_matrices_of_a_cell_and_add_moves_no_others():
    space = RecurrentSpace(num_nodes=4)
    weights = single_precision(problem(4).weights)
    cell = read_cell(
        space, np.array([0, 0, 1, 1, 2, 0, 3], np.int32)
    )  # edges (0, 1), (1, 2), (0, 3)
    rows = [0, 1, 3, 4]
    used = jax.tree.map(np.asarray, jax.jit(shared.gather)(weights, cell))
    np.testing.assert_array_equal(used["recurrent"], weights["recurrent"][rows])
    add = jax.jit(shared.add)
    jax.tree.map(
        np.testing.assert_array_equal,
        add(weights, cell, jax.tree.map(np.zeros_like, used)),
        weights,
    )
    moved = add(weights, cell, jax.tree.map(np.ones_like, used))
    for row in range(7):
        np.testing.assert_array_equal(
            moved["recurrent"][row], weights["recurrent"][row] + (1 if row in rows else 0)
        )
    for name in ("embedding", "bias", "input"):
        np.testing.assert_array_equal(moved[name], weights[name] + 1)


def test_dropout_masks_keep_the_mean_and_are_independent():
    config = LanguageModelSettings(
        width=50, dropout_input=0.2, dropout_hidden=0.0, dropout_output=0.5
    )
    sample = jax.jit(functools.partial(shared.sample_dropout, config, rows=200))
    masks = jax.tree.map(np.asarray, sample(jax.random.key(0)))
    assert masks.hidden is None
    for mask, rate in ((masks.input, 0.2), (masks.output, 0.5)):
        assert mask.shape == (200, 50)
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - rate)], rtol=1e-6)
        assert abs(mask.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / mask.size)
    assert abs(np.corrcoef(masks.input.ravel(), masks.output.ravel())[0, 1]) < 5 / np.sqrt(200 * 50)


# The loss.


@pytest.mark.parametrize("regularised", [False, True], ids=["plain", "clipped-and-dropout"])
@pytest.mark.parametrize("nodes", [2, 3, 12])
def test_loss_and_state_are_the_numpy_cells(float64, nodes, regularised):
    space = RecurrentSpace(num_nodes=nodes)
    weights, tokens, hidden, masks = problem(nodes)
    max_norm = MAX_NORM if regularised else 0
    loss = compiled_loss(space, max_norm, True)
    clipped = []
    for decisions in random_decisions(space, 30):
        expected = numpy_loss(
            weights, decisions, tokens, hidden, max_norm, masks if regularised else None
        )
        value, state = loss(
            weights, np.array(decisions, np.int32), tokens, hidden, masks if regularised else None
        )
        np.testing.assert_allclose(value, expected[0], rtol=1e-9)
        assert_close(state, expected[1], 1e-9)
        clipped.extend(expected[2] > MAX_NORM)
    assert not regularised or 0.1 < np.mean(clipped) < 0.9


def test_loss_in_single_precision():
    space = RecurrentSpace()
    weights, tokens, hidden, masks = problem(space.num_nodes)
    single = single_precision((weights, hidden, masks))
    for decisions in random_decisions(space, 30):
        expected = numpy_loss(weights, decisions, tokens, hidden, MAX_NORM, masks)
        for deferred in (False, True):
            loss = compiled_loss(space, MAX_NORM, deferred)
            value, state = loss(single[0], decisions, tokens, *single[1:])
            np.testing.assert_allclose(value, expected[0], rtol=1e-5)
            assert_close(state, expected[1], 1e-5)


@pytest.mark.parametrize(
    ("n", "chunk", "platform"),
    [
        (7, 2, "gpu"),
        (7, 3, "gpu"),
        (6, 3, "gpu"),
        (6, 1, "gpu"),
        (1, 2, "gpu"),
        (7, 2, "cpu"),
        (1, 1, "cpu"),
    ],
)
def test_losses_of_many_cells_are_the_loss_of_each(n, chunk, platform):
    space = RecurrentSpace(num_nodes=5)
    given = single_precision(problem(5))
    decisions = random_decisions(space, n)
    hidden = (
        given.hidden * np.linspace(-1, 1, n, dtype=np.float32)[:, None, None]
    )  # a state for each
    values, states = compiled_losses(space, MAX_NORM, chunk, platform)(
        given.weights, decisions, given.tokens, hidden
    )
    assert values.shape == (n,) and states.shape == (n, ROWS, WIDTH)
    for a in range(n):
        value, state = compiled_loss(space, MAX_NORM, True)(
            given.weights, decisions[a], given.tokens, hidden[a], None
        )
        np.testing.assert_allclose(values[a], value, rtol=1e-6)
        assert_close(states[a], state, 1e-6)


def test_states_stay_within_the_norm_for_any_cell():
    space, n = RecurrentSpace(), 200
    given = single_precision(problem(space.num_nodes, rows=2, steps=20))
    weights = given.weights | {name: 10 * given.weights[name] for name in ("input", "recurrent")}
    arguments = (
        weights,
        random_decisions(space, n),
        given.tokens,
        np.zeros((n, 2, WIDTH), np.float32),
    )
    values, states = compiled_losses(space, 25.0, 50)(*arguments)
    assert np.isfinite(values).all()
    norms = np.linalg.norm(states, axis=-1)
    assert norms.max() <= 25 * (1 + 1e-6) and np.isclose(norms, 25).any()
    values, _ = compiled_losses(space, 0, 50)(*arguments)
    assert not np.isfinite(
        values
    ).all()  # these weights are large: without the clip they blow some cells up


# Gradients.


@functools.cache
def compiled_gradients(space, max_norm, deferred):
    """Of the loss plus a direction times the last state, with respect to all weights and the first
    state.
    """

    @jax.jit
    def run(weights, decisions, tokens, hidden, masks, direction):
        cell = shared.read_cell(space, decisions)

        def objective(used, hidden):
            dropout = shared.Dropout(*masks)
            value, state = shared.loss(
                used, cell, tokens, hidden, max_norm=max_norm, dropout=dropout, deferred=deferred
            )
            return value + jnp.sum(direction * state)

        of_used, of_hidden = jax.grad(objective, argnums=(0, 1))(
            shared.gather(weights, cell), hidden
        )
        return shared.add(jax.tree.map(jnp.zeros_like, weights), cell, of_used), of_hidden

    return run


def test_deferred_gradients_are_plain_ones(float64):
    space = RecurrentSpace()
    weights, tokens, hidden, masks = problem(space.num_nodes, steps=6)
    direction = np.random.default_rng(1).normal(size=hidden.shape)
    clipped = []
    for decisions in [np.array(PAPERS_CELL, np.int32), *random_decisions(space, 6, seed=1)]:
        clipped.extend(
            numpy_loss(weights, decisions, tokens, hidden, MAX_NORM, masks)[2] > MAX_NORM
        )
        plain, deferred = (
            compiled_gradients(space, MAX_NORM, kind)(
                weights, decisions, tokens, hidden, masks, direction
            )
            for kind in (False, True)
        )
        for name in weights:
            assert_close(deferred[0][name], plain[0][name], 1e-12)
            assert np.any(plain[0][name])
        for matrix, expected in zip(deferred[0]["recurrent"], plain[0]["recurrent"], strict=True):
            assert_close(matrix, expected, 1e-11)
        assert_close(deferred[1], plain[1], 1e-12)
    assert 0.1 < np.mean(clipped) < 0.9


def test_deferred_gradients_are_finite_differences_of_the_numpy_cell(float64):
    space = RecurrentSpace(num_nodes=3)
    weights, tokens, hidden, masks = problem(3, vocabulary=3, width=2, rows=2, steps=4)
    direction = np.array([[0.3, -1.0], [0.7, 0.5]])
    max_norm, step, clipped = 0.5, 1e-6, []

    def objective(leaves, decisions):
        value, state, norms = numpy_loss(
            {n: leaves[n] for n in weights}, decisions, tokens, leaves["state"], max_norm, masks
        )
        clipped.extend(norms > max_norm)
        return value + np.sum(direction * state)

    leaves = weights | {"state": hidden}
    for decisions in ([0, 0, 1, 1, 2], [1, 0, 3, 0, 0], [3, 0, 2, 1, 1], [2, 0, 0, 0, 1]):
        run = compiled_gradients(space, max_norm, True)
        of_weights, of_state = run(
            weights, np.array(decisions, np.int32), tokens, hidden, masks, direction
        )
        for name, gradient in (of_weights | {"state": of_state}).items():
            expected = np.zeros_like(leaves[name])
            for index in np.ndindex(expected.shape):
                shift = np.zeros_like(expected)
                shift[index] = step
                above, below = (
                    objective(leaves | {name: leaves[name] + s}, decisions) for s in (shift, -shift)
                )
                expected[index] = (above - below) / (2 * step)
            np.testing.assert_allclose(gradient, expected, atol=1e-8)
    assert 0.1 < np.mean(clipped) < 0.9
