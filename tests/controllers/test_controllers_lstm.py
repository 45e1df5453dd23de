"""The LSTM controller: against a numpy LSTM written from the equations, and what its states depend
on.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.controllers import lstm, lstm_policy
from nas.controllers.lstm import LSTMSettings
from nas.spaces.recurrent import RecurrentSpace
from nas.types import Trace

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=3)
LENGTH, WIDTH = SPACE.num_decisions, 6
EVERY = np.indices(SPACE.num_choices, np.int32).reshape(LENGTH, -1).T
CONFIG = LSTMSettings(width=WIDTH, temperature=1.5, tanh_constant=2.0)


def parameters(seed=0, scale=0.8):
    shapes = jax.eval_shape(lstm_policy(SPACE, CONFIG).init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(scale=scale, size=leaf.shape).astype(np.float32), shapes
    )


@functools.cache
def every():
    """The trace of all sequences, as numpy arrays."""
    return jax.tree.map(np.asarray, jax.jit(lstm_policy(SPACE, CONFIG).score)(parameters(), EVERY))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_trace(params, decisions):
    """Hidden states [T + 1, H] and probabilities of the choices at each position, of one
    sequence.
    """
    row = {("activation", c): c for c in range(4)} | {("connection", c): 4 + c for c in range(2)}
    h = c = np.zeros(WIDTH)
    x, states, probabilities = params["start"], [], []
    for t in range(LENGTH + 1):
        i, f, o, g = np.split(x @ params["input"] + h @ params["recurrent"] + params["bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
        if t < LENGTH:
            logits = (h @ params["head"][t] + params["head_bias"][t])[: SPACE.num_choices[t]]
            weights = np.exp(2.0 * np.tanh(logits / 1.5))
            probabilities.append(weights / weights.sum())
            x = params["embedding"][row[SPACE.kinds[t], decisions[t]]]
    return np.array(states), probabilities


def test_equals_a_plain_numpy_lstm():
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters())
    for n in range(0, len(EVERY), 9):
        states, probabilities = numpy_trace(params, EVERY[n])
        np.testing.assert_allclose(every().hidden[n], states, atol=1e-5)
        for t, expected in enumerate(probabilities):
            np.testing.assert_allclose(
                np.exp(every().log_probs[n, t, : len(expected)]), expected, atol=1e-5
            )


def test_starts_small_random_and_without_bias():
    params = jax.jit(lstm_policy(SPACE, LSTMSettings(width=WIDTH, init_scale=0.05)).init)(
        jax.random.key(0)
    )
    params = jax.tree.map(np.asarray, params)
    for name, leaf in params.items():
        if name in ("bias", "head_bias"):
            assert not leaf.any()
        else:
            assert 0.03 < np.abs(leaf).max() <= 0.05
            assert np.abs(np.mean(leaf)) < 5 * 0.05 / math.sqrt(3 * leaf.size)


def test_sizes_of_the_papers_controller():
    shapes = jax.eval_shape(lstm_policy(RecurrentSpace(), LSTMSettings()).init, jax.random.key(0))
    assert shapes["embedding"].shape == (
        4 + 11,
        100,
    )  # activations, and the parents that node 11 can have
    assert shapes["head"].shape == (23, 100, 11)
    assert shapes["input"].shape == shapes["recurrent"].shape == (100, 400)


def test_settings_reach_the_softmax():
    # With heads that look at nothing, probabilities are those of the biases: 5 atanh(.4) becomes 1.
    params = parameters()
    bias = np.zeros((LENGTH, 4), np.float32)
    bias[:, 0] = 5 * math.atanh(0.4)
    params |= {"head": np.zeros_like(params["head"]), "head_bias": bias}
    score = jax.jit(lstm_policy(SPACE, LSTMSettings(width=WIDTH)).score)
    probabilities = np.exp(np.asarray(score(params, EVERY[:1]).log_probs)[0, :, 0])
    np.testing.assert_allclose(
        probabilities, [math.e / (math.e + c - 1) for c in SPACE.num_choices], rtol=1e-5
    )


# What depends on what.


def test_a_state_depends_on_exactly_the_decisions_it_has_consumed():
    hidden = every().hidden
    for t in range(LENGTH + 1):
        # One state for each way to begin, and no two ways give the same: p_1, a constant, cannot
        # tell them apart.
        prefixes, first, group = np.unique(
            EVERY[:, :t], axis=0, return_index=True, return_inverse=True
        )
        states = hidden[first, t]
        np.testing.assert_allclose(hidden[:, t], states[group.ravel()], atol=1e-6)
        distances = np.linalg.norm(states[:, None] - states[None], axis=-1)
        assert len(prefixes) == math.prod(SPACE.num_choices[:t])
        assert (distances + np.eye(len(prefixes))).min() > 1e-3


@pytest.mark.parametrize("t", [0, 2, 3])
def test_a_decision_changes_what_is_said_of_later_ones_and_not_of_earlier(t):
    table = every().log_probs.reshape(*SPACE.num_choices, LENGTH, -1)
    one, other = (np.take(table, choice, axis=t) for choice in (0, 1))
    np.testing.assert_allclose(one[..., : t + 1, :], other[..., : t + 1, :], atol=1e-6)
    for later in range(t + 1, LENGTH):
        if SPACE.num_choices[later] > 1:
            assert np.abs(one[..., later, :] - other[..., later, :]).max() > 0.01


def test_gradients_are_those_of_the_plain_loop():
    """The states' own gradient rule against plain differentiation of the loop, which adds weight
    gradients step by step.
    """
    steps, n, rows = 5, 7, 4
    rng = np.random.default_rng(0)
    recurrent, inputs = (jnp.asarray(rng.normal(size=(size, 4 * WIDTH))) for size in (WIDTH, rows))
    read = jnp.asarray(rng.integers(0, rows, (steps, n)), jnp.int32)
    weights = jnp.asarray(rng.normal(size=(steps, n, WIDTH)))

    def plain(recurrent, inputs):
        def step(carry, row):
            hidden, cell = lstm._lstm_cell(recurrent, *carry, inputs[row])
            return (hidden, cell), hidden

        zeros = jnp.zeros((n, WIDTH))
        return jax.lax.scan(step, (zeros, zeros), read)[1]

    def own(recurrent, inputs):
        return lstm._hidden_states(recurrent, inputs, read)

    (value, found), (expected_value, expected) = (
        jax.value_and_grad(
            lambda *of, states=states: jnp.sum(weights * states(*of)), argnums=(0, 1)
        )(recurrent, inputs)
        for states in (own, plain)
    )
    assert float(value) == pytest.approx(float(expected_value), rel=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.all(theirs != 0)  # every weight and every row takes part
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_positions_of_one_kind_share_their_embeddings():
    """The rows that the last state has a gradient to are the (kind, choice) pairs that were
    decided, wherever that was.
    """
    params, score = parameters(), lstm_policy(SPACE, CONFIG).score

    @jax.jit
    @jax.vmap
    def used(decisions):
        gradient = jax.grad(
            lambda e: jnp.sum(score(params | {"embedding": e}, decisions[None]).embedding())
        )
        return jnp.any(gradient(params["embedding"]) != 0, axis=1)

    rows = {}
    for decisions, row in zip(EVERY, np.asarray(used(EVERY)), strict=True):
        pairs = frozenset(zip(SPACE.kinds, decisions.tolist(), strict=True))
        assert row.sum() == len(pairs)
        rows.setdefault(pairs, set()).add(tuple(np.flatnonzero(row)))
    assert all(len(found) == 1 for found in rows.values())  # whatever the positions
    assert len(set(itertools.chain.from_iterable(rows.values()))) == len(
        rows
    )  # and nothing else shares


# The two readings of the embedding.


def test_readings_of_a_trace_by_hand():
    hidden = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)  # n = 2, T = 3, H = 3
    trace = Trace(None, None, None, hidden)
    assert trace.embedding("after").tolist() == [[9, 10, 11], [21, 22, 23]]
    assert trace.embedding("before").tolist() == [[6, 7, 8], [18, 19, 20]]
    np.testing.assert_array_equal(trace.embedding(), trace.embedding("after"))
    with pytest.raises(ValueError, match="after or before, got 'last'"):
        trace.embedding("last")
    with pytest.raises(ValueError, match="no hidden state"):
        trace._replace(hidden=None).embedding("before")


def test_only_the_reading_after_has_seen_the_last_decision():
    before, after = (
        every().embedding(reading).reshape(-1, 4, WIDTH) for reading in ("before", "after")
    )
    assert np.ptp(before, axis=1).max() < 1e-6
    assert np.ptp(after, axis=1).max(axis=-1).min() > 1e-2
