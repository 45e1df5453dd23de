"""The supernet as a source of rewards: what one training step moves and by how much, and that
rewards are 80 / perplexity.
"""

import functools

import jax
import numpy as np
import pytest

from nas.data.tokens import Tokens, Windows
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import shared
from nas.supernets.recurrent.language_model import supernet_reward
from nas.supernets.recurrent.settings import LanguageModelSettings

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=4)
DECISIONS = np.array([0, 0, 1, 1, 2, 0, 3], np.int32)  # edges (0, 1), (1, 2), (0, 3)
USED, UNUSED = [0, 1, 3, 4], [2, 5, 6]  # rows of the stored matrices; the first is node 0's
VOCABULARY, ROWS, STEPS = 11, 3, 5
CLIP = 0.7  # of two gradients below, one is longer
DROPOUT = {"dropout_input": 0.5, "dropout_hidden": 0.25, "dropout_output": 0.5}


def settings(**changes):
    plain = {
        "width": 6,
        "init_scale": 0.6,
        "dropout_input": 0.0,
        "max_norm": 1.0,
        "reward_chunk": 2,
    }
    rates = {"learning_rate": 3.0, "learning_rate_decay": 0.5, "decay_start": 2, "clip": CLIP}
    return LanguageModelSettings(**(plain | rates | changes))


@functools.cache
def reward(config=None, *, space=SPACE, vocabulary=VOCABULARY, deferred=True):
    """The reward, its functions compiled."""
    plain = supernet_reward(space, config or settings(), vocabulary, deferred=deferred)
    return plain._replace(
        **{name: jax.jit(getattr(plain, name)) for name in ("init", "train", "score", "evaluate")}
    )


@functools.cache
def initial_state():
    """All configurations below start from weights of this size."""
    return reward().init(jax.random.key(0))


def loss(params, decisions, tokens, hidden):
    """Loss and next state by plain differentiation of all stored weights, used or not."""
    cell = shared.read_cell(SPACE, decisions)
    return shared.loss(
        shared.gather(params, cell), cell, tokens, hidden, max_norm=1.0, deferred=False
    )


compiled_loss = jax.jit(loss)
compiled_gradient = jax.jit(jax.grad(loss, has_aux=True))


def random_decisions(space, n, seed=0):
    choices = np.array(space.num_choices)
    return np.random.default_rng(seed).integers(choices, size=(n, len(choices)), dtype=np.int32)


def random_tokens(shape, seed=0):
    return np.random.default_rng(seed).integers(VOCABULARY, size=shape, dtype=np.int32)


def random_carry():
    return np.random.default_rng(0).normal(size=(ROWS, settings().width)).astype(np.float32)


def first(tokens):
    return Tokens(tokens, np.ones(len(tokens), bool))


def later(tokens):
    return Tokens(tokens, np.zeros(len(tokens), bool))


def train(source, state, carry, batch, *, decisions=DECISIONS, seed=0, epoch=0):
    return source.train(state, carry, decisions, batch, jax.random.key(seed), np.int32(epoch))


def perplexity_of(value):
    return np.exp(np.asarray(value, np.float64))


def double_precision(tree):
    return {name: np.asarray(leaf, np.float64) for name, leaf in tree.items()}


# Training.


