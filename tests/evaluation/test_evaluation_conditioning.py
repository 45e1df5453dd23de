"""How much policies condition on their past, where the answer is known: by hand, by enumeration,
and none at all.
"""

import functools
import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from nas.controllers import POLICIES
from nas.errors import UserError
from nas.evaluation import conditioning as table
from nas.spaces.recurrent import RecurrentSpace
from tests.helpers import policy_of

LN2, LN4 = math.log(2), math.log(4)
SPACE = RecurrentSpace(num_nodes=3)  # choices 4, 1, 4, 2, 4: 128 sequences
CHOICES, LENGTH = SPACE.num_choices, SPACE.num_decisions
EVERY = np.indices(CHOICES, np.int32).reshape(LENGTH, -1).T  # in the order of a C array


@functools.cache
def policy(name):
    """A policy far from where it starts: samples of n with a key, log_probs of decisions, and the
    joint of all sequences.
    """
    policy = policy_of(name, SPACE, width=16, temperature=1.0, tanh_constant=3.0)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 1.5 * rng.standard_normal(leaf.shape).astype(np.float32),
        policy.init(jax.random.key(0)),
    )
    sample, score = jax.jit(policy.sample, static_argnums=2), jax.jit(policy.score)
    joint = np.exp(np.asarray(score(params, EVERY).log_prob, np.float64).sum(axis=1)).reshape(
        CHOICES
    )

    def draw(n, seed=0, prefix=None):
        return np.asarray(sample(params, jax.random.key(seed), n, prefix))

    return draw, lambda decisions: score(params, decisions).log_probs, joint


def copying(lag, choices, decisions):
    """log_probs of a chain that repeats the decision before last (lag 2) or the last one (lag 1);
    free where there is none.
    """
    probabilities = np.full((*decisions.shape, choices), 1 / choices)
    probabilities[:, lag:] = np.eye(choices)[decisions[:, :-lag]]
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def marginals(joint):
    """[T] list of [c_t]."""
    return [joint.sum(axis=tuple(set(range(joint.ndim)) - {t})) for t in range(joint.ndim)]


def entropy(p):
    return -sum(q * math.log(q) for q in np.ravel(p) if q > 0)


# By position.


def test_conditioning_by_hand():
    # Two sequences. Position 0: 1/2, 1/2 in both. Position 1: 3/4, 1/4 and 1/4, 3/4, so that the
    # marginal is 1/2, 1/2; the variances are 1/8 each, and the correction is 2 (1/8) / (2 x 2 x
    # 1/2). Position 2: certain, and different: variances 1/2.
    probabilities = np.array(
        [[[0.5, 0.5, 0], [0.75, 0.25, 0], [1, 0, 0]], [[0.5, 0.5, 0], [0.25, 0.75, 0], [0, 1, 0]]]
    )
    conditional = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    for absent in (-1e9, -math.inf):
        with np.errstate(divide="ignore"):
            found = table.conditioning(np.where(probabilities > 0, np.log(probabilities), absent))
        np.testing.assert_allclose(found.entropy, [LN2, conditional, 0], atol=1e-15)
        np.testing.assert_allclose(
            found.divergence, [0, LN2 - conditional + 1 / 8, LN2 + 1 / 2], atol=1e-15
        )
        np.testing.assert_allclose(
            found.marginal_entropy, [LN2, LN2 + 1 / 8, LN2 + 1 / 2], atol=1e-15
        )
        assert found.total == pytest.approx(2 * LN2 - conditional + 5 / 8)
        assert found.fraction == pytest.approx((2 * LN2 - conditional + 5 / 8) / (3 * LN2 + 5 / 8))


@pytest.mark.parametrize("name", ["uniform", "factorised"])
@pytest.mark.parametrize("n", [2, 50])
def test_policies_that_cannot_look_back_do_not(name, n):
    draw, log_probs, joint = policy(name)
    found = table.conditioning(log_probs(draw(n)))
    np.testing.assert_allclose(found.divergence, 0, atol=1e-12)
    np.testing.assert_allclose(found.entropy, [entropy(p) for p in marginals(joint)], atol=1e-6)
    assert abs(found.fraction) < 1e-12


