"""Ranks candidates before they are scored, by rewards that are predicted from earlier ones.

  none       candidates are taken as they come
  value      a linear head on the policy's state, trained in the same step as the policy
  state      ridge regression on the policy's states
  untrained  ridge regression on the states that the policy had before its first update
  one_hot    ridge regression on the decisions, one-hot
  pairs      the same, on all pairs of decisions too

The last three know nothing of what the policy has learned: they are controls. The predicted number
is the normal score of a reward's rank.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nas import archive as archives
from nas.archive import Archive
from nas.spaces import SearchSpace
from nas.types import Array

KINDS = ("none", "value", "state", "untrained", "one_hot", "pairs")
WITH_STATE = ("value", "state", "untrained")
_PENALTY = 0.15  # factor of the squared weights, where rows of features have mean squared norm 1
_STEPS = 30  # steps of conjugate gradients


def normal_scores(archive: Archive) -> Array:
    """[C] normal score of each reward in the archive: the normal quantile of its rank; 0 in an
    empty row.
    """
    held = archives.filled(archive)
    below = archive.rewards[None] < archive.rewards[:, None]
    equal = archive.rewards[None] == archive.rewards[:, None]
    ranks = jnp.where(below, 1.0, jnp.where(equal, 0.5, 0.0))
    share = jnp.sum(jnp.where(held[None], ranks, 0.0), axis=1) / _count(held)
    scores = jax.scipy.special.ndtri(jnp.clip(share, 1e-3, 1 - 1e-3))
    return jnp.where(held, scores, 0.0)


def ridge(archive: Archive, features: Callable[[Array], Array], candidates: Array) -> Array:
    """[M] predicted normal scores of candidates [M, T], by ridge regression with an intercept on
    `features` ([n, T] -> [n, F]) of the archive.

    Solved by conjugate gradients: a batched `solve` hangs where seeds are spread over devices.
    """
    held = archives.filled(archive)
    count, rows = _count(held), held.astype(jnp.float32)
    known, unknown = features(archive.decisions), features(candidates)
    mean = rows @ known / count
    known, unknown = (known - mean[None]) * rows[:, None], unknown - mean[None]
    scale = jnp.sqrt(jnp.sum(known**2) / count + 1e-12)
    known, unknown = known / scale, unknown / scale
    targets = normal_scores(archive)
    level = jnp.sum(targets) / count
    weights, _ = jax.scipy.sparse.linalg.cg(
        lambda w: known.T @ (known @ w) + _PENALTY * w,
        known.T @ ((targets - level) * rows),
        maxiter=_STEPS,
    )
    return unknown @ weights + level


def one_hot(space: SearchSpace, decisions: Array) -> Array:
    """[n, T K] decisions [n, T], one-hot."""
    return jax.nn.one_hot(decisions, space.max_choices).reshape(len(decisions), -1)


def pairs(space: SearchSpace, decisions: Array) -> Array:
    """[n, T K + T (T - 1) / 2 K^2]: decisions one-hot, and all pairs of them."""
    first, second = np.triu_indices(space.num_decisions, 1)
    joint = decisions[:, first] * space.max_choices + decisions[:, second]
    both = jax.nn.one_hot(joint, space.max_choices**2).reshape(len(decisions), -1)
    return jnp.concatenate([one_hot(space, decisions), both], axis=1)


def _count(held):
    """[] float32: number of filled rows, at least 1."""
    return jnp.maximum(jnp.sum(held), 1).astype(jnp.float32)
