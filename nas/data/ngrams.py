"""Yardsticks for perplexities: what a model that reads no or one earlier token reaches.

A language model that does not beat the bigram says nothing about recurrence.
"""

from collections.abc import Callable

import numpy as np

from nas.errors import UserError


def unigram_perplexity(train: np.ndarray, held_out: np.ndarray, vocabulary_size: int) -> float:
    """Perplexity of `held_out` [m] under the add-one unigram of `train` [n]: p(w) = (c(w) + 1) / (n
    + V).

    Raises:
      UserError: an empty array, or a token outside 0..vocabulary_size-1.
    """
    _check(train, 1, vocabulary_size)
    _check(held_out, 1, vocabulary_size)
    counts = np.bincount(train, minlength=vocabulary_size) + 1.0
    return _perplexity((counts / counts.sum())[held_out])


def kneser_ney_bigram_perplexity(
    train: np.ndarray, held_out: np.ndarray, vocabulary_size: int
) -> float:
    """Perplexity of `held_out` [m], all but its first token, under `kneser_ney_bigram` of `train`
    [n].

    Raises:
      UserError: fewer than two tokens, or a token outside 0..vocabulary_size-1.
    """
    probability = kneser_ney_bigram(train, vocabulary_size)
    _check(held_out, 2, vocabulary_size)
    return _perplexity(probability(held_out[:-1], held_out[1:]))


def kneser_ney_bigram(
    train: np.ndarray, vocabulary_size: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Interpolated Kneser-Ney bigram of `train` [n] (Kneser and Ney 1995, Chen and Goodman 1999).

    p(w | v) = max(c(v w) - D, 0) / c(v) + D N(v .) / c(v) p'(w), where N(v .) counts the types seen
    after v, and p' is made the same way from the number N(. w) of types seen before w, backed off
    to 1 / V. An unseen context gives p'. Each of the two levels has its own D = n_1 / (n_1 + 2
    n_2), n_k being how many counts equal k; with n_1 = 0 it is one half, so that no probability is
    zero.

    Returns:
      A function of contexts and words, integer arrays of equal shapes, that returns p(word |
        context) in that shape. For every context the probabilities of all words sum to one.

    Raises:
      UserError: fewer than two tokens, or a token outside 0..vocabulary_size-1.
    """
    _check(train, 2, vocabulary_size)

    def encode(contexts, words):
        return np.asarray(contexts, np.int64) * vocabulary_size + words

    bigrams, counts = np.unique(encode(train[:-1], train[1:]), return_counts=True)
    discount = _discount(counts)
    before, after = np.divmod(bigrams, vocabulary_size)
    totals = np.bincount(train[:-1], minlength=vocabulary_size)
    types_after = np.bincount(before, minlength=vocabulary_size)
    backoff = np.where(totals > 0, discount * types_after / np.maximum(totals, 1), 1.0)
    seen = (counts - discount) / totals[before]

    types_before = np.bincount(after, minlength=vocabulary_size)
    lower_discount = _discount(types_before[types_before > 0])
    held_back = lower_discount * np.count_nonzero(types_before)
    lower = (np.maximum(types_before - lower_discount, 0.0) + held_back / vocabulary_size) / len(
        bigrams
    )

    def probability(contexts, words):
        keys = encode(contexts, words)
        found = np.minimum(np.searchsorted(bigrams, keys), len(bigrams) - 1)
        return np.where(bigrams[found] == keys, seen[found], 0.0) + backoff[contexts] * lower[words]

    return probability


def _discount(counts):
    ones, twos = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    return ones / (ones + 2 * twos) if ones else 0.5


def _perplexity(probabilities):
    return float(np.exp(-np.log(probabilities).mean()))


def _check(tokens, at_least, vocabulary_size):
    if len(tokens) < at_least:
        raise UserError(f"an n-gram perplexity needs at least {at_least} tokens, got {len(tokens)}")
    if tokens.min() < 0 or tokens.max() >= vocabulary_size:
        raise UserError(
            f"tokens {tokens.min()}..{tokens.max()} are not in a vocabulary of {vocabulary_size}"
        )