def test_a_chain_of_copies_carries_all_of_every_decision():
    # The four values of a_0 equally often: the only error is the correction's, three choices in 2 x
    # 399.
    decisions = np.repeat(np.arange(4), 100)[:, None].repeat(5, axis=1)
    found = table.conditioning(copying(1, 4, decisions))
    np.testing.assert_allclose(found.divergence, [0, *[LN4 + 3 / (2 * 399)] * 4], atol=1e-12)
    np.testing.assert_allclose(found.entropy, [LN4, 0, 0, 0, 0], atol=1e-12)
    assert found.fraction == pytest.approx(4 / 5, abs=1e-3)


def test_a_policy_that_always_decides_the_same_has_nothing_to_look_back_on():
    found = table.conditioning(np.log(np.full((10, 5, 1), 1.0)))
    assert found.total == 0 and math.isnan(found.fraction)


@pytest.mark.parametrize("lag", [1, 2])
def test_the_bias_of_few_sequences_is_corrected(lag):
    """Certain decisions, the worst case: uncorrected, log 4 comes out (4 - 1) / 2n too small."""
    n, repetitions = 20, 4000
    first = np.random.default_rng(0).integers(0, 4, (repetitions, n, lag))
    totals = [
        table.conditioning(copying(lag, 4, chain)).total / lag
        for chain in np.concatenate([first, first], axis=2)
    ]
    uncorrected = 3 / (2 * n)
    assert np.std(totals) / math.sqrt(repetitions) < uncorrected / 50
    assert abs(np.mean(totals) - LN4) < uncorrected / 10


def test_own_samples_estimate_the_exact_total_correlation():
    draw, log_probs, joint = policy("lstm")
    exact = table.total_correlation(joint)
    assert exact > 0.1  # far from factorised
    n = 4000
    every = np.asarray(log_probs(draw(n)), np.float64)
    # To first order the estimate is the mean over sequences of KL(p(a_t | a_<t) || exact p_t): its
    # standard error.
    marginal = np.zeros((LENGTH, SPACE.max_choices))
    for t, p in enumerate(marginals(joint)):
        marginal[t, : len(p)] = p
    with np.errstate(divide="ignore", invalid="ignore"):
        divergences = np.where(
            np.exp(every) > 0, np.exp(every) * (every - np.log(marginal)), 0
        ).sum(axis=2)
    errors = divergences.std(axis=0) / math.sqrt(n)
    past = [entropy(joint.sum(axis=tuple(range(t, LENGTH)))) for t in range(LENGTH + 1)]  # H(a_<t)
    exact_by_position = [entropy(p) + past[t] - past[t + 1] for t, p in enumerate(marginals(joint))]
    found = table.conditioning(every)
    assert (np.abs(found.divergence - exact_by_position) <= 4 * errors + 1e-6).all()
    assert abs(found.total - exact) <= 4 * divergences.sum(axis=1).std() / math.sqrt(n)
    assert found.entropy.sum() == pytest.approx(entropy(joint), abs=0.05)


def test_a_hundred_sequences_do_as_well_on_average():
    draw, log_probs, joint = policy("lstm")
    totals = [
        table.conditioning(every).total
        for every in np.split(np.asarray(log_probs(draw(10_000, seed=1))), 100)
    ]
    assert abs(np.mean(totals) - table.total_correlation(joint)) < 4 * np.std(totals) / math.sqrt(
        len(totals)
    )


def test_shared_prefixes_are_judged_by_the_policys_mean_over_them():
    """All sequences once each: what a uniform past tells the policy, by plain loops."""
    _, log_probs, _ = policy("lstm")
    probabilities = np.exp(np.asarray(log_probs(EVERY), np.float64))
    expected = np.zeros(LENGTH)
    for sequence, t in itertools.product(probabilities, range(LENGTH)):
        for p, mean in zip(sequence[t], probabilities[:, t].mean(axis=0), strict=True):
            expected[t] += p * math.log(p / mean) / len(EVERY) if p > 0 else 0
    found = table.conditioning(log_probs(EVERY)).divergence
    assert expected[0] < 1e-12 and expected[2:].min() > 0.01
    np.testing.assert_allclose(
        found, expected, rtol=0.02, atol=1e-9
    )  # the correction is about 1 / 128 of it


def test_one_sequence_has_nothing_to_be_compared_with():
    with pytest.raises(ValueError, match="at least two are needed, got 1"):
        table.conditioning(np.zeros((1, 5, 4)))


