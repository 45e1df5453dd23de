"""What values of all architectures say: planted effects, a grid small enough to be searched by
hand, seeds whose noise is known.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.evaluation import landscape
from nas.spaces import SearchSpace


@dataclasses.dataclass(frozen=True)
class Choices(SearchSpace):
    """Decisions that no graph is drawn of."""

    kinds: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()


SPACE = Choices((3, 1, 4, 2), kinds=("operation",) * 4)
EVERY = SPACE.every()
ALONE = np.arange(len(EVERY))


def effects(*positions):
    """[24] an effect of these decisions together, of which none of fewer has a share."""
    effect = np.random.default_rng(len(positions)).standard_normal(SPACE.num_choices)
    for t in range(4):
        mean = effect.mean(axis=t, keepdims=True)
        effect = effect - mean if t in positions else np.broadcast_to(mean, effect.shape)
    return effect.ravel() / effect.std()


def test_every_architecture_is_where_its_index_says():
    assert EVERY.shape == (24, 4) and EVERY.dtype == np.int32
    np.testing.assert_array_equal(SPACE.index(EVERY), ALONE)
    assert {*map(tuple, EVERY.tolist())} == {
        *itertools.product(range(3), range(1), range(4), range(2))
    }


def test_sums_of_effects_are_explained_whole():
    single = effects(0) + 2 * effects(2) - effects(3) + 5
    for order in (1, 2):
        assert landscape.explained(SPACE, single, ALONE, order).fitted == pytest.approx(1)
    assert landscape.explained(SPACE, single, ALONE, 1).held_out == pytest.approx(1)


def test_pairs_have_the_share_of_variance_that_they_are_given():
    values = 3 * effects(0) + effects(0, 2) + effects(0, 2, 3)  # variances 9, 1, 1
    assert landscape.explained(SPACE, values, ALONE, 1).fitted == pytest.approx(9 / 11)
    assert landscape.explained(SPACE, values, ALONE, 2).fitted == pytest.approx(10 / 11)


def test_what_a_fit_learns_by_heart_does_not_count_as_explained():
    """17 effects of 1 + 2 + 3 and their pairs, 2, 3 and 6, fit 17 of the 23 freedoms of noise."""
    rng = np.random.default_rng(0)
    found = [landscape.explained(SPACE, rng.standard_normal(24), ALONE, 2) for _ in range(100)]
    fitted, held_out = np.mean(found, axis=0)
    assert fitted == pytest.approx(17 / 23, abs=0.04) and held_out < 0


def test_architectures_of_a_class_are_held_out_together():
    """A fold of one class leaves the other, whose values are all alike: what it predicts is wrong
    by one everywhere, where the mean is by a half.
    """
    classes = EVERY.sum(axis=1) % 2
    values = classes.astype(float)
    found = landscape.explained(SPACE, values, classes, 1, folds=2)
    assert found.held_out == pytest.approx(-3)


def test_local_optima_by_hand():
    # Rows are decision 0, columns decision 1.
    space = Choices((3, 3), kinds=("operation",) * 2)
    values = np.array([[5, 4, 9], [3, 6, 7], [8, 7, 1]])
    # 4 is the least of its row and of its column, 3 too, and 1; 5 has 4 beside it.
    found = landscape.local_optima(space, values.ravel(), np.arange(9))
    assert found.tolist() == [8, 3, 1]
    # The architectures of 3 and of 4 are one class of 4: that of the row of 3 still has no better
    # neighbour. As one class with 5 it has one: 5 is beside 4.
    classes = np.array([0, 1, 2, 1, 4, 5, 6, 7, 8])
    values[1, 0] = 4
    assert landscape.local_optima(space, values.ravel(), classes).tolist() == [8, 1]
    values[0, 0] = 4
    values[2, 0] = 2
    classes[0] = 1
    assert landscape.local_optima(space, values.ravel(), classes).tolist() == [8]


def noisy(cells, seeds, noise, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((cells, 1)) + noise * rng.standard_normal((cells, seeds))


def test_seeds_that_agree_but_for_a_common_effect():
    values = noisy(12, 3, 0.0) + np.array([0.0, 5.0, -1.0])
    found = landscape.repeatability(values, resamples=20)
    assert found.icc == pytest.approx((1, 1, 1)) and found.spearman == pytest.approx((1, 1, 1))
    assert found.within == pytest.approx(0, abs=1e-12)
    assert found.best.estimate == found.best_by_another.estimate == 1
    assert found.of_mean(3) == pytest.approx(1)


def test_intraclass_correlation_is_the_share_that_was_planted():
    found = landscape.repeatability(noisy(4000, 3, 0.5), resamples=50)
    assert found.icc.estimate == pytest.approx(1 / 1.25, abs=0.02)
    assert found.icc.low < 0.8 < found.icc.high
    assert (found.within, found.between) == pytest.approx((0.5, 1), abs=0.04)
    assert found.of_mean(3) == pytest.approx(1 / (1 + 0.25 / 3), abs=0.02)
    assert found.spearman.low < found.spearman.estimate < found.spearman.high


def test_the_best_quarter_by_hand():
    first = np.array([0.0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21])
    second = first.copy()
    second[:4] = 2, 3, 0, 1  # two exchanged pairs among the four that are best
    found = landscape.repeatability(np.stack([first, second], axis=1), resamples=10)
    assert found.best.estimate == pytest.approx(spearmanr(first[:4], second[:4])[0])
    assert math.isnan(found.best_by_another.estimate)  # there is no third seed
    third = -first  # the best by it are the last four
    found = landscape.repeatability(np.stack([first, second, third], axis=1), resamples=10)
    # By the third seed 1; by the first: -1 between second and third as they are chosen, and so on.
    by_first = spearmanr(second[:4], third[:4])[0]
    by_second = spearmanr(first[np.argsort(second)[:4]], third[np.argsort(second)[:4]])[0]
    assert found.best_by_another.estimate == pytest.approx((1 + by_first + by_second) / 3)


def test_too_few_to_agree():
    for shape in ((7, 3), (12, 1)):
        with pytest.raises(ValueError, match="eight architectures and two seeds"):
            landscape.repeatability(np.zeros(shape))
