"""Pairs within blocks of architectures: every measure as of each block alone, intervals that cover,
tests at their nominal rates.
"""

import itertools
import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import binomtest, spearmanr

from nas.config import EvaluationConfig
from nas.errors import UserError
from nas.evaluation import blocks, correlations, overlap, statistics
from nas.evaluation.edit_distance import pairwise_edit_distance
from nas.evaluation.samples import Sample
from nas.report.arms.arm import all_measures
from tests.helpers import recurrent_task

TASK = recurrent_task(5)
SPACE = TASK.space
N, SIZE = 12, 4


def draws(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, SPACE.num_choices, (n, SPACE.num_decisions)).astype(np.int32)


def of_blocks(compare, rows, size):
    return np.concatenate([compare(rows[i : i + size]) for i in range(0, len(rows), size)])


def distances(points, size):
    return of_blocks(pdist, points, size)


# Which pairs.


def test_pairs_by_hand():
    first, second = blocks.pairs(6, 3)
    assert first.tolist() == [0, 0, 1, 3, 3, 4] and second.tolist() == [1, 2, 2, 4, 5, 5]


def test_architectures_must_fill_blocks():
    with pytest.raises(ValueError, match="7 architectures .* blocks of 3"):
        blocks.pairs(7, 3)
    with pytest.raises(ValueError, match="7 architectures .* blocks of 3"):
        overlap.feature_difference(np.arange(7.0), block=3)


@pytest.mark.parametrize(
    ("n", "pairs", "block"),
    [
        (3, 3, 3),
        (1000, 500_000, 1000),  # all 499,500
        (1001, 500_000, 100),  # at least ten blocks
        (10_000, 500_000, 100),
        (100_000, 500_000, 10),
        (100_000, 5_000_000, 100),
        (100, 500, 10),
        (100, 4949, 10),
        (100, 4950, 100),
    ],
)
def test_blocks_of_a_number_of_pairs(n, pairs, block):
    plan = EvaluationConfig(architectures=n, pairs=pairs)
    assert plan.block == block and plan.compared % block == 0 and n - block < plan.compared <= n
    assert plan.compared * (block - 1) / 2 <= pairs


@pytest.mark.parametrize(("n", "pairs"), [(100, 499), (99, 4850), (100_001, 500_000), (3, 2)])
def test_too_few_pairs_are_refused(n, pairs):
    with pytest.raises(UserError, match="pairs: must be at least"):
        EvaluationConfig(architectures=n, pairs=pairs)


# Measures: those of each block alone.


def sample(n, block):
    rng = np.random.default_rng(3)
    decisions = draws(n)
    decisions[-2:] = decisions[:2]  # what is alike in two blocks
    states = rng.normal(size=(n, 4)).astype(np.float32)
    edits = correlations.edit_distances(SPACE, decisions, block=block)
    return Sample(decisions, states, -states, rng.normal(4, 1, n), np.full(n, np.nan), edits)


def part(whole, start):
    """The sample of one block alone."""
    rows = slice(start, start + SIZE)
    edits = correlations.edit_distances(SPACE, whole.decisions[rows])
    return Sample(*(field[rows] for field in whole[:-1]), edits)


def test_every_measure_is_that_of_each_block_alone():
    whole = sample(N, SIZE)
    assert (whole.block, whole.blocks) == (SIZE, 3)
    parts = [part(whole, start) for start in range(0, N, SIZE)]
    assert all((one.block, one.blocks) == (SIZE, 1) for one in parts)
    found, alone = all_measures(TASK, whole), [all_measures(TASK, one) for one in parts]
    for name, column in found.items():
        np.testing.assert_array_equal(column, np.concatenate([one[name] for one in alone]), name)
    for metric in correlations.METRICS:
        np.testing.assert_array_equal(
            correlations.distances(whole.after, metric, block=SIZE),
            np.concatenate([correlations.distances(one.after, metric) for one in parts]),
        )


@pytest.mark.parametrize("definition", correlations.EDIT_DISTANCES.values())
def test_edit_distances_are_those_of_all_pairs(definition):
    decisions = sample(N, SIZE).decisions
    row = list(correlations.EDIT_DISTANCES.values()).index(definition)
    everything = pairwise_edit_distance(SPACE, decisions, **definition)
    for size in (SIZE, N):
        found = correlations.edit_distances(SPACE, decisions, block=size)[row]
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, everything[blocks.pairs(N, size)])


def test_the_papers_protocol_correlates_all_pairs_of_blocks():
    whole = sample(N, SIZE)
    found = correlations.paper_protocol(TASK, whole)
    shown = TASK.metric.shown(whole.loss)
    expected = spearmanr(distances(whole.before, SIZE), distances(shown[:, None], SIZE))
    name = correlations.difference_in(TASK.metric.name)
    assert found[name, "Spearman", "L2"] == pytest.approx(expected.statistic, rel=1e-9)


def test_what_is_compared_is_said():
    assert sample(N, SIZE).compared() == "12 architectures, 18 pairs within 3 blocks of 4"
    assert sample(N, N).compared() == "12 architectures, all pairs"


# Mantel's test: against all permutations within blocks.


