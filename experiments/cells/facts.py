"""What a table of cells itself says. Arrays in, numbers out."""

from typing import NamedTuple

import numpy as np

from nas.data.cell_table import CellTable
from nas.evaluation import conditioning

ENTROPIES = (1, 2, 3, 4, 5, 6)  # nats, at which the conditioning that is warranted is told


class Landscape(NamedTuple):
    """A table's mean over seeds of one measure, for every architecture."""

    values: np.ndarray  # [n] bits a character, in the order of `space.every()`
    classes: np.ndarray  # [n] int; row of the table of the canonical cell


class Isomorphs(NamedTuple):
    """Whether relabelled copies of a cell differ by more than two trainings of one seed must."""

    between_copies: float  # standard deviation of a mean over seeds about that of cell and copy
    expected: float  # what that is if numbering changes nothing
    between_seeds: float  # standard deviation of a mean over seeds that other seeds would make
    p: float  # that numbering changes nothing, under permutations


def landscape_of(table: CellTable, measure: str) -> Landscape:
    """`Landscape` of one of MEASURES; copies are left out."""
    rows = table.rows()
    return Landscape(table.bits[measure].mean(axis=1)[rows], rows)


def warranted_conditioning(table: CellTable, values: np.ndarray) -> dict[float, float]:
    """Entropy -> total correlation of the best policy of that entropy, both in nats; of the
    ENTROPIES that policies of the space have.
    """
    entropies, correlations = conditioning.gibbs_curve(-np.reshape(values, table.space.num_choices))
    return {
        entropy: float(np.interp(entropy, entropies, correlations))
        for entropy in ENTROPIES
        if entropies[0] <= entropy <= entropies[-1]
    }


def isomorphs(pairs: np.ndarray, *, permutations: int = 9999, seed: int = 0) -> Isomorphs:
    """Of the values [P, 2, S] of cells and their copies with S seeds.

    If numbering a cell otherwise changes nothing, then cell and copy can be exchanged, for every
    seed by itself. They have its text and most first weights in common, so they differ by less than
    seeds do.

    Raises:
      ValueError: no pair, or fewer than two seeds.
    """
    pairs = np.asarray(pairs, np.float64)
    count, _, seeds = pairs.shape
    if count < 1 or seeds < 2:
        raise ValueError(f"a pair of two seeds at least is needed, got {pairs.shape}")
    within = (pairs - pairs.mean(axis=(0, 1))).var(axis=2, ddof=1).mean()
    apart = pairs[:, 0] - pairs[:, 1]

    def spread(apart):
        return np.mean(apart.mean(axis=-1) ** 2) / 2

    observed, rng = spread(apart), np.random.default_rng(seed)
    exchanged = (spread(apart * rng.choice((-1, 1), apart.shape)) for _ in range(permutations))
    as_far = sum(drawn >= observed * (1 - 1e-12) for drawn in exchanged)
    return Isomorphs(
        float(observed**0.5),
        float((np.mean(apart**2) / seeds / 2) ** 0.5),
        float((within / seeds) ** 0.5),
        (1 + as_far) / (1 + permutations),
    )