@pytest.mark.parametrize(("scale", "clipped"), [(5.0, True), (0.1, False)])
def test_a_step_is_the_clipped_gradient_times_the_rate(scale, clipped):
    source, carry = reward(), random_carry()
    params = {name: scale * np.asarray(leaf) for name, leaf in initial_state().params.items()}
    tokens = random_tokens((ROWS, STEPS + 1))
    value, hidden = compiled_loss(params, DECISIONS, tokens, carry)
    gradient = double_precision(compiled_gradient(params, DECISIONS, tokens, carry)[0])
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in gradient.values()))
    assert (norm > 1.2 * CLIP) == clipped and (norm < CLIP / 1.2) != clipped
    after, carry, info = train(source, initial_state().replace(params=params), carry, later(tokens))
    np.testing.assert_allclose(info["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(info["gradient_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(carry, hidden, rtol=1e-5, atol=1e-6)
    assert info["skipped"] == 0
    for name, before in double_precision(params).items():
        expected = before - 3.0 * gradient[name] * (CLIP / norm if clipped else 1.0)
        np.testing.assert_allclose(after.params[name], expected, rtol=1e-5, atol=1e-6)


def test_only_the_matrices_of_the_cell_move():
    source, before = reward(), initial_state()
    after, _, _ = train(
        source, before, source.initial_carry(ROWS), first(random_tokens((ROWS, STEPS + 1)))
    )
    change = np.asarray(after.params["recurrent"]) != np.asarray(before.params["recurrent"])
    assert change[USED].any(axis=(1, 2)).all()
    for row in UNUSED:
        assert (
            np.asarray(after.params["recurrent"][row]).tobytes()
            == np.asarray(before.params["recurrent"][row]).tobytes()
        )
    for name in ("embedding", "bias", "input"):
        assert np.any(np.asarray(after.params[name]) != np.asarray(before.params[name]))


def test_the_rate_decays_from_decay_start_on():
    source, state, batch = reward(), initial_state(), first(random_tokens((ROWS, STEPS + 1)))
    moved = []
    for epoch, rate in [(0, 3.0), (1, 3.0), (2, 1.5), (3, 0.75), (6, 3.0 / 32)]:
        after, _, info = train(source, state, source.initial_carry(ROWS), batch, epoch=epoch)
        np.testing.assert_allclose(info["learning_rate"], rate, rtol=1e-6)
        moved.append((np.asarray(after.params["bias"]) - np.asarray(state.params["bias"])) / rate)
    for change in moved[1:]:
        np.testing.assert_allclose(change, moved[0], rtol=1e-3, atol=1e-7)
    assert np.any(moved[0])


def test_the_rate_rises_through_the_warmup():
    source, state, batch = (
        reward(settings(warmup_epochs=2)),
        initial_state(),
        first(random_tokens((ROWS, STEPS + 1))),
    )
    rates = [
        train(source, state, source.initial_carry(ROWS), batch, epoch=epoch)[2]["learning_rate"]
        for epoch in range(4)
    ]
    np.testing.assert_allclose(
        rates, [1.0, 2.0, 1.5, 0.75], rtol=1e-6
    )  # full in epoch 2, from which it decays


def test_the_carry_goes_on_until_a_stream_starts():
    source, state = reward(), initial_state()
    tokens = random_tokens((ROWS, STEPS + 1))
    carry = random_carry()
    zero = source.initial_carry(ROWS)
    assert zero.shape == carry.shape and not np.any(zero)
    losses = {
        "carried": train(source, state, carry, later(tokens))[2]["loss"],
        "reset": train(source, state, carry, first(tokens))[2]["loss"],
        "fresh": train(source, state, zero, later(tokens))[2]["loss"],
    }
    assert losses["reset"] == losses["fresh"]
    assert abs(losses["carried"] - losses["fresh"]) > 1e-3


def test_two_windows_are_one_long_window():
    source, state = reward(), initial_state()
    tokens = random_tokens((ROWS, 2 * STEPS + 1))
    _, middle, left = train(source, state, random_carry(), first(tokens[:, : STEPS + 1]))
    _, last, right = train(
        source, state, middle, later(tokens[:, STEPS:])
    )  # the weights before the first update
    value, hidden = compiled_loss(state.params, DECISIONS, tokens, np.zeros_like(middle))
    np.testing.assert_allclose((left["loss"] + right["loss"]) / 2, value, rtol=1e-6)
    np.testing.assert_allclose(last, hidden, rtol=1e-5, atol=1e-6)


def test_a_step_that_is_not_finite_changes_nothing_and_says_so():
    source = reward()
    bias = np.where(np.arange(VOCABULARY) == 0, np.nan, initial_state().params["bias"])
    state = initial_state().replace(params=initial_state().params | {"bias": bias})
    after, carry, info = train(
        source, state, random_carry(), later(random_tokens((ROWS, STEPS + 1)))
    )
    assert info["skipped"] == 1 and np.isnan(info["loss"])
    assert not np.any(carry)
    for name, before in state.params.items():
        np.testing.assert_array_equal(after.params[name], before)


def test_deferred_training_is_plain_training():
    config = settings(**DROPOUT)
    tokens = random_tokens((20, ROWS, STEPS + 1))
    losses = {}
    for deferred in (False, True):
        source = reward(config, deferred=deferred)
        state, carry, losses[deferred] = initial_state(), source.initial_carry(ROWS), []
        for step, decisions in enumerate(random_decisions(SPACE, len(tokens))):
            batch = Tokens(tokens[step], np.full(ROWS, step == 0))
            state, carry, info = train(source, state, carry, batch, decisions=decisions, seed=step)
            losses[deferred].append(float(info["loss"]))
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-5)
    assert np.ptp(losses[True]) > 0.1


@pytest.mark.parametrize(
    "decisions", [[0, 0, 0, 1, 1], [2, 0, 1, 0, 0]], ids=["chain", "two-loose-ends"]
)
def test_training_learns_what_needs_memory(decisions):
    """A text `a a b b c c a a ...`: a word comes again or the next does; who remembers the word
    before knows which.
    """
    types = 3
    config = settings(width=12, learning_rate=5.0, clip=0.25, max_norm=25.0, decay_start=100)
    source = reward(config, space=RecurrentSpace(num_nodes=3), vocabulary=types)
    text = np.tile(np.repeat(np.arange(types, dtype=np.int32), 2), 40)
    windows = Windows.of(text, 2, 16)
    shares = np.bincount(text) / len(text)
    unigram_entropy = -np.sum(shares * np.log(shares))
    state, carry = source.init(jax.random.key(0)), source.initial_carry(2)
    for step in range(100):
        batch = jax.tree.map(lambda leaf: leaf[0], windows.take(step, 1))
        state, carry, _ = train(
            source, state, carry, batch, decisions=np.array(decisions, np.int32), seed=step
        )
    (value,) = source.evaluate(state, np.array([decisions], np.int32), windows.head(0))
    assert value < np.log(2) / 2 < unigram_entropy  # a bigram model reaches log 2


# Rewards.


def test_dropout_is_on_in_training_and_off_in_rewards():
    config = settings(**DROPOUT)
    source = reward(config)
    state, tokens = initial_state(), random_tokens((ROWS, STEPS + 1))
    zero = source.initial_carry(ROWS)
    value, _ = compiled_loss(state.params, DECISIONS, tokens, zero)
    losses = [
        float(train(source, state, zero, first(tokens), seed=seed)[2]["loss"]) for seed in (1, 2, 1)
    ]
    assert (
        losses[0] == losses[2]
        and abs(losses[0] - losses[1]) > 1e-3
        and abs(losses[0] - value) > 1e-3
    )
    np.testing.assert_allclose(
        source.score(state, DECISIONS[None], first(tokens)), [80 / perplexity_of(value)], rtol=1e-6
    )


def test_score_is_80_over_the_perplexity_from_a_fresh_state():
    source = reward()
    state, tokens = initial_state(), random_tokens((ROWS, STEPS + 1))
    decisions = random_decisions(SPACE, 5)
    zero = source.initial_carry(ROWS)
    expected = [
        80 / perplexity_of(compiled_loss(state.params, d, tokens, zero)[0]) for d in decisions
    ]
    for batch in (
        first(tokens),
        later(tokens),
    ):  # a window from the middle of its stream starts afresh as well
        np.testing.assert_allclose(source.score(state, decisions, batch), expected, rtol=1e-5)
    assert np.ptp(expected) > 0.01 * np.mean(expected)


def test_a_uniform_guess_is_rewarded_by_80_over_the_vocabulary():
    source, state = reward(), jax.tree.map(np.zeros_like, initial_state())
    rewards = source.score(
        state, random_decisions(SPACE, 3), first(random_tokens((ROWS, STEPS + 1)))
    )
    np.testing.assert_allclose(rewards, [80 / VOCABULARY] * 3, rtol=1e-6)


def test_evaluation_does_not_depend_on_the_length_of_windows():
    source = reward()
    state, decisions = initial_state(), random_decisions(SPACE, 3)
    tokens = random_tokens(ROWS * 13)
    whole = tokens.reshape(ROWS, 13)
    zero = source.initial_carry(ROWS)
    expected = [compiled_loss(state.params, d, whole, zero)[0] for d in decisions]
    for steps, count in [(3, 4), (12, 1)]:
        windows = Windows.of(tokens, ROWS, steps).head(0)
        assert windows.tokens.shape == (count, ROWS, steps + 1)
        np.testing.assert_allclose(source.evaluate(state, decisions, windows), expected, rtol=1e-6)


# Compilation.


def test_one_compilation_serves_every_architecture():
    space, config = RecurrentSpace(), settings(**DROPOUT)
    plain = supernet_reward(space, config, VOCABULARY)
    traces = {"train": 0, "score": 0, "evaluate": 0}

    def counted(name):
        def run(*arguments):
            traces[name] += 1
            return getattr(plain, name)(*arguments)

        return jax.jit(run)

    run = {name: counted(name) for name in traces}
    state, carry = jax.jit(plain.init)(jax.random.key(0)), plain.initial_carry(ROWS)
    windows = Windows.of(random_tokens(ROWS * 11), ROWS, 5)
    batch = jax.tree.map(lambda leaf: leaf[1], windows.head(0))
    decisions = random_decisions(space, 50)
    assert len(np.unique(decisions, axis=0)) == 50
    rewards = []
    for i, one in enumerate(decisions):
        state, carry, _ = run["train"](state, carry, one, batch, jax.random.key(i), np.int32(i))
        rewards.append(run["score"](state, one[None], batch).item())
        run["evaluate"](state, one[None], windows.head(0))
    assert traces == {"train": 1, "score": 1, "evaluate": 1}
    assert len(set(rewards)) == 50