def restricted(x, statistic, size):
    """Share of all permutations within blocks with a statistic as far from zero as it is now."""
    squares = [squareform(block) for block in x.reshape(-1, size * (size - 1) // 2)]
    orders = list(itertools.permutations(range(size)))
    ones = [[squareform(square[np.ix_(o, o)]) for o in orders] for square in squares]
    values = [statistic(np.concatenate(chosen)) for chosen in itertools.product(*ones)]
    return np.mean(np.abs(values) >= abs(values[0]) - 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_mantel_in_blocks_finds_the_share_of_all_permutations(seed):
    rng, permutations = np.random.default_rng(seed), 2000
    shared = rng.normal(size=(8, 2))
    x, y, z = (np.round(distances(shared + rng.normal(size=(8, 2)), 4), 1) for _ in range(3))
    found = statistics.mantel_and_partial(x, y, z, blocks=2, permutations=permutations)

    def partial(permuted):
        r, with_z, between = (
            spearmanr(*pair).statistic for pair in ((permuted, y), (permuted, z), (y, z))
        )
        return (r - with_z * between) / math.sqrt((1 - with_z**2) * (1 - between**2))

    for test, statistic in zip(
        found, (lambda permuted: spearmanr(permuted, y).statistic, partial), strict=True
    ):
        assert test.r == pytest.approx(statistic(x))
        successes = round(test.p * (1 + permutations)) - 1
        share = restricted(x, statistic, 4)
        assert binomtest(successes, permutations, share).pvalue > 1e-3


def independent(seed, n, size):
    """States of independent random embeddings, and differences of a number they do not tell."""
    rng = np.random.default_rng([seed, 1])
    return distances(rng.normal(size=(n, 5)), size), distances(rng.normal(size=(n, 1)), size)


def related(seed, n, size):
    rng = np.random.default_rng([seed, 1])
    states = rng.normal(size=(n, 5))
    told = states[:, :1] + 2 * rng.normal(size=(n, 1))
    return distances(states, size), distances(told, size)


def rejections(draw, n, size, repetitions):
    return sum(
        statistics.mantel(*draw(seed, n, size), blocks=n // size, permutations=199, seed=seed).p
        <= 0.05
        for seed in range(repetitions)
    )


@pytest.mark.parametrize("size", [10, 20])
def test_false_positives_in_blocks(size):
    found, repetitions = rejections(independent, 200, size, 400), 400
    print(f"p <= .05 in blocks of {size}: {found / repetitions:.1%}")
    assert binomtest(found, repetitions, 0.05).pvalue > 1e-3


def test_pairs_of_architectures_taken_as_independent_are_no_test():
    found = sum(spearmanr(*independent(seed, 200, 20)).pvalue <= 0.05 for seed in range(200))
    assert binomtest(found, 200, 0.05, alternative="greater").pvalue < 1e-6


@pytest.mark.slow
def test_power_in_blocks_beside_that_of_all_pairs():
    """Blocks of a tenth find more than half of what all pairs find, and more than chance."""
    repetitions = 400
    everything, within = (rejections(related, 200, size, repetitions) for size in (200, 20))
    print(f"found: all pairs {everything / repetitions:.1%}, blocks {within / repetitions:.1%}")
    for least in (0.05, everything / repetitions / 2):
        assert binomtest(within, repetitions, least, alternative="greater").pvalue < 1e-3


# Intervals.


def test_interval_by_hand():
    """Of three blocks. P(|T| < t) = t / sqrt(2 + t^2) with two degrees of freedom."""
    x, y = np.random.default_rng(0).normal(size=(2, 3 * 6))
    own = [
        spearmanr(*sides).statistic for sides in zip(*np.reshape((x, y), (2, 3, 6)), strict=True)
    ]
    half = 0.9 * math.sqrt(2 / (1 - 0.9**2)) * np.std(own, ddof=1) / math.sqrt(3)
    estimate = spearmanr(x, y).statistic
    found = statistics.blocked_correlation(x, y, blocks=3, level=0.9)
    assert found == pytest.approx((estimate, estimate - half, estimate + half))


def test_interval_without_correlation_in_a_block_has_no_limits():
    x, y = np.random.default_rng(0).normal(size=(2, 3 * 6))
    x[:6] = 1.0
    estimate, low, high = statistics.blocked_correlation(x, y, blocks=3)
    assert estimate == pytest.approx(spearmanr(x, y).statistic)
    assert math.isnan(low) and math.isnan(high)
    for bad in (np.ones(18), np.where(np.arange(18) == 2, math.inf, x)):
        for sides in ((bad, y), (y, bad)):
            assert np.isnan(statistics.blocked_correlation(*sides, blocks=3)).all()


@pytest.mark.parametrize(("length", "count"), [(18, 4), (15, 3), (21, 3)])
def test_lengths_must_be_those_of_blocks(length, count):
    for function in (statistics.blocked_correlation, statistics.mantel):
        with pytest.raises(ValueError):
            function(np.arange(float(length)), np.arange(float(length)), blocks=count)
        with pytest.raises(ValueError):
            function(np.arange(18.0), np.arange(18.0)[:-6], blocks=3)


@pytest.mark.parametrize(("size", "count"), [(10, 60), (40, 10)])
@pytest.mark.parametrize("related", [True, False])
def test_intervals_cover_the_correlation_of_the_population(size, count, related):
    rng = np.random.default_rng(5)

    def both(n):
        states = rng.normal(size=(n, 3))
        return states, related * states + 2 * rng.normal(size=(n, 3))

    many = 400_000  # pairs without an architecture in common: an error of .0016
    halves = (side.reshape(2, many, 3) for side in both(2 * many))
    truth = spearmanr(*(np.linalg.norm(a - b, axis=1) for a, b in halves)).statistic
    repetitions, covered = 300, 0
    for _ in range(repetitions):
        sides = (distances(side, size) for side in both(size * count))
        _, low, high = statistics.blocked_correlation(*sides, blocks=count)
        covered += low <= truth <= high
    print(
        f"95 % intervals, {count} blocks of {size}: {covered / repetitions:.1%} cover {truth:+.3f}"
    )
    assert binomtest(covered, repetitions, 0.95).pvalue > 1e-3
