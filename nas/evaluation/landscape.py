"""What the values of all architectures of an enumerable space show before any search: how they
depend on decisions, where a search would stop, how well repetitions agree.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from nas.evaluation import overlap, statistics
from nas.evaluation.statistics import Interval
from nas.spaces import SearchSpace


class Explained(NamedTuple):
    """Shares of the variance of values, all architectures weighted alike."""

    fitted: float  # 0..1
    held_out: float  # on architectures that the fit has not seen; below 0: worse than their mean


class Repeatability(NamedTuple):
    """How well the values of architectures agree between seeds, apart from the common effect of a
    seed.
    """

    icc: Interval  # intraclass correlation: share of one value's variance that is not due to seeds
    within: float  # standard deviation between seeds of an architecture
    between: float  # standard deviation between architectures
    spearman: Interval  # mean over pairs of seeds
    best: Interval  # the same within the best quarter by the mean of all seeds
    # The same within the best quarter by a third seed, whose errors are independent of the two;
    # nan with two seeds.
    best_by_another: Interval

    def of_mean(self, seeds: int) -> float:
        """Reliability of the mean of `seeds` seeds (Spearman-Brown)."""
        return statistics.spearman_brown(self.icc.estimate, seeds)


def explained(
    space: SearchSpace,
    values: np.ndarray,
    classes: np.ndarray,
    order: int,
    *,
    folds: int = 10,
    seed: int = 0,
) -> Explained:
    """How much of the values [n] of `space.every()` is explained by a sum of effects: of single
    decisions (order 1), or of pairs of them too (order 2).

    Fitted by least squares. Architectures of one class [n], which compute the same, are held out
    together.
    """
    features = _features(space, order)
    values = np.asarray(values, np.float64)
    fold_of = np.random.default_rng(seed).permutation(classes.max() + 1) % folds
    predicted = np.zeros(len(values))
    for fold in range(folds):
        held_out = fold_of[classes] == fold
        weights = np.linalg.lstsq(features[~held_out], values[~held_out], rcond=None)[0]
        predicted[held_out] = features[held_out] @ weights
    fitted = features @ np.linalg.lstsq(features, values, rcond=None)[0]
    total = np.sum((values - values.mean()) ** 2)
    shares = (1 - np.sum((values - some) ** 2) / total for some in (fitted, predicted))
    return Explained(*map(float, shares))


def local_optima(space: SearchSpace, values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Classes, best first, in which no architecture gets a smaller value by changing one decision.

    Args:
      values: [n] of `space.every()`, smaller is better, equal within a class.
      classes: [n] int.
    """
    grid = np.reshape(values, space.num_choices)
    lines = (grid > grid.min(axis=t, keepdims=True) for t in range(grid.ndim))
    beaten = np.any(list(lines), axis=0).ravel()
    optima = np.setdiff1d(classes, classes[beaten])
    first = np.unique(classes, return_index=True)[1]
    of_class = dict(zip(classes[first].tolist(), values[first].tolist(), strict=True))
    return np.array(sorted(optima.tolist(), key=of_class.__getitem__), int)


def repeatability(
    values: np.ndarray, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Repeatability:
    """Repeatability of values [architectures, seeds], smaller is better; limits are percentiles
    over resampled architectures.

    Raises:
      ValueError: fewer than two seeds or eight architectures.
    """
    values = np.asarray(values, np.float64)
    if values.shape[0] < 8 or values.shape[1] < 2:
        raise ValueError(
            f"at least eight architectures and two seeds are needed, got shape {values.shape}"
        )
    values = values - values.mean(axis=0)
    components = statistics.variance_components(values, resamples=resamples, seed=seed, level=level)
    share = components.share
    icc = Interval(1 - share.estimate, 1 - share.high, 1 - share.low)
    rng = np.random.default_rng(seed)
    resampled = [values[rng.integers(len(values), size=len(values))] for _ in range(resamples)]
    intervals = []
    for agreement in (_between_seeds, _in_best, _in_best_by_another):
        drawn = np.array([agreement(some) for some in resampled])
        drawn = drawn[~np.isnan(drawn)]  # a resample may hold one architecture only
        limits = np.quantile(drawn, _limits(level)) if len(drawn) else (math.nan,) * 2
        intervals.append(Interval(agreement(values), *map(float, limits)))
    return Repeatability(icc, components.within, components.between, *intervals)


def best_quarter(values: np.ndarray) -> np.ndarray:
    """Rows of the smallest quarter of values [n], the smallest first."""
    return np.argsort(values, kind="stable")[: len(values) // 4]


def _features(space, order):
    """[n, columns]: products of up to `order` one-hot decisions."""
    columns = overlap.one_hot(space, space.every())
    of_decision = np.repeat(np.arange(space.num_decisions), space.num_choices)
    products = [columns]
    for chosen in itertools.combinations(range(columns.shape[1]), 2) if order > 1 else ():
        if of_decision[chosen[0]] != of_decision[chosen[1]]:
            products.append(columns[:, chosen].prod(axis=1, keepdims=True))
    return np.concatenate(products, axis=1)


def _limits(level):
    return (1 - level) / 2, (1 + level) / 2


def _between_seeds(values):
    ranks = rankdata(values, axis=0)
    if np.any(np.ptp(ranks, axis=0) == 0):
        return math.nan
    return float(np.mean(np.corrcoef(ranks.T)[np.triu_indices(values.shape[1], 1)]))


def _in_best(values):
    return _between_seeds(values[best_quarter(values.mean(axis=1))])


def _in_best_by_another(values):
    if values.shape[1] < 3:
        return math.nan
    found = []
    for judge in range(values.shape[1]):
        best = best_quarter(values[:, judge])
        found.append(_between_seeds(np.delete(values, judge, axis=1)[best]))
    return float(np.mean(found))
