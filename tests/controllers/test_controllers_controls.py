"""The policies that condition on nothing: what they are, and that they do not condition."""

import jax
import numpy as np
import pytest

from nas.controllers import factorised_policy, uniform_policy
from nas.controllers.controls import FactorisedSettings
from nas.spaces.recurrent import RecurrentSpace

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=3)
EVERY = np.indices(SPACE.num_choices, np.int32).reshape(SPACE.num_decisions, -1).T
CONFIG = FactorisedSettings(temperature=2.0, tanh_constant=1.5)


def logits(seed=0):
    return {"logits": np.random.default_rng(seed).normal(size=(5, 4)).astype(np.float32)}


def score(policy, params, decisions):
    return jax.tree.map(np.asarray, jax.jit(policy.score)(params, decisions))


def test_log_probs_do_not_depend_on_the_decisions_before():
    for policy, params in [
        (factorised_policy(SPACE, CONFIG), logits()),
        (uniform_policy(SPACE, CONFIG), {}),
    ]:
        trace = score(policy, params, EVERY)
        assert np.ptp(trace.log_probs, axis=0).max() == 0
        assert np.ptp(trace.entropy, axis=0).max() == 0


def test_factorised_is_a_softmax_of_squashed_logits_at_each_position():
    params = logits()
    trace = score(factorised_policy(SPACE, CONFIG), params, EVERY[:1])
    for t, choices in enumerate(SPACE.num_choices):
        weights = np.exp(1.5 * np.tanh(np.asarray(params["logits"], np.float64)[t, :choices] / 2.0))
        np.testing.assert_allclose(
            np.exp(trace.log_probs[0, t, :choices]), weights / weights.sum(), rtol=1e-5
        )


def test_factorised_starts_uniform():
    policy = factorised_policy(SPACE, CONFIG)
    log_prob = score(policy, policy.init(jax.random.key(0)), EVERY).log_prob
    np.testing.assert_allclose(
        log_prob, np.broadcast_to(-np.log(SPACE.num_choices), log_prob.shape), atol=1e-6
    )


def test_uniform_has_nothing_to_learn():
    policy = uniform_policy(SPACE, CONFIG)
    assert jax.tree.leaves(policy.init(jax.random.key(0))) == []
    np.testing.assert_allclose(
        score(policy, {}, EVERY).log_prob.sum(axis=1), np.log(1 / 128), rtol=1e-6
    )


@pytest.mark.parametrize("policy", [factorised_policy, uniform_policy])
def test_there_is_no_embedding(policy):
    trace = score(policy(SPACE, CONFIG), logits(), EVERY)
    with pytest.raises(ValueError, match="no hidden state"):
        trace.embedding()
