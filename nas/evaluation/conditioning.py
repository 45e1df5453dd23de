"""How much a policy uses its past (Adam & Lorraine 2019; Q1): how far p(a_t | a_<t) is from a
distribution that ignores a_<t.

A policy comes in as its conditional distributions of given sequences (`Trace.log_probs`) or as a
function that yields them. Everything is in nats. Conditioning must be read beside the entropy: it
is zero for a policy that never looks back, and also for one that always decides the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import entr, rel_entr

from nas.errors import UserError


class Conditioning(NamedTuple):
    """How much a policy conditions on its past, by position."""

    divergence: np.ndarray  # [T] mean KL(p(a_t | a_<t) || p_t)
    entropy: np.ndarray  # [T] mean entropy of p(a_t | a_<t)
    marginal_entropy: np.ndarray  # [T] entropy of p_t: the sum of the two

    @property
    def total(self) -> float:
        """The sum over positions; for a policy's own samples, its total correlation."""
        return float(self.divergence.sum())

    @property
    def fraction(self) -> float:
        """`total` as a fraction of the sum of marginal entropies, 0..1; NaN for a policy that has
        none.
        """
        possible = float(self.marginal_entropy.sum())
        return self.total / possible if possible > 0 else math.nan


class Agreement(NamedTuple):
    """Decisions that two architectures have in common, and whether those of one group have more."""

    within: float  # mean number, over pairs of one group
    between: float  # mean number, over pairs of two groups
    p: float  # one-sided, under permutations of the groups


def conditioning(log_probs: np.ndarray) -> Conditioning:
    """KL(p(a_t | a_<t) || p_t) by position, with p_t the mean of p(a_t | a_<t) over the n
    sequences.

    For sequences drawn from the policy itself, p_t is its marginal and the divergence is the mutual
    information of a_t and a_<t; their sum is the total correlation, sum_t H(a_t) - H(a_1..a_T). For
    sequences that several policies share (a uniform sample), p_t is the policy averaged over them,
    and the divergence compares how policies use the same prefixes.

    The entropy of a mean over n sequences is too small, by sum_k Var(p(k | a_<t)) / (2 n p_t(k)) to
    first order; the estimate of that is added. It is zero for a policy that ignores its past, about
    divergence / n for one that hardly uses it, and (choices seen - 1) / (2 (n - 1)) for one that is
    certain of every decision (Miller 1955). What is left is of order 1 / n^2.

    Args:
      log_probs: [n, T, K] log p(. | a_<t); very negative or -inf for choices that do not exist.

    Raises:
      ValueError: fewer than two sequences.
    """
    n = len(log_probs)
    if n < 2:
        raise ValueError(f"conditioning compares sequences: at least two are needed, got {n}")
    probabilities = np.exp(np.asarray(log_probs, np.float64))
    marginal = probabilities.mean(axis=0)
    variance = probabilities.var(axis=0, ddof=1)
    missing = np.divide(
        variance, 2 * n * marginal, out=np.zeros_like(marginal), where=marginal > 0
    ).sum(axis=-1)
    marginal_entropy = entr(marginal).sum(axis=-1) + missing
    entropy = entr(probabilities).sum(axis=-1).mean(axis=0)
    return Conditioning(marginal_entropy - entropy, entropy, marginal_entropy)


def total_correlation(joint: np.ndarray) -> float:
    """sum_t H(a_t) - H(a_1..a_T) in nats, exact, from the probabilities of all sequences of an
    enumerable space.

    Args:
      joint: [c_1, ..., c_T] float, one axis per decision.
    """
    axes = range(joint.ndim)
    marginals = (joint.sum(axis=tuple(other for other in axes if other != t)) for t in axes)
    return float(sum(entr(marginal).sum() for marginal in marginals) - entr(joint).sum())


