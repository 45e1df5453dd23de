"""Fixed models: a cell that is the shared network's, an LSTM written in numpy, and numbers of
parameters counted by hand.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.errors import UserError
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import alone, shared
from nas.supernets.recurrent.settings import LanguageModelSettings
from nas.supernets.recurrent.shared import Dropout
from nas.training import num_parameters

SPACE = RecurrentSpace()
CONFIG = LanguageModelSettings(
    width=8, init_scale=0.8, max_norm=0.8
)  # a norm that some states exceed
VOCABULARY, ROWS, STEPS = 13, 3, 6


def tokens_of(seed, steps=STEPS):
    return np.random.default_rng(seed).integers(VOCABULARY, size=(ROWS, steps + 1), dtype=np.int32)


def masks_of(width, seed=0):
    rng = np.random.default_rng(seed)
    return Dropout(
        *(
            rng.binomial(1, p, (ROWS, width)).astype(np.float32) / np.float32(p)
            for p in (0.8, 0.5, 0.7)
        )
    )


@functools.partial(jax.jit, static_argnums=0)
def shared_loss(space, params, decisions, tokens, hidden, dropout):
    """The shared network's loss with traced decisions."""
    cell = shared.read_cell(space, decisions)
    return shared.loss(
        shared.gather(params, cell), cell, tokens, hidden, max_norm=CONFIG.max_norm, dropout=dropout
    )


def shared_weights(space):
    return jax.jit(functools.partial(shared.init, space, CONFIG, VOCABULARY))(jax.random.key(0))


@pytest.mark.parametrize(
    ("nodes", "count"), [(5, 10), pytest.param(12, 20, marks=pytest.mark.slow)]
)
def test_cells_with_shared_weights_are_the_shared_network(nodes, count):
    space = RecurrentSpace(num_nodes=nodes)
    shared, clipped = shared_weights(space), []
    for index, decisions in enumerate(
        np.asarray(space.sample_uniform(jax.random.key(1), 20))[-count:]
    ):
        model = alone.cell(space, decisions, CONFIG, VOCABULARY)
        params = alone.from_shared(space, shared, decisions)
        loss = jax.jit(model.loss)
        ours = theirs = np.asarray(model.initial_carry(ROWS))
        dropout = masks_of(CONFIG.width, index)
        for window in range(3):  # states carry over
            tokens = tokens_of(100 * index + window)
            value, ours = loss(params, tokens, ours, dropout)
            expected, theirs = shared_loss(space, shared, decisions, tokens, theirs, dropout)
            np.testing.assert_allclose(value, expected, rtol=1e-4)
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
            clipped.extend(np.linalg.norm(ours, axis=1) > CONFIG.max_norm - 1e-3)
    assert 0.1 < np.mean(clipped) < 0.9


def test_a_cell_has_its_own_matrices_and_the_shared_networks_gradients():
    space = RecurrentSpace(num_nodes=4)
    shared, tokens, masks = shared_weights(space), tokens_of(7), masks_of(CONFIG.width)
    hidden = np.full((ROWS, CONFIG.width), 0.25, np.float32)
    theirs = jax.jit(jax.grad(lambda p, d: shared_loss(space, p, d, tokens, hidden, masks)[0]))
    for decisions in np.asarray(space.sample_uniform(jax.random.key(3), 2)):
        model, used = (
            alone.cell(space, decisions, CONFIG, VOCABULARY),
            alone.from_shared(space, shared, decisions),
        )
        own = jax.eval_shape(model.init, jax.random.key(0))
        assert jax.tree.map(lambda leaf: leaf.shape, own) == jax.tree.map(
            lambda leaf: leaf.shape, used
        )
        assert len(own["recurrent"]) == space.num_nodes
        gradient = jax.jit(
            jax.grad(lambda p, model=model: model.loss(p, tokens, hidden, masks)[0])
        )(used)
        expected = alone.from_shared(space, theirs(shared, decisions), decisions)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), gradient, expected)
        assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(params, tokens, hidden, memory, dropout):
    nats = []
    for b, row in enumerate(tokens):
        h, c = hidden[b], memory[b]
        for token, target in zip(row[:-1], row[1:], strict=True):
            x = params["embedding"][token] * dropout.input[b]
            i, f, g, o = np.split(
                x @ params["input"]
                + (h * dropout.hidden[b]) @ params["recurrent"]
                + params["gates"],
                4,
            )
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            logits = params["embedding"] @ (h * dropout.output[b]) + params["bias"]
            nats.append(np.logaddexp.reduce(logits) - logits[target])
        hidden[b], memory[b] = h, c
    return np.mean(nats), hidden, memory


