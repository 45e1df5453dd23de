"""What is measured of searches and policies on a table: regret, conditioning, what embeddings say.
Arrays in, numbers out.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, squareform
from scipy.special import entr, logsumexp

from experiments import kept
from nas.data.table import ScoreTable, Unit
from nas.evaluation import conditioning, correlations, overlap
from nas.evaluation.edit_distance import pairwise_edit_distance
from nas.spaces import SearchSpace

FOLDS = 5
RIDGES = np.logspace(-4, 3, 15)  # times the number of architectures
NEIGHBOURS = (1, 2, 4, 8, 16, 32)
OVERLAP, EDIT, ACCURACY = "common operations", "edit distance", "|difference| of accuracy"
TOP = 0.01  # the share of architectures that counts as the top


class Judge(NamedTuple):
    """A data set, as searches see it and as they are judged."""

    seen: np.ndarray  # [n] scores, validation
    test: np.ndarray  # [n] scores, mean of the class on the test split
    unit: Unit  # of scores

    @classmethod
    def of(cls, table: ScoreTable, data_set: str) -> "Judge":
        seen, test = table.scores[data_set, "val"], table.class_mean(data_set, "test")
        return cls(seen, test, table.unit)

    def incumbents(self, queries: np.ndarray) -> np.ndarray:
        """[S, Q]: of the first q queries [S, Q] the one with the best validation score, the
        earliest of equals.
        """
        seen = self.seen[queries]
        before = np.maximum.accumulate(seen, axis=1)[:, :-1]
        better = np.concatenate([np.ones((len(seen), 1), bool), seen[:, 1:] > before], axis=1)
        position = np.maximum.accumulate(np.where(better, np.arange(seen.shape[1]), 0), axis=1)
        return np.take_along_axis(queries, position, axis=1)

    def regret(self, queries: np.ndarray) -> np.ndarray:
        """[S, Q] by how much, in `unit`, the incumbent's class is worse on the test split than the
        best class.
        """
        return self.test.max() - self.test[self.incumbents(queries)]

    def in_top(self, queries: np.ndarray) -> np.ndarray:
        """bool[S, Q]: whether the incumbent's class is as good on the test split as the top 1 % of
        architectures.
        """
        least = np.sort(self.test)[::-1][round(TOP * len(self.test)) - 1]
        return self.test[self.incumbents(queries)] >= least


def digest(table: ScoreTable) -> str:
    """SHA-256 of all scores, which tells tables apart."""
    return kept.digest(*(table.scores[column] for column in sorted(table.scores)))


def distinct(queries: np.ndarray) -> np.ndarray:
    """[S] how many different architectures the queries [S, Q] of each seed are."""
    return np.array([len(np.unique(row)) for row in queries])


def entropy(log_probs: np.ndarray) -> float:
    """Nats, of the log probabilities [n] of all architectures."""
    return float(entr(np.exp(np.asarray(log_probs, np.float64))).sum())


def policy_total_correlation(space: SearchSpace, log_probs: np.ndarray) -> float:
    """Nats, of the log probabilities [n] of all architectures, normalised first."""
    log_probs = np.asarray(log_probs, np.float64)
    return conditioning.total_correlation(
        np.exp(log_probs - logsumexp(log_probs)).reshape(space.num_choices)
    )


def gibbs_curve(space: SearchSpace, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`conditioning.gibbs_curve` of scores [n]."""
    return conditioning.gibbs_curve(np.reshape(scores, space.num_choices))


def gibbs_total_correlation(
    curve: tuple[np.ndarray, np.ndarray], entropies: np.ndarray
) -> np.ndarray:
    """[...] total correlation of a `gibbs_curve` at the same entropies; NaN below its lowest."""
    return np.interp(entropies, *curve, left=np.nan)


def uniform_sample(table: ScoreTable, n: int) -> np.ndarray:
    """int32[n]: architectures drawn uniformly, those left out whose class was drawn before."""
    order = np.random.default_rng(201).permutation(len(table.classes))
    first = np.sort(np.unique(table.classes[order], return_index=True)[1])
    return order[first[:n]].astype(np.int32)


def pair_measures(space: SearchSpace, rows: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """name -> [P]: common decisions of every kind, exact edit distance of the graphs and
    |difference| of scores, of all pairs.

    Args:
      rows: [k] architectures.
      test: [n] scores.
    """
    decisions = space.every()[rows]
    return {
        OVERLAP: overlap.common_decisions(space, decisions, *dict.fromkeys(space.kinds)),
        EDIT: squareform(pairwise_edit_distance(space, decisions), checks=False),
        ACCURACY: overlap.feature_difference(test[rows]),
    }


def pair_correlations(embedding: np.ndarray, measured: dict[str, np.ndarray]) -> dict[str, float]:
    """name -> Spearman's correlation over all pairs of the distance of embeddings [n, H] with each
    of `pair_measures`.
    """
    distance = correlations.distances(embedding)
    return {name: correlations.spearman(distance, values) for name, values in measured.items()}


def prediction(embedding: np.ndarray, accuracy: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation of accuracies [n] with their predictions from embeddings [n, H]:
    ridge, nearest neighbours.

    Five-fold cross-validation; the penalty, and the number of neighbours, are those with the least
    squared error when each architecture of the other four folds is left out in turn.
    """
    n = len(accuracy)
    folds = np.random.default_rng(0).permutation(n) % FOLDS
    scaled = embedding / np.sqrt(np.mean(np.var(embedding, axis=0)) + 1e-30)
    predicted = np.zeros((2, n))
    for fold in range(FOLDS):
        known, held_out = folds != fold, folds == fold
        arguments = scaled[known], accuracy[known], scaled[held_out]
        predicted[:, held_out] = _ridge(*arguments), _nearest(*arguments)
    return tuple(correlations.spearman(values, accuracy) for values in predicted)


def _ridge(known, accuracy, unknown) -> np.ndarray:
    mean, level = known.mean(axis=0), accuracy.mean()
    left, singular, right = np.linalg.svd(known - mean, full_matrices=False)
    projected = left.T @ (accuracy - level)
    errors = []
    for ridge in RIDGES * len(known):
        shrunk = singular**2 / (singular**2 + ridge)
        leverage = left**2 @ shrunk + 1 / len(known)
        errors.append(
            np.mean(((accuracy - level - left @ (shrunk * projected)) / (1 - leverage)) ** 2)
        )
    ridge = RIDGES[np.argmin(errors)] * len(known)
    return level + (unknown - mean) @ (right.T @ (singular / (singular**2 + ridge) * projected))


def _nearest(known, accuracy, unknown) -> np.ndarray:
    within = cdist(known, known)
    np.fill_diagonal(within, np.inf)
    errors = [np.mean((_neighbour_means(within, accuracy, k) - accuracy) ** 2) for k in NEIGHBOURS]
    return _neighbour_means(cdist(unknown, known), accuracy, NEIGHBOURS[np.argmin(errors)])


def _neighbour_means(distances, accuracy, k) -> np.ndarray:
    return accuracy[np.argsort(distances, axis=1, kind="stable")[:, :k]].mean(axis=1)
