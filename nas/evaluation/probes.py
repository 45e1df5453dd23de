"""Linear probes of a hidden state: which decisions can be read off it (Alain & Bengio 2016; Adam &
Lorraine 2019, Q1).
"""

from typing import NamedTuple

import numpy as np

from nas.evaluation.rounding import constant_columns

_PENALTIES = 10.0 ** np.arange(-9, 4)  # penalties per training example, for standardised features


class Probe(NamedTuple):
    """Held-out accuracy, by position; its standard error is sqrt(accuracy (1 - accuracy) / n)."""

    accuracy: np.ndarray  # [T] 0..1, accuracy of the probe
    majority: np.ndarray  # [T] 0..1, accuracy of the most frequent choice of the training folds


def probe_accuracy(
    embedding: np.ndarray, decisions: np.ndarray, *, folds: int = 5, seed: int = 0
) -> Probe:
    """How often a linear function of the embedding gives the decision, by position, under
    cross-validation.

    Ridge regression on one-hot decisions; the largest output is taken. Features are standardised
    and each position's penalty is chosen by leave-one-out error, on the training folds. From a
    state that says nothing about the decision, the probe falls back on the majority. The accuracy
    is a lower bound on what a linear classifier finds: of three choices that lie on one line it
    misses the middle one.

    Args:
      embedding: [n, H] float.
      decisions: [n, T] int32.
      folds: number of parts, of shuffled architectures, each of which is held out once.
    """
    embedding, decisions = np.asarray(embedding), np.asarray(decisions)
    one_hot = (decisions[:, :, None] == np.arange(decisions.max() + 1)).astype(float)
    correct, frequent = np.zeros((2, decisions.shape[1]))
    parts = np.array_split(np.random.default_rng(seed).permutation(len(decisions)), folds)
    for i, held_out in enumerate(parts):
        train = np.concatenate(parts[:i] + parts[i + 1 :])
        predicted = _predict(embedding[train], one_hot[train], embedding[held_out])
        correct += (predicted == decisions[held_out]).sum(axis=0)
        frequent += (one_hot[train].sum(axis=0).argmax(axis=-1) == decisions[held_out]).sum(axis=0)
    return Probe(correct / len(decisions), frequent / len(decisions))


def _predict(features, targets, held_out):
    """[m, T] choices for held-out features [m, H], learned from features [n, H] and targets [n, T,
    K].
    """
    n, length, choices = targets.shape
    constant = constant_columns(features)
    features, held_out = features.astype(np.float64), held_out.astype(np.float64)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    constant |= spread == 0  # squared deviations underflowed
    mean[constant], spread[constant] = 0, np.inf
    left, singular, right = np.linalg.svd((features - mean) / spread, full_matrices=False)
    held_out = (held_out - mean) / spread @ right.T
    average = targets.reshape(n, -1).mean(axis=0)
    centred = targets.reshape(n, -1) - average
    projected = left.T @ centred
    least, predicted = np.full(length, np.inf), np.zeros((len(held_out), length), int)
    for penalty in n * _PENALTIES[::-1]:
        kept = singular**2 / (singular**2 + penalty)
        leverage = 1 / n + left**2 @ kept
        residual = (centred - left @ (kept[:, None] * projected)) / (1 - leverage)[:, None]
        error = (residual**2).reshape(n, length, choices).sum(axis=(0, 2))
        outputs = average + held_out @ ((singular / (singular**2 + penalty))[:, None] * projected)
        predicted = np.where(
            error < least, outputs.reshape(-1, length, choices).argmax(axis=-1), predicted
        )
        least = np.minimum(error, least)
    return predicted
