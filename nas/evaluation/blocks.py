"""Pairs of architectures: all n(n - 1) / 2 of them or, if these are too many, those within disjoint
blocks.

Architectures are independent draws, and so disjoint blocks of them are independent too. All pairs
of every block are an incomplete U-statistic (Blom 1976, "Some properties of incomplete
U-statistics"): its mean is that of all pairs, and what it loses in variance, beside all pairs of
the same n architectures, falls as 1 / block size. One block is all pairs.

Vectors of pairs [P] have one block after another, each in the order of `pdist`.
"""

from collections.abc import Callable

import numpy as np


def pairs(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second member [P] of every pair within blocks of `size` of n architectures.

    Raises:
      ValueError: n is not a multiple of `size`.
    """
    _check(n, size)
    starts = np.arange(0, n, size)[:, None]
    first, second = np.triu_indices(size, 1)
    return (starts + first).ravel(), (starts + second).ravel()


def within(
    compare: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, size: int | None
) -> np.ndarray:
    """[P] what `compare` gives for the pairs of each block of rows [n, ...].

    Args:
      compare: rows [size, ...] -> [size (size - 1) / 2] in the order of `pdist`.
      size: architectures of a block; None: all.

    Raises:
      ValueError: n is not a multiple of `size`.
    """
    size = size or len(rows)
    _check(len(rows), size)
    starts = range(0, len(rows), size)
    return np.concatenate([compare(rows[start : start + size]) for start in starts])


def _check(n, size):
    if n % size:
        raise ValueError(f"{n} architectures cannot be divided into blocks of {size}")
