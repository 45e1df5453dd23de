"""Intervals and tests: by hand where Student's t has a closed form, against all permutations, and
at their nominal rates.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import binomtest, rankdata, spearmanr, ttest_rel
from statsmodels.stats.weightstats import DescrStatsW

from nas.evaluation import statistics

NAN = math.nan


def points(n, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width))


def seeds(n, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, 1.0, n)


# Over seeds. With two degrees of freedom P(|T| < t) = t / sqrt(2 + t^2), so that the quantile of c
# is c sqrt(2 / (1 - c^2)).


def quantile(central):
    return central * math.sqrt(2 / (1 - central**2))


def test_interval_by_hand():
    # Standard deviation 1, three seeds.
    half = quantile(0.95) / math.sqrt(3)
    assert statistics.mean_interval([3, 1, 2]) == pytest.approx((2, 2 - half, 2 + half), rel=1e-9)
    half = quantile(0.5) / math.sqrt(3)
    assert statistics.mean_interval(np.array([3, 1, 2], np.float32), level=0.5) == pytest.approx(
        (2, 2 - half, 2 + half)
    )


def test_paired_difference_by_hand():
    # Differences 1, 2, 3: t = 2 sqrt(3), P(|T| > t) = 1 - sqrt(12 / 14).
    half = quantile(0.9) / math.sqrt(3)
    found = statistics.paired_difference([11, 2, 7], [10, 0, 4], level=0.9)
    assert found == pytest.approx((2, 2 - half, 2 + half, 2, 1 - math.sqrt(12 / 14)), rel=1e-9)
    mean, low, high, effect, p = statistics.paired_difference([10, 0, 4], [11, 2, 7], level=0.9)
    assert (-mean, -high, -low, -effect, p) == pytest.approx(found)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(0, 10**6))
def test_paired_difference_is_scipys_test(n, seed):
    a, b = seeds(n, 0.3, seed), seeds(n, 0.0, seed + 1)
    found, expected = statistics.paired_difference(a, b), ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert found[1:3] == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found[:3] == pytest.approx(statistics.mean_interval(a - b))
    assert found.effect * math.sqrt(n) == pytest.approx(expected.statistic)


def test_pairing_takes_away_what_seeds_share():
    shared, noise = 100 * seeds(8), 0.1 * seeds(8, seed=1)
    assert statistics.paired_difference(shared + 1 + noise, shared).p < 1e-6


@pytest.mark.parametrize("scale", [1, 1e6])
def test_differences_without_spread(scale):
    a = scale + np.array([0.3, 0.4, 0.5])
    b = scale + np.array([0.2, 0.3, 0.4])  # less by .1 in all, but for rounding
    found = statistics.paired_difference(a, b)
    assert found == pytest.approx((0.1, 0.1, 0.1, NAN, NAN), nan_ok=True, rel=1e-9)
    assert statistics.paired_difference(a, a) == (0, 0, 0, 0, 1)
    c = a * (1 + 1e-16)  # a as another order of summation would give it
    assert statistics.paired_difference(a, c)[3:] == (0, 1)


def test_one_seed_has_a_mean_and_no_more():
    assert statistics.mean_interval([2.5]) == pytest.approx((2.5, NAN, NAN), nan_ok=True)
    assert statistics.paired_difference([2.5], [2.0]) == pytest.approx(
        (0.5, NAN, NAN, NAN, NAN), nan_ok=True
    )
    assert math.isnan(statistics.equivalence_p([0.1], 0.5)) and math.isnan(
        statistics.equivalence_bound([0.1])
    )


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
@pytest.mark.filterwarnings("error")
def test_a_seed_that_is_not_finite_is_not_dropped(bad):
    values = [0.1, bad, 0.2]
    assert np.isnan(statistics.mean_interval(values)).all()
    assert np.isnan(statistics.paired_difference(values, [0.0, 0.1, 0.3])).all()
    assert np.isnan(statistics.paired_difference(values, values)).all()
    assert math.isnan(statistics.equivalence_p(values, 1.0)) and math.isnan(
        statistics.equivalence_bound(values)
    )


def test_seeds_must_be_paired():
    with pytest.raises(ValueError, match=r"paired, got \(3,\) and \(1,\)"):
        statistics.paired_difference([1, 2, 3], [1])


def test_equivalence_bound_by_hand():
    # Standard deviation .1, mean -.2; one-sided level .05 is the central .9.
    expected = 0.2 + quantile(0.9) * 0.1 / math.sqrt(3)
    assert statistics.equivalence_bound([-0.3, -0.1, -0.2]) == pytest.approx(expected)
    assert statistics.equivalence_p([-0.3, -0.1, -0.2], expected) == pytest.approx(0.05)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.floats(0.05, 3), st.integers(0, 10**6))
def test_equivalence_is_two_one_sided_tests(n, bound, seed):
    values = seeds(n, 0.2, seed)
    assert statistics.equivalence_p(values, bound) == pytest.approx(
        DescrStatsW(values).ttost_mean(-bound, bound)[0]
    )


def test_equivalence_without_spread():
    assert statistics.equivalence_bound([0.3, 0.3, 0.3]) == pytest.approx(0.3)
    assert [statistics.equivalence_p([-0.3, -0.3], bound) for bound in (0.2, 0.4)] == [1, 0]


def test_holm_by_hand():
    # Ordered .01 x 3, .03 x 2, then .04 x 1, which may not be below the one before.
    assert statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert statistics.holm({"a": 0.7, "b": 0.8}) == {"a": 1, "b": 1}
    found = statistics.holm({"a": NAN, "b": 0.01, "c": 0.02})
    assert found == pytest.approx({"a": NAN, "b": 0.03, "c": 0.04}, nan_ok=True)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        statistics.holm({"a": 1.2})


# Over architectures: against the enumeration of all permutations.


def all_permutations(n, statistic, x):
    """Share of the n! relabellings of x with a statistic at least as far from zero as it is now."""
    square = squareform(x)
    values = [
        statistic(squareform(square[np.ix_(order, order)]))
        for order in itertools.permutations(range(n))
    ]
    return np.mean(np.abs(values) >= abs(values[0]) - 1e-9)


def correlation_of_residuals(x, y, control):
    """Partial correlation of ranks, by two regressions."""
    design = np.column_stack([np.ones(len(x)), rankdata(control)])
    left, right = (
        rankdata(side) - design @ np.linalg.lstsq(design, rankdata(side))[0] for side in (x, y)
    )
    return np.corrcoef(left, right)[0, 1]


def assert_is_share(p, expected, permutations):
    successes = round(p * (1 + permutations)) - 1
    assert binomtest(successes, permutations, expected).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_mantel_finds_the_share_of_all_permutations(seed):
    x, y = pdist(points(6, seed=seed)), np.round(pdist(points(6, seed=seed + 10)))  # with ties
    found = statistics.mantel(x, y, permutations=2000)
    assert found.r == pytest.approx(spearmanr(x, y).statistic)
    assert_is_share(
        found.p, all_permutations(6, lambda permuted: spearmanr(permuted, y).statistic, x), 2000
    )


@pytest.mark.parametrize("seed", range(4))
def test_partial_mantel_finds_the_share_of_all_permutations(seed):
    control = points(6, seed=seed)
    x, y = (
        np.round(pdist(points(6, seed=seed + 10) + control)),
        pdist(points(6, seed=seed + 20) + control),
    )
    control = pdist(control)
    found = statistics.partial_mantel(x, y, control, permutations=2000)
    assert found.r == pytest.approx(correlation_of_residuals(x, y, control))
    exact = all_permutations(6, lambda permuted: correlation_of_residuals(permuted, y, control), x)
    assert_is_share(found.p, exact, 2000)


def test_mantel_of_a_distance_with_itself():
    x = pdist(points(30))
    assert statistics.mantel(x, 2 * x, permutations=99) == pytest.approx((1, 0.01))
    assert statistics.mantel(x, -x, permutations=99) == pytest.approx(
        (-1, 0.01)
    )  # a similarity, two-sided


def test_what_only_the_control_explains_goes():
    control, n = points(60, width=2), 60
    x, y, z = (
        pdist(control + 0.4 * points(n, 2, 1)),
        pdist(control + 0.4 * points(n, 2, 2)),
        pdist(control),
    )
    plain, partial = statistics.mantel(x, y), statistics.partial_mantel(x, y, z)
    assert plain.r > 0.5 and abs(partial.r) < plain.r / 3


def test_a_control_that_explains_nothing_changes_nothing():
    x, y, control = (
        pdist(points(40)),
        pdist(points(40) + points(40, seed=1)),
        pdist(points(40, seed=2)),
    )
    plain, partial = statistics.mantel(x, y), statistics.partial_mantel(x, y, control)
    assert partial.r == pytest.approx(plain.r, abs=0.05) and plain.p == partial.p == pytest.approx(
        1e-4
    )


@pytest.mark.parametrize("n", [6, 10, 14, 30, 50, 100])
def test_architectures_that_are_alike(n):
    # One unlike the others, in x; y has two kinds, half each, that are mirror images: every
    # permutation gives +r or -r.
    kinds = np.arange(n) % 2
    y = squareform(np.where(np.eye(n), 0, kinds[:, None] + kinds[None]))
    x = pdist((np.arange(n) == 0)[:, None].astype(float), "cityblock")
    tests = (
        statistics.mantel(x, y, permutations=500),
        statistics.partial_mantel(x, y, np.abs(y - 1), permutations=500),
    )
    for found in tests:
        assert abs(found.r) > 0.05 and found.p == 1


def test_undefined_where_a_side_is_constant_or_not_finite():
    x, y = pdist(points(6)), pdist(points(6, seed=1))
    for bad in (
        np.ones(15),
        np.where(np.arange(15) == 3, NAN, x),
        np.where(np.arange(15) == 3, math.inf, x),
    ):
        for a, b in ((bad, y), (y, bad)):
            assert np.isnan(statistics.mantel(a, b)).all()
            assert np.isnan(statistics.partial_mantel(a, b, x)).all()
            assert np.isnan(statistics.bootstrap_correlation(a, b, resamples=9)).all()
        assert np.isnan(statistics.partial_mantel(x, y, bad)).all()
    assert np.isnan(statistics.partial_mantel(x, y, 2 * y)).all()  # nothing is left of y
    assert np.isnan(statistics.partial_mantel(x, y, -(x**3))).all()


@pytest.mark.parametrize("test", [statistics.mantel, statistics.bootstrap_correlation])
def test_lengths_must_be_those_of_pairs(test):
    with pytest.raises(ValueError):
        test(np.arange(10.0), np.arange(15.0))
    with pytest.raises(ValueError):
        test(np.arange(11.0), np.arange(11.0))


def test_same_seed_same_p():
    x, y, z = (pdist(points(12, seed=seed)) for seed in range(3))
    for test in (
        lambda seed: statistics.mantel(x, y, seed=seed),
        lambda seed: statistics.partial_mantel(x, y, z, seed=seed),
    ):
        assert test(1) == test(1) != test(2)


# The bootstrap.


def test_bootstrap_equals_resamples_written_out():
    """The same draws; every pair of places with two different architectures, ranked anew."""
    n, resamples = 9, 200
    x, y = np.round(2 * pdist(points(n))), pdist(points(n) + points(n, seed=1))
    rng, values = np.random.default_rng(5), []
    for _ in range(resamples):
        drawn = rng.integers(n, size=n)
        pairs = [(i, j) for i, j in itertools.combinations(drawn, 2) if i != j]
        values.append(
            spearmanr(*([squareform(side)[i, j] for i, j in pairs] for side in (x, y))).statistic
        )
    found = statistics.bootstrap_correlation(x, y, resamples=resamples, seed=5, level=0.8)
    assert found == pytest.approx(
        (spearmanr(x, y).statistic, np.quantile(values, 0.1), np.quantile(values, 0.9))
    )


def test_bootstrap_covers_the_correlation_of_the_population():
    def sample(n, rng):
        x = rng.normal(size=(n, 3))
        return pdist(x), pdist(x + 2 * rng.normal(size=(n, 3)))

    rng = np.random.default_rng(0)
    truth = spearmanr(
        *sample(2000, rng)
    ).statistic  # its standard error is about a seventh of a sample's below
    repetitions = 80
    intervals = [
        statistics.bootstrap_correlation(*sample(40, rng), resamples=200, seed=i)
        for i in range(repetitions)
    ]
    covered = sum(low <= truth <= high for _, low, high in intervals)
    assert binomtest(covered, repetitions, 0.95).pvalue > 1e-3


def test_bootstrap_without_correlation_in_a_resample_has_no_limits():
    # Two of ten architectures differ from the rest: one resample in ten has neither.
    embedding = np.where(np.arange(10) < 2, np.arange(10) + 1.0, 0.0)[:, None]
    x, y = pdist(embedding), pdist(embedding**2)
    estimate, low, high = statistics.bootstrap_correlation(x, y)
    assert (
        estimate == pytest.approx(spearmanr(x, y).statistic)
        and math.isnan(low)
        and math.isnan(high)
    )


# Rates of false positives.


def test_false_positives_of_distances_against_differences_of_an_independent_number():
    naive, mantel, repetitions = 0, 0, 400
    for seed in range(repetitions):
        x, y = pdist(points(100, 5, 2 * seed)), pdist(points(100, 1, 2 * seed + 1))
        naive += spearmanr(x, y).pvalue <= 0.05
        mantel += statistics.mantel(x, y, permutations=199, seed=seed).p <= 0.05
    print(
        f"p <= .05: pairs taken as independent {naive / repetitions:.1%}, Mantel "
        f"{mantel / repetitions:.1%}"
    )
    assert abs(mantel / repetitions - 0.05) <= 0.02
    assert naive / repetitions > 0.2


def test_false_positives_of_the_partial_test():
    """x independent of y and control, which depend on each other."""
    found, repetitions = 0, 200
    for seed in range(repetitions):
        control = points(20, 2, 3 * seed)
        x, y = points(20, 5, 3 * seed + 1), control + points(20, 2, 3 * seed + 2)
        found += (
            statistics.partial_mantel(
                pdist(x), pdist(y), pdist(control), permutations=99, seed=seed
            ).p
            <= 0.05
        )
    assert binomtest(found, repetitions, 0.05).pvalue > 1e-3


@pytest.mark.parametrize("control", ["varies", "constant", "not finite"])
def test_both_mantel_tests_at_once_are_what_they_are_alone(control):
    rng = np.random.default_rng(5)
    x, y, fixed = rng.random((3, 12 * 11 // 2))
    fixed = {"varies": fixed, "constant": fixed * 0, "not finite": fixed * NAN}[control]
    simple, partial = statistics.mantel_and_partial(x, y, fixed, permutations=199)
    assert simple == pytest.approx(statistics.mantel(x, y, permutations=199))
    assert partial == pytest.approx(
        statistics.partial_mantel(x, y, fixed, permutations=199), nan_ok=True
    )
    assert np.isnan(partial.r) == (control != "varies")
