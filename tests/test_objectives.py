"""The losses of the controller: hand-computed numbers, and gradients against enumeration of a whole space."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas import objectives
from nas.config import PolicyConfig
from nas.controllers import POLICIES
from nas.spaces import RecurrentSpace

SPACE = RecurrentSpace(num_nodes=3)
ALL = jnp.array(list(itertools.product(*map(range, SPACE.num_choices))), jnp.int32)


def test_policy_gradient_loss_by_hand():
    log_prob, entropy = jnp.log(jnp.array([0.5, 0.25])), jnp.array([0.3, 0.7])
    loss = objectives.policy_gradient_loss(log_prob, entropy, jnp.float32(2.0), 0.1)
    assert loss == pytest.approx(-(2.0 * math.log(0.125) + 0.1 * 1.0))


def test_next_decision_loss_leaves_out_the_first_decision():
    log_prob = jnp.log(jnp.array([0.9, 0.5, 0.25]))
    assert objectives.next_decision_loss(log_prob) == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2)


def test_reconstruction_loss_by_hand():
    decoder = {"weight": jnp.array([[[1.0, 0.0]], [[0.0, 2.0]]]), "bias": jnp.array([[0.0, 1.0], [0.0, 0.0]])}
    mask = jnp.array([[True, True], [True, False]])
    loss = objectives.reconstruction_loss(decoder, jnp.array([3.0]), jnp.array([1, 0]), mask)
    # Position 0: logits (3, 1), choice 1; position 1 has one choice, so its loss is 0.
    assert loss == pytest.approx((math.log(math.exp(3) + math.exp(1)) - 1) / 2, rel=1e-6)


def test_reconstruction_gradient_equals_finite_differences():
    with jax.enable_x64():
        rng = np.random.default_rng(0)
        decoder = {"weight": jnp.asarray(rng.normal(size=(2, 3, 4))), "bias": jnp.asarray(rng.normal(size=(2, 4)))}
        embedding, decisions = jnp.asarray(rng.normal(size=3)), jnp.array([1, 3])
        mask = jnp.ones((2, 4), bool)

        def loss(embedding):
            return objectives.reconstruction_loss(decoder, embedding, decisions, mask)

        gradient = jax.grad(loss)(embedding)
        for i in range(3):
            step = jnp.zeros(3).at[i].set(1e-5)
            assert float(gradient[i]) == pytest.approx(float(loss(embedding + step) - loss(embedding - step)) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("name", ["lstm", "factorised"])
def test_policy_gradient_is_that_of_expected_reward_plus_entropy(name):
    """Weighted by its probability, every sequence's gradient adds up to that of E[R] + w H, whatever the baseline."""
    policy = POLICIES[name](SPACE, PolicyConfig(name=name, width=5, init_scale=0.8))
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape),
        policy.init(jax.random.key(0)),
    )
    rewards = jax.random.normal(jax.random.key(1), (len(ALL),))
    weight, baseline = 0.37, 0.9

    def objective(params):
        log_prob = jnp.sum(policy.score(params, ALL).log_prob, axis=1)
        return -jnp.sum(jnp.exp(log_prob) * (rewards - weight * log_prob))

    def surrogate(params):
        trace = policy.score(params, ALL)
        probability = jax.lax.stop_gradient(jnp.exp(jnp.sum(trace.log_prob, axis=1)))
        advantage = jax.lax.stop_gradient(rewards + weight * jnp.sum(trace.entropy, axis=1)) - baseline
        losses = jax.vmap(objectives.policy_gradient_loss, in_axes=(0, 0, 0, None))(
            trace.log_prob, trace.entropy, advantage, weight
        )
        return jnp.sum(probability * losses)

    for expected, got in zip(*(jax.tree.leaves(jax.grad(f)(params)) for f in (objective, surrogate)), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-6)


def test_baseline_starts_at_the_first_reward():
    baseline = objectives.start_baseline()
    assert objectives.current_baseline(baseline, jnp.float32(4.0)) == 4.0
    baseline = objectives.update_baseline(baseline, jnp.float32(4.0), 0.9)
    baseline = objectives.update_baseline(baseline, jnp.float32(2.0), 0.9)
    assert baseline.value == pytest.approx(0.9 * 4 + 0.1 * 2)