def gibbs_curve(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropies [b], rising, and total correlations [b], in nats, of the Gibbs policies p ~
    exp(score / beta) of an enumerable space.

    Among all policies with a given entropy, the Gibbs policy has the highest expected score: its
    total correlation is what a policy of that entropy has reason to have.

    Args:
      scores: [c_1, ..., c_T] float, higher is better, one axis per decision; not all alike.
    """
    scores = np.asarray(scores, np.float64) - np.max(scores)
    found = []
    for beta in -scores.min() * np.logspace(-5, 3, 250):
        joint = np.exp(scores / beta)
        joint /= joint.sum()
        found.append((entr(joint).sum(), total_correlation(joint)))
    return tuple(np.transpose(found))


def influence(
    log_probs: Callable[[np.ndarray], np.ndarray], decisions: np.ndarray, num_choices: Sequence[int]
) -> np.ndarray:
    """[T, T] nats: how much the policy's prediction of decision t (column) changes with decision s
    (row) alone.

    Entry (s, t) is the mean over sequences of KL(p(a_t | a_<t) || q), q being the mean of p(a_t |
    a_<t) over all choices of a_s with the rest of a_<t held fixed. It is at most log(choices of s),
    and zero for t <= s. For uniformly drawn sequences it is the conditional mutual information of
    a_t and a_s given the other decisions before t. It measures how the policy reacts, even to
    decisions that it would hardly take: a policy that has collapsed may have influence and no total
    correlation.

    Args:
      log_probs: decisions [n, T] int32 -> [n, T, K] log p(. | a_<t); called once for every choice
        of every position.
      decisions: [n, T] int32.
      num_choices: choices of each decision, length T.
    """
    decisions = np.asarray(decisions, np.int32)
    n, length = decisions.shape
    found = np.zeros((length, length))
    for s, choices in enumerate(num_choices[:-1]):
        altered = np.repeat(decisions[None], choices, axis=0)
        altered[:, :, s] = np.arange(choices)[:, None]
        probabilities = np.exp(
            [np.asarray(log_probs(every), np.float64)[:, s + 1 :] for every in altered]
        )
        taken = probabilities[decisions[:, s], np.arange(n)]
        found[s, s + 1 :] = rel_entr(taken, probabilities.mean(axis=0)).sum(axis=-1).mean(axis=0)
    return found


def by_lag(influences: np.ndarray, num_choices: Sequence[int]) -> np.ndarray:
    """[T - 1] mean of an `influence` matrix [T, T] at lags 1..T-1, over pairs of positions that
    have a choice; NaN where there are none.
    """
    free = np.asarray(num_choices) > 1
    pairs = (np.diagonal(influences, lag)[free[:-lag] & free[lag:]] for lag in range(1, len(free)))
    return np.array([values.mean() if len(values) else math.nan for values in pairs])


def groups_test(
    decisions: np.ndarray,
    groups: np.ndarray,
    start: int,
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> Agreement:
    """Whether architectures sampled from the same state of a policy have more in common than those
    from different states.

    Compares decisions from position `start` on: those before it led to the state, and are equal
    within a group by construction. If the policy does not look back, architectures are exchangeable
    between groups, and p = (1 + permutations of the groups with at least as many common decisions
    within) / (1 + permutations) is exact.

    Args:
      decisions: [n, T] int32.
      groups: [n] label of the state that each was sampled from.
      start: number of decisions that lead to the state.

    Raises:
      UserError: fewer than two groups, no group of two, or nothing left to compare.
    """
    suffixes = np.asarray(decisions)[:, start:]
    n, length = suffixes.shape
    labels, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    if len(sizes) < 2 or sizes.max() < 2 or length == 0:
        raise UserError(
            "groups of architectures: at least two are needed, one of them of two or more, and a "
            "decision to compare; got "
            f"{len(sizes)} of at most {sizes.max()}, and {length} decisions from position {start} "
            "on"
        )
    choices = suffixes.max() + 1
    cells = np.arange(length) * choices + suffixes

    def common(labels):
        """Number of common decisions over all pairs within groups, from how often each group took
        each choice.
        """
        counts = np.bincount((labels[:, None] * length * choices + cells).ravel())
        return int(counts @ counts - suffixes.size) // 2

    rng = np.random.default_rng(seed)
    observed, everywhere = common(labels), common(np.zeros_like(labels))
    as_many = sum(common(rng.permutation(labels)) >= observed for _ in range(permutations))
    pairs_within = int(sizes @ (sizes - 1)) // 2
    pairs_between = n * (n - 1) // 2 - pairs_within
    return Agreement(
        observed / pairs_within,
        (everywhere - observed) / pairs_between,
        (1 + as_many) / (1 + permutations),
    )
