"""N-gram yardsticks against numbers worked out by hand, an independent plain implementation and the
real text.
"""

import collections
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data.ngrams import kneser_ney_bigram, kneser_ney_bigram_perplexity, unigram_perplexity
from nas.data.text import load_corpus
from nas.errors import UserError


def array(*tokens):
    return np.array(tokens, np.int32)


def test_unigram_by_hand():
    # counts 2, 1, 0 plus one: 3/6, 2/6, 1/6
    assert unigram_perplexity(array(0, 1, 0), array(0, 1, 2, 2), 3) == pytest.approx(
        (2 * 3 * 6 * 6) ** 0.25
    )


def test_kneser_ney_by_hand():
    # Bigrams of 0 1 0 1 0 2 2: 01 twice, 10 twice, 02 once, 22 once. n_1 = n_2 = 2, D = 2/6 = 1/3.
    # Types seen before: 0 after {1}, 1 after {0}, 2 after {0, 2}; n_1 = 2, n_2 = 1, D' = 2/4; four
    # bigram types. p'(0) = p'(1) = (1 - 1/2)/4 + (3/2)/3/4 = 1/4, p'(2) = (2 - 1/2)/4 + 1/8 = 1/2;
    # word 3 does not exist here.
    probability = kneser_ney_bigram(array(0, 1, 0, 1, 0, 2, 2), 3)
    table = probability(*np.meshgrid(np.arange(3), np.arange(3), indexing="ij"))
    lower = np.array([1 / 4, 1 / 4, 1 / 2])
    expected = [
        np.array([0, 5 / 3, 2 / 3]) / 3
        + (1 / 3 * 2 / 3) * lower,  # context 0: three times, two types
        np.array([5 / 3, 0, 0]) / 2 + (1 / 3 * 1 / 2) * lower,  # context 1: twice, one type
        np.array([0, 0, 2 / 3]) / 1 + (1 / 3 * 1 / 1) * lower,  # context 2: once, one type
    ]
    np.testing.assert_allclose(table, expected, rtol=1e-12)
    perplexity = kneser_ney_bigram_perplexity(array(0, 1, 0, 1, 0, 2, 2), array(1, 0, 2), 3)
    assert perplexity == pytest.approx((expected[1][0] * expected[0][2]) ** -0.5)


def test_an_unseen_context_and_an_unseen_word():
    # 01 and 12 once each: no count is 2, so D = D' = 1, and everything is backed off to 1 / 4.
    probability = kneser_ney_bigram(array(0, 1, 2), 4)
    np.testing.assert_allclose(probability(array(2, 3, 0), array(0, 1, 3)), 0.25)


def plain_kneser_ney(train, size):
    """The same model from dictionaries."""

    def discount(counts):
        ones, twos = (sum(1 for c in counts if c == k) for k in (1, 2))
        return ones / (ones + 2 * twos) if ones else 0.5

    pairs = collections.Counter(zip(train[:-1], train[1:], strict=True))
    before = collections.Counter(w for _, w in pairs)
    d, d_lower = discount(pairs.values()), discount(before.values())

    def lower(w):
        return (max(before[w] - d_lower, 0) + d_lower * len(before) / size) / len(pairs)

    def probability(v, w):
        total = sum(c for (a, _), c in pairs.items() if a == v)
        types = sum(1 for a, _ in pairs if a == v)
        return max(pairs[v, w] - d, 0) / total + d * types / total * lower(w) if total else lower(w)

    return probability


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=40))
def test_probabilities_sum_to_one_and_equal_the_plain_model(train):
    size = 7  # type 6 never occurs
    probability, plain = kneser_ney_bigram(array(*train), size), plain_kneser_ney(train, size)
    contexts, words = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    table = probability(contexts, words)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-12)
    assert table.min() > 0
    np.testing.assert_allclose(
        table, [[plain(v, w) for w in range(size)] for v in range(size)], rtol=1e-10
    )


def test_yardsticks_of_kjv(tmp_path):
    corpus, calls = load_corpus("kjv", 4000, data_dir=str(tmp_path)), collections.Counter()
    sys.setprofile(lambda frame, event, arg: calls.update([event]))
    try:
        unigram = unigram_perplexity(corpus.train, corpus.valid, 4000)
        bigram = kneser_ney_bigram_perplexity(corpus.train, corpus.valid, 4000)
    finally:
        sys.setprofile(None)
    assert (
        0 < calls["call"] + calls["c_call"] < 10_000
    )  # of whole arrays: the 858,278 tokens are not read one by one
    assert unigram == pytest.approx(243.26, abs=0.01)
    assert bigram == pytest.approx(56.13, abs=0.01)
    probability = kneser_ney_bigram(corpus.train, 4000)
    for context in (0, 1, 3, 3999):
        assert math.isclose(
            probability(np.full(4000, context), np.arange(4000)).sum(), 1, rel_tol=1e-9
        )


@pytest.mark.parametrize("perplexity", [unigram_perplexity, kneser_ney_bigram_perplexity])
def test_bad_tokens(perplexity):
    good = array(0, 1, 2)
    for train, held_out, message in [
        (array(), good, "needs at least"),
        (good, array(), "needs at least"),
        (good, array(0, 3), r"0\.\.3 are not in a vocabulary of 3"),
        (array(-1, 0), good, r"-1\.\.0 are not in a vocabulary of 3"),
    ]:
        with pytest.raises(UserError, match=message):
            perplexity(train, held_out, 3)
