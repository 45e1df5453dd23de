"""The losses: numbers worked out by hand, finite differences, and the policy gradient against exact
enumeration.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas import objectives
from nas.controllers import POLICIES
from nas.spaces.recurrent import RecurrentSpace
from tests.helpers import policy_of

pytestmark = pytest.mark.device

LN2, LN3 = math.log(2), math.log(3)
SPACE = RecurrentSpace(num_nodes=3)
EVERY = (
    np.indices(SPACE.num_choices, np.int32).reshape(SPACE.num_decisions, -1).T
)  # all 128 sequences


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


def policy_and_parameters(name, seed=0):
    """A policy far from where it starts; in double precision where that is on."""
    policy = policy_of(name, SPACE, width=4, temperature=1.5, tanh_constant=2.0)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    return policy, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)


reconstruction_loss = jax.jit(objectives.reconstruction_loss)


# Hand-computed numbers.


def test_policy_gradient_loss_by_hand():
    # Probabilities 1/2, 1/4: log p(a) = -3 ln 2. Advantage 2, entropies .6 and .4, weight .5: -(2
    # (-3 ln 2) + .5).
    log_prob, entropy = np.log(np.array([0.5, 0.25], np.float32)), np.array([0.6, 0.4], np.float32)
    loss = jax.jit(functools.partial(objectives.policy_gradient_loss, entropy_weight=0.5))
    assert loss(log_prob, entropy, np.float32(2)) == pytest.approx(6 * LN2 - 0.5, rel=1e-6)
    assert loss(log_prob, entropy, np.float32(-1)) == pytest.approx(-3 * LN2 - 0.5, rel=1e-6)
    by_log_prob, by_entropy = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        log_prob, entropy, np.float32(2)
    )
    assert by_log_prob.tolist() == [-2, -2] and by_entropy.tolist() == [-0.5, -0.5]


def test_likelihood_loss_by_hand():
    log_prob = np.log(np.array([0.5, 1, 0.125, 0.5], np.float32))  # 1, 0, 3 and 1 times ln 2
    value, gradient = jax.jit(jax.value_and_grad(objectives.likelihood_loss))(log_prob)
    assert value == pytest.approx(5 / 4 * LN2, rel=1e-6) and gradient.tolist() == [-0.25] * 4


def test_next_decision_loss_by_hand():
    # The first decision has nothing before it to be predicted from; -(ln 1/2 + ln 1 + ln 1/8) / 3 =
    # (4 / 3) ln 2.
    log_prob = np.log(np.array([1e-3, 0.5, 1, 0.125], np.float32))
    value, gradient = jax.jit(jax.value_and_grad(objectives.next_decision_loss))(log_prob)
    assert value == pytest.approx(4 / 3 * LN2, rel=1e-6)
    np.testing.assert_allclose(gradient, [0, -1 / 3, -1 / 3, -1 / 3], rtol=1e-6)


def test_double_softmax_loss_by_hand():
    # Certain of each decision, t = 0 left out: logits 1, 0, 0, 0 and 1, 0: -ln(e / (e + 3)) =
    # .7437, -ln(e / (e + 1)) = .3133.
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    log_probs = np.where(np.eye(4, dtype=bool)[[2, 3, 0]], np.float32(0), np.float32(-1e9))
    loss = jax.jit(objectives.double_softmax_loss)(log_probs, np.array([0, 3, 0]), mask)
    assert loss == pytest.approx((0.74367 + 0.31326) / 2, abs=1e-5)


def test_reconstruction_loss_by_hand():
    # Two decisions of three and two choices, H = 2, state (1, 2). First logits: 0 + 0, ln 2 + 0, 2
    # (ln 2) + ln(5 / 4) are ln of 1, 2 and 5: the second choice has probability 2 / 8. Second
    # logits: ln 3, 0 and one that does not exist: 3 / 4.
    weight = np.zeros((2, 2, 3), np.float32)
    weight[0, :, 1] = LN2, 0
    weight[0, :, 2] = 0, LN2
    weight[1, :, 0] = LN3, 0
    weight[1, :, 2] = 50
    bias = np.array([[0, 0, math.log(5 / 4)], [0, 0, 0]], np.float32)
    mask = np.array([[True, True, True], [True, True, False]])
    decoder = {"weight": weight, "bias": bias.astype(np.float32)}
    loss = reconstruction_loss(decoder, np.array([1, 2], np.float32), np.array([1, 0]), mask)
    assert loss == pytest.approx(-(math.log(1 / 4) + math.log(3 / 4)) / 2, rel=1e-6)


def test_reconstruction_of_nothing_is_the_uniform_guess():
    decoder = {"weight": np.zeros((5, 3, 4), np.float32), "bias": np.zeros((5, 4), np.float32)}
    loss = reconstruction_loss(decoder, np.ones(3, np.float32), EVERY[-1], SPACE.choice_mask())
    assert loss == pytest.approx((3 * math.log(4) + LN2 + 0) / 5, rel=1e-6)


def test_skip_penalty_by_hand():
    """Two skips of probability 1/2 and 1/10 towards 2/5; a third column is no choice of theirs."""
    probabilities = np.array([[0.5, 0.5, 1e-9], [0.9, 0.1, 1e-9]])
    found = objectives.skip_penalty(np.log(probabilities).astype(np.float32), 0.4)
    first = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.4)
    second = 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-6)
    at_target = np.log(np.array([[0.6, 0.4, 1e-9]], np.float32))
    assert float(objectives.skip_penalty(at_target, 0.4)) == pytest.approx(0, abs=1e-6)


def test_baseline_by_hand():
    current, update = (
        jax.jit(objectives.current_baseline),
        jax.jit(objectives.update_baseline, static_argnums=2),
    )
    baseline = objectives.start_baseline()
    assert current(baseline, np.float32(7)) == 7  # nothing seen: the reward itself
    baseline = update(baseline, np.float32(2), 0.75)
    assert current(baseline, np.float32(7)) == 2
    baseline = update(baseline, np.float32(4), 0.75)
    assert baseline.value == 0.75 * 2 + 0.25 * 4
    baseline = update(baseline, np.float32(-3.5), 0.75)
    assert baseline.value == 0.75 * 2.5 + 0.25 * -3.5
    assert update(baseline, np.float32(9), 0.0).value == 9  # no decay: the last reward
    assert baseline.value.dtype == jnp.float32 and baseline.started.dtype == jnp.bool_


def test_losses_are_of_one_sequence():
    batch = jnp.zeros((2, 5))
    with pytest.raises(AssertionError):
        objectives.policy_gradient_loss(batch, batch, jnp.zeros(2), 0.1)
    with pytest.raises(AssertionError):
        objectives.next_decision_loss(batch)
    with pytest.raises(AssertionError):
        objectives.reconstruction_loss(
            {"weight": jnp.zeros((5, 3, 4))}, batch, batch, jnp.ones((5, 4), bool)
        )


# Finite differences, in double precision: with steps of 1e-5 truncation and rounding are both about
# 1e-10.


def assert_gradient(fn, params, step=1e-5):
    """The gradient along three random directions is the central difference along them."""
    value_and_gradient = jax.jit(jax.value_and_grad(fn))
    _, gradient = value_and_gradient(params)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        direction = jax.tree.map(lambda leaf, rng=rng: rng.normal(size=leaf.shape), params)
        ahead, behind = (
            value_and_gradient(
                jax.tree.map(
                    lambda leaf, d, s=sign: np.asarray(leaf) + s * step * d, params, direction
                )
            )[0]
            for sign in (1, -1)
        )
        slope = sum(
            np.vdot(g, d)
            for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
        )
        assert abs(slope) > 1e-3
        assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)


def random_decoder(width):
    rng = np.random.default_rng(1)
    return {"weight": rng.normal(size=(5, width, 4)), "bias": rng.normal(size=(5, 4))}


@pytest.mark.usefixtures("double_precision")
def test_gradient_of_the_reconstruction_loss():
    mask, decisions = SPACE.choice_mask(), EVERY[77]
    params = {"decoder": random_decoder(3), "embedding": np.array([0.3, -1.2, 0.7])}
    assert_gradient(
        lambda p: objectives.reconstruction_loss(p["decoder"], p["embedding"], decisions, mask),
        params,
    )


@pytest.mark.usefixtures("double_precision")
def test_gradient_of_all_losses_through_decoder_and_controller():
    policy, params = policy_and_parameters("lstm")
    decisions, mask = jnp.asarray(EVERY[[5, 63, 100]]), jnp.asarray(SPACE.choice_mask())
    advantages = jnp.array([1.5, -0.7, 0.2])

    def loss(params):
        trace = policy.score(params["policy"], decisions)
        policy_gradient = jax.vmap(objectives.policy_gradient_loss, in_axes=(0, 0, 0, None))
        reconstruction = jax.vmap(objectives.reconstruction_loss, in_axes=(None, 0, 0, None))
        return jnp.mean(
            policy_gradient(trace.log_prob, trace.entropy, advantages, 0.3)
            + 0.5 * jax.vmap(objectives.next_decision_loss)(trace.log_prob)
            + 2.0 * reconstruction(params["decoder"], trace.embedding(), decisions, mask)
        )

    assert_gradient(loss, {"policy": params, "decoder": random_decoder(4)})


# The policy gradient theorem, exactly: no sampling, every sequence weighted by its probability.


@functools.cache
def gradients(name):
    """(entropy weight, baseline, factor of the entropies in the advantage) -> two gradients.

    Of the loss, in expectation over the policy's sequences; and of -(E[R] + entropy weight * H(p))
    itself.
    """
    policy, params = policy_and_parameters(name, seed=2)
    rewards = jnp.asarray(np.random.default_rng(3).normal(size=len(EVERY)))

    def expected_loss(params, entropy_weight, baseline, factor):
        trace = policy.score(params, EVERY)
        probabilities = jax.lax.stop_gradient(jnp.exp(jnp.sum(trace.log_prob, axis=1)))
        bonus = entropy_weight * jax.lax.stop_gradient(jnp.sum(trace.entropy, axis=1))
        advantages = rewards + factor * bonus - baseline
        losses = jax.vmap(objectives.policy_gradient_loss, in_axes=(0, 0, 0, None))
        return jnp.vdot(
            probabilities, losses(trace.log_prob, trace.entropy, advantages, entropy_weight)
        )

    def exact(params, entropy_weight):
        log_p = jnp.sum(policy.score(params, EVERY).log_prob, axis=1)
        return -jnp.vdot(jnp.exp(log_p), rewards - entropy_weight * log_p)

    @jax.jit
    def both(entropy_weight, baseline, factor):
        return jax.grad(expected_loss)(params, entropy_weight, baseline, factor), jax.grad(exact)(
            params, entropy_weight
        )

    return lambda *settings: jax.tree.map(np.asarray, both(*settings))


def largest_difference(a, b):
    return max(
        np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("entropy_weight", "baseline"), [(0.0, 0.0), (0.8, 0.0), (0.8, 3.0)])
@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"uniform"}))
def test_expected_gradient_is_that_of_reward_plus_entropy(name, entropy_weight, baseline):
    expected, exact = gradients(name)(entropy_weight, baseline, 1.0)
    assert largest_difference(expected, exact) < 1e-12
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(exact)) > 1e-2


@pytest.mark.usefixtures("double_precision")
def test_without_the_entropies_in_the_advantage_it_would_not_be():
    assert largest_difference(*gradients("lstm")(0.8, 0.0, 0.0)) > 1e-2
