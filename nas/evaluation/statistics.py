"""What the numbers of a study are worth: intervals over seeds, paired comparisons, tests on
distances of architectures.

Seeds are independent of each other, pairs of architectures are not: the 4,950 distances between 100
architectures share those architectures, and the usual p-value of their correlation is wrong.
Intervals and p-values of such a correlation come from permuting or resampling architectures, or
from blocks of them, which are independent. A number that is not finite makes every result that
depends on it NaN: a seed is never dropped.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import num_obs_y, squareform
from scipy.stats import rankdata, t

from nas.evaluation.compiled import compiled
from nas.evaluation.rounding import ROUNDING, is_constant
from nas.progress import track

_TOLD = 100  # permutations between two reports of progress


class Interval(NamedTuple):
    """An estimate and the limits of its confidence interval; NaN where they are undefined."""

    estimate: float
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """The estimate and [low, high]."""
        estimate, low, high = (f"{value:.{digits}f}" for value in self)
        return f"{estimate} [{low}, {high}]"


class Paired(NamedTuple):
    """The difference of two arms over seeds that both ran."""

    mean: float
    low: float
    high: float
    effect: float  # Cohen's d_z: mean difference / standard deviation of the differences
    p: float  # paired t test, two-sided


class Mantel(NamedTuple):
    """A correlation of distances and its p-value under permutations of the architectures."""

    r: float
    p: float  # two-sided


class VarianceComponents(NamedTuple):
    """Where the spread of values in groups comes from, as standard deviations."""

    within: float  # spread of values about the mean of their group
    between: float  # spread of the groups' means, less what `within` adds to it
    # within^2 / (within^2 + between^2): share in the variance of one value of each group; limits
    # over resampled groups
    share: Interval


def mean_interval(values, level: float = 0.95) -> Interval:
    """Mean over seeds [S] with Student's t interval; limits are NaN for a single seed."""
    mean, error = _mean_and_error(_seeds(values))
    half = error * _t_quantile((1 + level) / 2, values)
    return Interval(mean, mean - half, mean + half)


def paired_difference(a, b, level: float = 0.95) -> Paired:
    """a - b over seeds [S], the same seed at the same place in both: t interval, effect size and
    paired t test.

    Differences that are all equal have no spread to be measured against: effect and p are NaN,
    unless all are zero (0 and 1). Limits, effect and p are NaN for a single seed.

    Raises:
      ValueError: a and b are of different length.
    """
    a, b = _seeds(a), _seeds(b)
    if a.shape != b.shape:
        raise ValueError(f"seeds must be paired, got {a.shape} and {b.shape}")
    rounding = ROUNDING * np.abs([a, b]).max()
    mean, error = _mean_and_error(a - b, rounding)
    half = error * _t_quantile((1 + level) / 2, a)
    if error == 0:
        effect, p = (0.0, 1.0) if abs(mean) <= rounding else (math.nan, math.nan)
    else:
        effect, p = mean / error / math.sqrt(len(a)), 2 * float(t.sf(abs(mean) / error, len(a) - 1))
    return Paired(mean, mean - half, mean + half, effect, p)


def equivalence_p(values, bound: float) -> float:
    """p-value of the hypothesis that the mean over seeds is not within (-bound, bound), of values
    [S].

    Two one-sided t tests (Schuirmann 1987); NaN for a single seed.
    """
    mean, error = _mean_and_error(_seeds(values))
    if error == 0:
        return float(abs(mean) >= bound)
    return float(t.sf((bound - abs(mean)) / error, len(values) - 1))


def equivalence_bound(values, level: float = 0.05) -> float:
    """The smallest bound at which `equivalence_p` of values [S] is at most `level`: what "no
    correlation" then means.

    It is about the mean over seeds for the architectures that were compared, not for others.
    """
    mean, error = _mean_and_error(_seeds(values))
    return abs(mean) + error * _t_quantile(1 - level, values)


