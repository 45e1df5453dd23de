"""What every registered policy promises, against the enumeration of all sequences of a small
space.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from nas.controllers import POLICIES
from nas.spaces.recurrent import RecurrentSpace
from nas.types import Params, Policy, Trace
from tests.helpers import policy_of

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=3)  # choices 4, 1, 4, 2, 4: 128 sequences
LENGTH = SPACE.num_decisions
EVERY = (
    np.indices(SPACE.num_choices, np.int32).reshape(LENGTH, -1).T
)  # [128, T], in the order of a C array
WIDTH = 6


class Case(NamedTuple):
    """A policy at parameters far from where it starts, and what enumeration says of it."""

    policy: Policy
    params: Params
    sample: Callable  # policy.sample, compiled
    score: Callable  # policy.score, compiled
    trace: Trace  # numpy, of EVERY
    joint: np.ndarray  # [4, 1, 4, 2, 4] float64; probability of every sequence, from trace.log_prob

    def conditional(self, t):
        """[128, c_t] p(a_t | a_<t) for the beginning of every sequence, from the joint alone."""
        marginal = self.joint.sum(axis=tuple(range(t + 1, LENGTH))).reshape(
            -1, SPACE.num_choices[t]
        )
        return np.repeat(
            marginal / marginal.sum(axis=1, keepdims=True), len(EVERY) // len(marginal), axis=0
        )


@functools.cache
def case(name):
    policy = policy_of(name, SPACE, width=WIDTH, temperature=1.5, tanh_constant=2.0)
    policy = policy._replace(init=jax.jit(policy.init))
    params = far_from_the_start(policy.init(jax.random.key(0)), 0.8)
    score = jax.jit(policy.score)
    trace = jax.tree.map(np.asarray, score(params, EVERY))
    joint = np.exp(trace.log_prob.sum(axis=1, dtype=np.float64)).reshape(SPACE.num_choices)
    return Case(policy, params, jax.jit(policy.sample, static_argnums=2), score, trace, joint)


def far_from_the_start(params, scale, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (
            np.asarray(leaf)
            + np.float32(scale) * rng.standard_normal(leaf.shape).astype(np.float32)
        ),
        params,
    )


@pytest.fixture(params=POLICIES)
def every(request):
    return case(request.param)


def number(decisions):
    """Which row of EVERY each decision vector is."""
    return np.ravel_multi_index(np.asarray(decisions).T, SPACE.num_choices)


def assert_drawn_from(numbers, probabilities):
    """Chi-square test of frequencies; what is expected fewer than 5 times is counted together."""
    counts, expected = (
        np.bincount(numbers, minlength=len(probabilities)),
        probabilities * len(numbers),
    )
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    seen = expected > 0
    assert not counts[~seen].any()
    assert chisquare(counts[seen], expected[seen] * (counts.sum() / expected.sum())).pvalue > 1e-3


# The distribution.


def test_probabilities_of_all_sequences_sum_to_one(every):
    assert every.joint.sum() == pytest.approx(1, abs=1e-6)
    untrained = every.score(every.policy.init(jax.random.key(1)), EVERY)
    assert np.exp(
        np.asarray(untrained.log_prob).sum(axis=1, dtype=np.float64)
    ).sum() == pytest.approx(1, abs=1e-6)


def test_the_case_is_not_trivial():
    # Otherwise the tests below would hold for a policy that ignores its parameters.
    assert case("uniform").joint.max() == pytest.approx(1 / 128)
    for name in set(POLICIES) - {"uniform"}:
        assert case(name).joint.max() > 5 / 128


def test_every_conditional_follows_from_the_joint(every):
    """Decisions are described in their order: log_probs at t look at a_<t only, and are the joint's
    conditionals.
    """
    for t in range(LENGTH):
        found = np.exp(every.trace.log_probs[:, t, : SPACE.num_choices[t]])
        np.testing.assert_allclose(found, every.conditional(t), atol=1e-6)


def test_log_prob_is_that_of_the_decision_taken(every):
    rows, positions = np.indices(EVERY.shape)
    np.testing.assert_array_equal(
        every.trace.log_prob, every.trace.log_probs[rows, positions, EVERY]
    )


def test_entropy_of_every_conditional(every):
    for t in range(LENGTH):
        conditional = every.conditional(t)
        entropy = -np.sum(conditional * np.log(conditional), axis=1)
        np.testing.assert_allclose(every.trace.entropy[:, t], entropy, atol=2e-6)


def test_expected_entropies_sum_to_the_entropy_of_the_joint(every):
    p = every.joint.ravel()
    assert p @ every.trace.entropy.sum(axis=1) == pytest.approx(-p @ np.log(p), abs=1e-5)


def test_choices_that_do_not_exist_have_probability_zero(every):
    probabilities = np.exp(every.trace.log_probs)
    missing = ~SPACE.choice_mask()
    assert missing.any()
    assert (probabilities[:, missing] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=2), 1, atol=1e-6)
    assert (every.trace.log_prob[:, 1] == 0).all() and (
        every.trace.entropy[:, 1] == 0
    ).all()  # one choice: certain


def test_shapes_and_types(every):
    trace = every.trace
    for name, shape in [("log_prob", ()), ("entropy", ()), ("log_probs", (SPACE.max_choices,))]:
        leaf = getattr(trace, name)
        assert leaf.shape == (len(EVERY), LENGTH, *shape) and leaf.dtype == np.float32, name
    assert trace.hidden is None or (trace.hidden.shape, trace.hidden.dtype) == (
        (len(EVERY), LENGTH + 1, WIDTH),
        np.float32,
    )


def test_only_the_controller_has_a_hidden_state():
    assert [name for name in POLICIES if case(name).trace.hidden is not None] == ["lstm"]


def test_parameters_are_a_function_of_the_key(every):
    init, key = every.policy.init, jax.random.key(3)
    first, second = init(key), init(jax.random.clone(key))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(first))


# Sampling.


@functools.cache
def drawn(name):
    """20,000 free samples of a case."""
    return np.asarray(case(name).sample(case(name).params, jax.random.key(4), 20_000))


@pytest.mark.parametrize("name", POLICIES)
def test_samples_are_valid_and_as_frequent_as_they_are_probable(name):
    decisions = drawn(name)
    assert decisions.dtype == np.int32
    np.testing.assert_array_equal(SPACE.validate(decisions), decisions)
    assert_drawn_from(number(decisions), case(name).joint.ravel())


@pytest.mark.parametrize("name", POLICIES)
def test_the_score_of_a_sample_is_its_probability(name):
    decisions = drawn(name)[: len(EVERY)]
    log_prob = np.asarray(case(name).score(case(name).params, decisions).log_prob).sum(axis=1)
    np.testing.assert_allclose(
        log_prob, np.log(case(name).joint.ravel()[number(decisions)]), atol=1e-5
    )


def test_one_prefix_is_forced_on_all(every):
    decisions = np.asarray(
        every.sample(every.params, jax.random.key(5), 200, np.array([3, 0], np.int32))
    )
    assert (decisions[:, :2] == [3, 0]).all()
    np.testing.assert_array_equal(SPACE.validate(decisions), decisions)
    assert len(np.unique(decisions[:, 2:], axis=0)) > 16  # of 32: what is not forced is drawn


def test_continuations_of_a_prefix_follow_the_conditional_distribution(every):
    """p(a_3, a_4 | a_<3) for two prefixes at once: that is sampling many architectures from one
    controller state.
    """
    prefixes, n = np.array([[2, 0, 1], [0, 0, 3]], np.int32), 10_000
    decisions = np.asarray(
        every.sample(every.params, jax.random.key(7), 2 * n, np.repeat(prefixes, n, axis=0))
    )
    np.testing.assert_array_equal(decisions[:, :3], np.repeat(prefixes, n, axis=0))
    for prefix, rows in zip(prefixes, np.split(decisions, 2), strict=True):
        continuations = every.joint[tuple(prefix)]
        numbers = np.ravel_multi_index(rows[:, 3:].T, continuations.shape)
        assert_drawn_from(numbers, (continuations / continuations.sum()).ravel())


# Compilation and differentiation.


@pytest.mark.parametrize("name", POLICIES)
def test_jit_equals_eager(name):
    policy, params = case(name).policy, jax.tree.map(jnp.asarray, case(name).params)
    np.testing.assert_array_equal(policy.sample(params, jax.random.key(4), 20_000), drawn(name))
    eager = policy.score(params, EVERY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), eager, case(name).trace)


def test_gradients_are_finite(every):
    @jax.jit
    @jax.grad
    def gradient(params):
        trace = every.policy.score(params, EVERY)
        return jnp.sum(trace.log_prob) + jnp.sum(trace.entropy) + jnp.sum(jnp.exp(trace.log_probs))

    for scale in (0, 1e4):  # at the second every squashing is saturated
        for leaf in jax.tree.leaves(gradient(far_from_the_start(every.params, scale))):
            assert np.isfinite(leaf).all()