def test_the_lstm_is_that_of_its_equations():
    model = alone.lstm(CONFIG, VOCABULARY)
    params = jax.jit(model.init)(jax.random.key(0))
    np.testing.assert_array_equal(params["gates"], [0] * 8 + [1] * 8 + [0] * 16)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    carry, masks = (rng.normal(size=(2, ROWS, 8)).astype(np.float32), masks_of(8))
    value, (hidden, memory) = jax.jit(model.loss)(params, tokens_of(0), tuple(carry), masks)
    expected = numpy_lstm(params, tokens_of(0), *carry.copy(), masks)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose([hidden, memory], expected[1:], atol=1e-5)


def test_the_highway_layer_is_node_0_of_a_cell():
    """With biases of zero it is a cell of two nodes the second of which passes on the first: gate
    closed, or identity of it.
    """
    model = alone.highway(CONFIG, VOCABULARY)
    params, tokens, masks = jax.jit(model.init)(jax.random.key(0)), tokens_of(0), masks_of(8)
    np.testing.assert_array_equal(params["gates"], [-1] * 8 + [0] * 8)
    hidden = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    pass_on = np.concatenate(
        [np.zeros((8, 8)), np.eye(8)], axis=1, dtype=np.float32
    )  # a half-open gate on the identity
    chain = {n: params[n] for n in ("embedding", "bias", "input")} | {
        "recurrent": (params["recurrent"], pass_on)
    }
    cell = alone.cell(
        RecurrentSpace(num_nodes=2),
        np.array([0, 0, 2]),
        LanguageModelSettings(width=8, max_norm=0.0),
        VOCABULARY,
    )
    expected, state = jax.jit(cell.loss)(chain, tokens, hidden, masks)
    value, (last,) = jax.jit(model.loss)(
        params | {"gates": jnp.zeros(16)}, tokens, (hidden,), masks
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(last, state, atol=1e-5)
    assert (
        abs(float(jax.jit(model.loss)(params, tokens, (hidden,), masks)[0]) - float(value)) > 1e-3
    )  # biases are used


@pytest.mark.parametrize(("width", "vocabulary"), [(96, 4000), (200, 4000), (1000, 10_000), (4, 5)])
def test_parameter_counts_agree(width, vocabulary):
    config = LanguageModelSettings(width=width)
    papers = "0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1"
    cell, lstm, highway = (
        alone.build(SPACE, config, vocabulary, name) for name in (papers, "lstm", "highway")
    )
    # An embedding and a bias a type; input and each of 12 nodes have a matrix for the gate and one
    # for the candidate.
    wanted = vocabulary * (width + 1) + 13 * 2 * width**2
    assert num_parameters(cell) == wanted == alone.num_cell_parameters(SPACE, width, vocabulary)
    for model, products in (
        (lstm, 4),
        (highway, 2),
    ):  # each with a matrix of inputs, one of states and a bias
        counts = {w: vocabulary * (w + 1) + products * (2 * w**2 + w) for w in range(1, 4 * width)}
        assert num_parameters(model) == counts[model.width]
        assert abs(counts[model.width] - wanted) == min(
            abs(count - wanted) for count in counts.values()
        )
        assert width < 90 or abs(counts[model.width] / wanted - 1) < 0.01


@pytest.mark.parametrize("architecture", ["gru", "", "0 1 0"])
def test_what_is_no_architecture(architecture):
    with pytest.raises(UserError):
        alone.build(SPACE, CONFIG, VOCABULARY, architecture)