def spearman_brown(reliability: float, count: int) -> float:
    """Reliability of the mean of `count` measurements, from that of one."""
    return count * reliability / (1 + (count - 1) * reliability)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of one family of tests, adjusted after Holm (1979): rejecting those below .05 keeps
    the chance of any false rejection in the family below .05.

    A NaN stays NaN and counts as a test of the family.

    Raises:
      ValueError: a p-value outside 0..1.
    """
    from statsmodels.stats.multitest import multipletests  # not at the top: it imports pandas

    values = np.array(list(p_values.values()), float)
    undefined = np.isnan(values)
    if np.any((values < 0) | (values > 1)):
        raise ValueError(f"p-values lie in 0..1, got {values}")
    adjusted = multipletests(np.where(undefined, 1.0, values), method="holm")[1]
    return dict(zip(p_values, np.where(undefined, math.nan, adjusted).tolist(), strict=True))


def mantel(
    x: np.ndarray,
    y: np.ndarray,
    *,
    blocks: int = 1,
    permutations: int = 9999,
    seed: int = 0,
) -> Mantel:
    """Mantel's test (1967) of Spearman's correlation between two distances of architectures, both
    in the order of `nas.evaluation.blocks` [P].

    The architectures of x are permuted, those of each block among themselves, and p = (1 +
    permutations with |r| no smaller) / (1 + permutations). A permutation takes time proportional to
    P. If x and y are independent, the architectures of a block are exchangeable and the test is
    exact, whatever the number of blocks (restricted permutations: Good 2005, "Permutation,
    Parametric and Bootstrap Tests of Hypotheses"). Correlations that differ by rounding alone count
    as equal: where architectures are mostly alike, many permutations give the observed one, and p
    would come out far too small without them. NaN where a side is constant or not finite.

    Raises:
      ValueError: lengths that differ, or are no number of pairs.
    """
    if not (_varies(x) and _varies(y)):
        return Mantel(math.nan, math.nan)
    return _two_sided(_permuted_correlations(x, [y], blocks, permutations, seed)[0])


def partial_mantel(
    x: np.ndarray,
    y: np.ndarray,
    control: np.ndarray,
    *,
    blocks: int = 1,
    permutations: int = 9999,
    seed: int = 0,
) -> Mantel:
    """Partial Mantel test (Smouse, Long, Sokal 1986): `mantel` of x and y at a fixed control [P],
    on ranks.

    The architectures of x are permuted; y and the control keep their relation. Where x and y both
    follow the control, p is too small (Guillot, Rousset 2013): a correlation of ranks does not take
    all of it away. NaN also where the control determines a side.

    Raises:
      ValueError: lengths that differ, or are no number of pairs.
    """
    options = {"blocks": blocks, "permutations": permutations, "seed": seed}
    return mantel_and_partial(x, y, control, **options)[1]


def mantel_and_partial(
    x: np.ndarray,
    y: np.ndarray,
    control: np.ndarray,
    *,
    blocks: int = 1,
    permutations: int = 9999,
    seed: int = 0,
) -> tuple[Mantel, Mantel]:
    """`mantel` of x and y and `partial_mantel` at a fixed control, from the same permutations,
    which take most of the time.
    """
    undefined = Mantel(math.nan, math.nan)
    if not (_varies(x) and _varies(y) and _varies(control)):
        options = {"blocks": blocks, "permutations": permutations, "seed": seed}
        return mantel(x, y, **options), undefined
    with_y, with_control = _permuted_correlations(x, [y, control], blocks, permutations, seed)
    simple, between = _two_sided(with_y), _standard_ranks(y) @ _standard_ranks(control)
    unexplained = (1 - with_control**2) * (1 - between**2)
    if unexplained[0] <= ROUNDING:
        return simple, undefined
    return simple, _two_sided(
        (with_y - with_control * between) / np.sqrt(np.maximum(unexplained, ROUNDING))
    )


def bootstrap_correlation(
    x: np.ndarray, y: np.ndarray, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Spearman's correlation of two distances [P] in `pdist` order, with percentile limits over
    resampled architectures.

    A resample draws n architectures with replacement and takes all pairs of two different ones: an
    architecture and its copy have distance zero on both sides, which would bias the correlation.
    NaN where a resample has no correlation.

    Raises:
      ValueError: lengths that differ, or are no number of pairs.
    """
    n = num_obs_y(x)
    first, second = np.triu_indices(n, 1)
    groups = [np.unique(side, return_inverse=True)[1] for side in (x, y)]
    varies = _varies(x) and _varies(y)

    def correlation(counts):
        weights = counts[first] * counts[second]
        total = weights.sum()
        centred = []
        for group in groups:  # mid-ranks of values that occur `weights` times
            ends = np.cumsum(sizes := np.bincount(group, weights))
            centred.append((ends - (sizes - 1) / 2)[group] - (total + 1) / 2)
        rx, ry = centred
        spread = weights @ rx**2 * (weights @ ry**2)
        return float(weights @ (rx * ry)) / math.sqrt(spread) if spread > 0 and varies else math.nan

    rng = np.random.default_rng(seed)
    drawn = [
        correlation(np.bincount(rng.integers(n, size=n), minlength=n).astype(float))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(correlation(np.ones(n)), float(low), float(high))


def blocked_correlation(
    x: np.ndarray, y: np.ndarray, *, blocks: int, level: float = 0.95
) -> Interval:
    """Spearman's correlation of two distances within blocks [P], in the order of
    `nas.evaluation.blocks`, with limits over blocks.

    The estimate is of all pairs together. Its standard error is that of the mean of the blocks' own
    correlations, which are independent and vary as the architectures do (random groups: Wolter
    2007, "Introduction to Variance Estimation", chapter 2), and the limits are Student's t. NaN
    where a block has no correlation.

    Raises:
      ValueError: lengths that differ, or are no number of pairs.
    """
    sides = np.stack([x, y]).reshape(2, blocks, -1)
    num_obs_y(sides[0, 0])
    if not (_varies(x) and _varies(y)):
        return Interval(math.nan, math.nan, math.nan)
    estimate = float(_standard_ranks(x) @ _standard_ranks(y))
    ranks = rankdata(sides, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=-1).prod(axis=0))
    own = np.divide(
        ranks.prod(axis=0).sum(axis=-1), spread, out=np.full(blocks, np.nan), where=spread > 0
    )
    half = _mean_and_error(own)[1] * _t_quantile((1 + level) / 2, own)
    return Interval(estimate, estimate - half, estimate + half)


def variance_components(
    values: np.ndarray, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> VarianceComponents:
    """Components of variance of values [groups, members] under one-way random effects, from the
    mean squares; a negative component is set to zero.

    The limits are percentiles over groups that are resampled whole. NaN where a value is not
    finite, or nothing varies.

    Raises:
      ValueError: fewer than two groups or two members.
    """
    values = np.asarray(values, float)
    if min(values.shape) < 2:
        raise ValueError(
            f"variance components need two groups of two members at least, got {values.shape}"
        )
    means, variances = values.mean(axis=1), values.var(axis=1, ddof=1)

    def components(rows):
        """[...] variances within and between the groups `rows` [..., groups]."""
        within = variances[rows].mean(axis=-1)
        between = means[rows].var(axis=-1, ddof=1) - within / values.shape[1]
        return within, np.maximum(between, 0.0)

    def share(within, between):
        with np.errstate(invalid="ignore"):
            return within / (within + between)

    groups = len(values)
    within, between = components(np.arange(groups))
    drawn = share(
        *components(np.random.default_rng(seed).integers(groups, size=(resamples, groups)))
    )
    estimate = float(share(within, between))
    # A resample of a single group whose members are alike has no share.
    low, high = (
        (math.nan,) * 2
        if math.isnan(estimate)
        else np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    )
    interval = Interval(estimate, float(low), float(high))
    return VarianceComponents(math.sqrt(within), math.sqrt(between), interval)


def _seeds(values):
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def _mean_and_error(values, rounding=None):
    """Mean over seeds [S] and its standard error: zero if they differ by rounding alone, NaN for a
    single seed.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    if np.ptp(values) <= (ROUNDING * np.abs(values).max() if rounding is None else rounding):
        return mean, 0.0
    return mean, float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _t_quantile(probability, values):
    return float(t.ppf(probability, len(values) - 1))


def _varies(values):
    return np.isfinite(values).all() and not is_constant(values)


def _standard_ranks(values):
    """Mid-ranks less their mean, scaled to norm one."""
    centred = rankdata(values) - (len(values) + 1) / 2
    return centred / np.linalg.norm(centred)


def _permuted_correlations(x, others, blocks, permutations, seed):
    """[M, 1 + permutations] Spearman's correlation of x with each of M others: first as they are,
    then with x permuted within blocks.
    """
    sides = np.stack([_standard_ranks(side) for side in np.stack([x, *others])])
    ranks = np.stack([squareform(block) for block in sides[0].reshape(blocks, -1)])
    rng, found = np.random.default_rng(seed), np.zeros((1 + permutations, len(others)))
    identity = np.tile(np.arange(ranks.shape[1], dtype=np.uint32), (blocks, 1))
    with track("Mantel's test", total=permutations, unit="permutation") as advance:
        _correlate(ranks, identity, sides[1:], found[0])
        for done in range(1, 1 + permutations):
            _correlate(ranks, rng.permuted(identity, axis=1), sides[1:], found[done])
            if done % _TOLD == 0:
                advance(_TOLD)
    return found.T


@compiled(fastmath=True)  # sums in any order, in vector registers: all numbers are finite
def _correlate(ranks, orders, others, found):
    """Adds sums over pairs to found [M]: ranks [blocks, size, size], with rows and columns of each
    block in the order given by orders [blocks, size], times each of others [M, P].

    Rows are summed first: errors of rounding stay far below ROUNDING.
    """
    start = 0
    for block in range(len(orders)):
        order = orders[block]
        for i in range(len(order) - 1):
            row, after = ranks[block, order[i]], order[i + 1 :]
            for one in range(len(found)):
                other, of_row = others[one, start : start + len(after)], 0.0
                for j in range(len(after)):
                    of_row += row[after[j]] * other[j]
                found[one] += of_row
            start += len(after)


def _two_sided(correlations):
    """The first correlation, and the share of all correlations at least as far from zero."""
    sizes = np.abs(correlations)
    return Mantel(float(correlations[0]), float(np.mean(sizes >= sizes[0] - ROUNDING)))