# Exactly.


def test_total_correlation_by_hand():
    # Two coins that agree with probability 3/4: 2 log 2 - H(3/8, 3/8, 1/8, 1/8) = (3/4) log(3/2) +
    # (1/4) log(1/2).
    coins = np.array([[3, 1], [1, 3]]) / 8
    assert table.total_correlation(coins) == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    )
    copies = np.zeros((4, 4, 4))
    copies[np.arange(4), np.arange(4), np.arange(4)] = 1 / 4
    assert table.total_correlation(copies) == pytest.approx(2 * LN4)
    assert table.total_correlation(np.ones((1, 1))) == 0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 10**6))
def test_total_correlation_is_the_divergence_from_the_product_of_marginals(shape, seed):
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.full(math.prod(shape), 0.5)).reshape(shape)
    product = functools.reduce(np.multiply.outer, marginals(joint))
    expected = sum(
        p * math.log(p / q) for p, q in zip(joint.ravel(), product.ravel(), strict=True) if p > 0
    )
    assert table.total_correlation(joint) == pytest.approx(expected, abs=1e-12)
    assert table.total_correlation(product) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", POLICIES)
def test_total_correlation_of_the_policies(name):
    assert (table.total_correlation(policy(name)[2]) > 0.1) == (name == "lstm")


# By lag.


@pytest.mark.parametrize("lag", [1, 2])
def test_a_copy_depends_on_what_it_copies_and_nothing_else(lag):
    decisions = np.random.default_rng(0).integers(0, 4, (20, 5))
    found = table.influence(functools.partial(copying, lag, 4), decisions, [4] * 5)
    np.testing.assert_allclose(found, LN4 * np.eye(5, k=lag), atol=1e-12)
    np.testing.assert_allclose(
        table.by_lag(found, [4] * 5), [LN4 if at == lag else 0 for at in range(1, 5)], atol=1e-12
    )


def test_a_sum_depends_on_both_of_its_terms():
    """a_2 = a_0 + a_1 (mod 2) almost: each alone leaves a_2 even, so that no correlation of two
    decisions would see it.
    """

    def log_probs(decisions):
        probabilities = np.full((*decisions.shape, 2), 0.5)
        probabilities[:, 2] = np.where(
            np.arange(2) == (decisions.sum(axis=1) - decisions[:, 2])[:, None] % 2, 0.9, 0.1
        )
        return np.log(probabilities)

    found = table.influence(log_probs, np.array([[0, 1, 1], [1, 1, 1]]), [2, 2, 2])
    information = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    np.testing.assert_allclose(
        found, [[0, 0, information], [0, 0, information], [0, 0, 0]], atol=1e-12
    )


def test_influence_over_a_uniform_past_is_conditional_mutual_information():
    """I(a_t; a_s | the rest of a_<t) = H(a_t | the rest) - H(a_t | a_<t), by entropies of
    enumerated distributions.
    """
    _, log_probs, _ = policy("lstm")
    found = table.influence(log_probs, EVERY, CHOICES)
    conditionals = np.exp(np.asarray(log_probs(EVERY), np.float64)).reshape(*CHOICES, LENGTH, -1)
    for s, t in itertools.product(range(LENGTH), repeat=2):
        expected = 0.0
        if s < t:
            joint = conditionals[..., t, :] / len(EVERY)  # [a_0, ..., a_4, prediction of a_t]
            later = tuple(range(t, LENGTH))
            full, rest = joint.sum(axis=later), joint.sum(axis=(s, *later))
            expected = (
                entropy(rest)
                - entropy(rest.sum(axis=-1))
                - entropy(full)
                + entropy(full.sum(axis=-1))
            )
        assert found[s, t] == pytest.approx(expected, abs=1e-6)
    assert (found <= np.log(CHOICES)[:, None] + 1e-9).all() and found.max() > 0.05


@pytest.mark.parametrize("name", ["uniform", "factorised"])
def test_policies_that_cannot_look_back_are_not_influenced(name):
    draw, log_probs, _ = policy(name)
    np.testing.assert_allclose(table.influence(log_probs, draw(10), CHOICES), 0, atol=1e-12)


