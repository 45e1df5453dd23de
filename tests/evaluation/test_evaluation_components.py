"""Components of variance: by hand, and of values drawn with known ones."""

import numpy as np
import pytest

from nas.evaluation import statistics


def test_variance_components_by_hand():
    """Groups (1, 3), (5, 7), (9, 17): variances 2, 2, 32, so 12 within; means 2, 6, 13, of variance
    31, less 12 / 2.
    """
    found = statistics.variance_components([[1, 3], [5, 7], [9, 17]])
    np.testing.assert_allclose(found[:2], np.sqrt([12, 25]))
    assert found.share.estimate == pytest.approx(12 / 37)


def test_variance_components_that_are_nothing():
    alike = statistics.variance_components([[1, 1], [2, 2], [3, 3], [4, 4]])
    assert alike.within == 0 and alike.share.estimate == alike.share.high == 0
    within_only = statistics.variance_components([[1, 3], [3, 1], [0, 4]])
    assert within_only.between == 0 and within_only.share.estimate == 1
    for values in ([[1, 1], [1, 1]], [[1, np.nan], [1, 2]]):
        assert np.isnan(statistics.variance_components(values).share).all()
    for shape in ((1, 3), (3, 1)):
        with pytest.raises(ValueError):
            statistics.variance_components(np.zeros(shape))


def test_variance_components_of_drawn_values():
    """Groups of standard deviation 2 about 0, members of 1 about their groups: a share of 1 / 5,
    which the limits hold.
    """
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        values = rng.normal(0, 2, (60, 1)) + rng.normal(0, 1, (60, 4))
        found = statistics.variance_components(values, resamples=300, seed=seed)
        assert found.within == pytest.approx(1, abs=0.3) and found.between == pytest.approx(
            2, abs=0.9
        )
        covered += found.share.low <= 0.2 <= found.share.high
    assert 32 <= covered <= 40  # of 95 %, a bootstrap of 60 groups being somewhat narrow
