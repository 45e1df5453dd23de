"""What is constant up to rounding counts as constant, wherever it is asked."""

import math

import numpy as np
import pytest

from nas.evaluation import correlations, statistics
from nas.evaluation.probes import probe_accuracy
from nas.evaluation.rounding import constant_columns, is_constant

RNG = np.random.default_rng(0)
N, PAIRS = 20, 190


def jittered(value, dtype):
    """Numbers that differ in their last bits."""
    return (value * (1 + np.finfo(dtype).eps * RNG.integers(0, 3, (N, 4)))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e-30, 1e30])
def test_the_last_bits_do_not_count(dtype, value):
    values = jittered(value, dtype)
    assert np.ptp(values) > 0 and is_constant(values) and constant_columns(values).all()
    distance, other = correlations.distances(values), RNG.normal(size=PAIRS)
    assert not distance.any()
    for x, y in ((distance, other), (other, distance), (other, np.resize(values[:, 0], PAIRS))):
        assert math.isnan(correlations.spearman(x, y))
        assert math.isnan(statistics.mantel(x, y).p)
        assert math.isnan(statistics.bootstrap_correlation(x, y, resamples=3).estimate)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_small_is_not_constant(dtype):
    values = (1 + 1e-4 * RNG.normal(size=(N, 4))).astype(dtype)
    assert not is_constant(values) and not constant_columns(values).any()
    assert not is_constant(values[:, 0] - 1)
    assert correlations.distances(values).min() > 0


def test_distances_that_are_all_the_same_up_to_rounding():
    distance = correlations.distances(3.3 * np.eye(N))  # all at the square root of 2 times 3.3
    distance = distance * (1 + 1e-16 * RNG.integers(0, 5, PAIRS))
    assert np.ptp(distance) > 0
    assert math.isnan(correlations.spearman(distance, RNG.normal(size=PAIRS)))


def test_nothing_is_constant():
    assert is_constant(np.zeros((0, 3))) and is_constant(np.zeros(5)) and is_constant([1, 1])
    assert not is_constant([1, 2])


def test_a_probe_reads_nothing_off_rounding():
    decisions = RNG.integers(0, 2, (200, 3))
    noise = 1e-17 * decisions[:, :1]  # would tell the first decision if it were standardised
    probe = probe_accuracy(np.hstack([noise, np.full((200, 1), 0.5)]), decisions)
    np.testing.assert_array_equal(probe.accuracy, probe.majority)