def test_lags_leave_out_positions_without_a_choice():
    influence = np.array([[0, 5, 1, 2], [0, 0, 5, 5], [0, 0, 0, 4], [0, 0, 0, 0]])
    assert table.by_lag(influence, [4, 1, 4, 2]).tolist() == [
        4,
        1,
        2,
    ]  # lag 1: (2, 3); lag 2: (0, 2), not (1, 3)
    assert table.by_lag(influence, [4, 4, 4, 2]).tolist() == [14 / 3, 3, 2]
    np.testing.assert_array_equal(table.by_lag(influence, [4, 1, 1, 2]), [math.nan, math.nan, 2])


# Identical states.


def test_agreement_by_hand():
    # Position 0 led to the state. Common decisions after it, of 01: 2, 02: 1, 12: 1; 03: 0, 13: 0,
    # 23: 1. 3 is alone.
    decisions = np.array([[9, 0, 1], [9, 0, 1], [9, 0, 2], [9, 3, 2]])
    within, between, p = table.groups_test(decisions, np.array([7, 7, 7, 5]), 1, permutations=2000)
    assert (within, between) == pytest.approx((4 / 3, 1 / 3))
    # With 0, 1 or 2 alone instead, 2, 2 and 2 are left of these 4 within the others.
    assert binomtest(round(p * 2001) - 1, 2000, 0.25).pvalue > 1e-3


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_agreement_equals_plain_loops(seed):
    rng = np.random.default_rng(seed)
    decisions, groups = rng.integers(0, 3, (9, 4)), rng.permutation([0, 0, 1, 1, 1, 2, 2, 2, 2])
    found = table.groups_test(decisions, groups, 2, permutations=1)
    common = {True: [], False: []}
    for i, j in itertools.combinations(range(9), 2):
        common[bool(groups[i] == groups[j])].append(sum(decisions[i, 2:] == decisions[j, 2:]))
    assert found[:2] == pytest.approx((np.mean(common[True]), np.mean(common[False])))


def test_states_that_decide_everything():
    decisions = np.repeat(np.arange(4), 5)[:, None].repeat(3, axis=1)
    assert table.groups_test(decisions, decisions[:, 0], 1, permutations=999) == pytest.approx(
        (2, 0, 1e-3)
    )


@pytest.mark.parametrize("name", POLICIES)
def test_continuations_of_prefixes(name):
    """Four states, forty architectures from each: only the controller's continuations depend on the
    state.
    """
    prefixes = np.repeat(
        np.array([[0, 0, 0], [1, 0, 1], [2, 0, 2], [3, 0, 3]], np.int32), 40, axis=0
    )
    decisions = policy(name)[0](160, seed=3, prefix=prefixes)
    found = table.groups_test(decisions, prefixes[:, 0], 3)
    assert (found.p < 1e-3) == (name == "lstm") == (found.within - found.between > 0.05)
    assert (
        table.groups_test(decisions, prefixes[:, 0], 0).p == 1e-4
    )  # the prefixes themselves would always tell


def test_identical_states_without_conditioning_are_found_at_the_nominal_rate():
    repetitions, found = 300, 0
    for seed in range(repetitions):
        decisions = np.random.default_rng(seed).integers(0, 4, (40, 6))
        found += (
            table.groups_test(decisions, np.arange(40) // 10, 0, permutations=99, seed=seed).p
            <= 0.05
        )
    assert binomtest(found, repetitions, 0.05).pvalue > 1e-3


@pytest.mark.parametrize(("groups", "start"), [([0, 0, 0], 0), ([0, 1, 2], 0), ([0, 0, 1], 2)])
def test_groups_that_cannot_be_compared(groups, start):
    with pytest.raises(
        UserError, match="at least two are needed, one of them of two or more, and a decision"
    ):
        table.groups_test(np.zeros((3, 2), int), np.array(groups), start)


@pytest.mark.parametrize("spread", [1e-4, 1.0, 1e4])
def test_gibbs_policies_of_two_decisions_that_must_agree(spread):
    """Both decisions stay uniform, so that total correlation is 2 log 2 less the entropy."""
    entropies, correlations = table.gibbs_curve(spread * (np.eye(2) - 1))
    assert np.all(np.diff(entropies) >= 0)
    assert (entropies[0], entropies[-1]) == pytest.approx((LN2, 2 * LN2), abs=1e-4)
    np.testing.assert_allclose(correlations, 2 * LN2 - entropies, atol=1e-12)
