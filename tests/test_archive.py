"""The archive: what it holds, by hand and against plain Python."""

import collections
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import archive as archives
from nas.errors import UserError

CAPACITY = 4
empty = functools.partial(archives.empty, CAPACITY, 2)
write = jax.jit(functools.partial(archives.write, field="archive"))
look_up = jax.jit(archives.look_up)
first_new = jax.jit(archives.first_new, static_argnums=2)
best = jax.jit(archives.best, static_argnums=1)


def rows(*numbers):
    """Decision vectors of two decisions, told apart by a number."""
    return np.array([[k // 3, k % 3] for k in numbers], np.int32).reshape(-1, 2)


def of(numbers, rewards):
    """An archive of these, written one by one."""
    archive = empty()
    for number, reward in zip(numbers, rewards, strict=True):
        archive = write(archive, rows(number), np.array([reward], np.float32))
    return archive


def numbers(decisions):
    return (np.asarray(decisions) @ [3, 1]).tolist()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(-3, 3)), max_size=9))
def test_it_holds_the_last_that_were_scored(scored):
    """The best reward of an architecture counts that was scored more than once."""
    archive, last = (
        of(*zip(*scored, strict=True)) if scored else empty(),
        collections.deque(scored, maxlen=CAPACITY),
    )
    held, rewards = look_up(archive, rows(*range(9)))
    for number in range(9):
        known = [reward for other, reward in last if other == number]
        assert bool(held[number]) == bool(known)
        assert float(rewards[number]) == max(known, default=-np.inf)
    _, count = best(archive, 3)
    found = np.asarray(best(archive, 3)[0])[: int(count)]
    order = sorted((reward for _, reward in last), reverse=True)[:3]
    assert [max(r for k, r in last if k == number) for number in numbers(found)] >= order
    assert int(count) == min(3, len(last))


def test_the_best_come_first_and_what_is_not_finite_last():
    archive = of([5, 6, 7, 8], [np.nan, 1.0, 3.0, np.inf])
    decisions, count = best(archive, 4)
    assert numbers(decisions)[:2] == [7, 6] and int(count) == 4
    assert look_up(archive, rows(5, 8))[1].tolist() == [-np.inf] * 2
    assert look_up(archive, rows(5, 8))[0].tolist() == [True] * 2


def test_the_first_that_are_new_and_no_two_alike():
    archive = of([1, 2], [0, 0])
    assert numbers(first_new(archive, rows(2, 4, 4, 0, 1, 3), 3)) == [4, 0, 3]  # 0 fills empty rows
    assert numbers(first_new(archive, rows(2, 4, 4, 1), 3)) == [4, 2, 4]  # there is one
    assert numbers(first_new(empty(), rows(0, 0, 5), 2)) == [0, 5]


def test_more_at_once_than_it_holds():
    wanted = "^config field strategy.archive: must be at least the 5 architectures scored at once"
    with pytest.raises(UserError, match=wanted):
        write(empty(), rows(*range(5)), np.zeros(5, np.float32))
