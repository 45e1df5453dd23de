"""The ring buffer of decision vectors and the queue of old parameters, by hand and against plain
Python.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from nas import memory as memories

pytestmark = pytest.mark.device

CAPACITY = 4

# Compiled: what one operation after the other would cost is compiling each.
empty = functools.partial(jax.jit(memories.empty, static_argnums=(0, 1)), CAPACITY, 2)
write = jax.jit(memories.write)
sample = jax.jit(memories.sample, static_argnums=2)
start_history = jax.jit(memories.start_history, static_argnums=1)
push, oldest = jax.jit(memories.push), jax.jit(memories.oldest)


def rows(*numbers):
    """Decision vectors of two decisions, told apart by a number."""
    return np.array([[k, -k] for k in numbers], np.int32)


def held(memory):
    """(number of every row, size, cursor)."""
    decisions = np.asarray(memory.decisions)
    np.testing.assert_array_equal(decisions[:, 0], -decisions[:, 1])
    return decisions[:, 0].tolist(), int(memory.size), int(memory.cursor)


def test_rows_are_written_over_the_oldest():
    memory = empty()
    assert held(memory) == ([0, 0, 0, 0], 0, 0)
    memory = write(memory, rows(1, 2, 3))
    assert held(memory) == ([1, 2, 3, 0], 3, 3)
    memory = write(memory, rows(4, 5, 6))
    assert held(memory) == ([5, 6, 3, 4], 4, 2)
    memory = write(memory, rows(7, 8, 9, 10))  # as many as it holds: all are replaced
    assert held(memory) == ([9, 10, 7, 8], 4, 2)


def test_writing_keeps_types_and_leaves_the_memory_it_was_given():
    memory = empty()
    written = write(memory, rows(1, 2))
    assert held(memory) == ([0, 0, 0, 0], 0, 0)
    for leaf in jax.tree.leaves(written):
        assert leaf.dtype == jnp.int32 and not leaf.weak_type
    assert jax.tree.structure(written) == jax.tree.structure(memory)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, CAPACITY), max_size=6))
def test_holds_the_last_rows_written(counts):
    memory, last = empty(), collections.deque(maxlen=CAPACITY)
    for first, count in zip(np.cumsum([1, *counts]), counts, strict=False):
        numbers = range(first, first + count)
        memory = write(memory, rows(*numbers))
        last.extend(numbers)
    numbers, size, cursor = held(memory)
    assert size == len(last) and cursor == sum(counts) % CAPACITY
    assert sorted(numbers[:size]) == sorted(last)
    if size == CAPACITY:  # the next row to be written over is the oldest
        assert numbers[cursor] == last[0]


def test_jit_equals_eager():
    memory = memories.write(memories.empty(CAPACITY, 2), rows(1, 2, 3))
    assert held(memory) == held(write(empty(), rows(1, 2, 3)))
    key = jax.random.key(0)
    np.testing.assert_array_equal(
        sample(memory, key, 10), memories.sample(memory, jax.random.clone(key), 10)
    )


@pytest.mark.parametrize("filled", [1, 3, 4])
def test_samples_come_from_the_filled_rows_equally_often(filled):
    memory, n = write(empty(), rows(*range(1, filled + 1))), 6000
    found = np.asarray(sample(memory, jax.random.key(filled), n))
    assert found.shape == (n, 2) and found.dtype == np.int32
    numbers, counts = np.unique(found[:, 0], return_counts=True)
    assert numbers.tolist() == list(range(1, filled + 1))  # the empty rows hold 0
    np.testing.assert_array_equal(found[:, 1], -found[:, 0])
    statistic = np.sum((counts - n / filled) ** 2) / (n / filled)
    assert filled == 1 or statistic < chi2.ppf(1 - 1e-5, filled - 1)


def test_rows_are_drawn_one_by_one():
    # Independent draws from four rows: two in a row are the same one time in four.
    memory = write(empty(), rows(1, 2, 3, 4))
    found = np.asarray(sample(memory, jax.random.key(9), 6000))[:, 0]
    assert np.mean(found[1:] == found[:-1]) == pytest.approx(1 / 4, abs=6 * np.sqrt(3 / 16 / 6000))


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_the_queue_gives_back_what_was_pushed_lag_pushes_ago(lag):
    def params(k):
        return {"a": np.full(2, k, np.float32), "b": {"c": np.int32(k)}}

    def value(tree):
        assert tree["a"].tolist() == [tree["b"]["c"].item()] * 2
        return int(tree["b"]["c"])

    history = start_history(params(0), lag)
    assert value(oldest(history)) == 0
    for k in range(1, 7):
        history = push(history, params(k))
        # The last that was pushed is one push ago with a lag of 1; before enough were pushed, what
        # the queue started with.
        assert value(oldest(history)) == max(0, k - lag + 1)
        assert history["a"].shape == (lag, 2)
        assert history["b"]["c"].tolist() == [max(0, i) for i in range(k - lag + 1, k + 1)]
