"""Progress: whoever listens is told of every step of all work, in its order; nobody else is."""

import pytest

from nas import progress
from nas.progress import Status


def test_a_listener_is_told_of_beginning_steps_and_end():
    told = []
    with (
        progress.listening(told.append),
        progress.track("search", total=10, unit="step", done=4) as advance,
    ):
        advance(2, epoch="1/5")
        advance(entropy="33.9")
    number = told[0].number
    assert told == [
        Status(number, "search", "step", 4, 10, {}, True),
        Status(number, "search", "step", 6, 10, {"epoch": "1/5"}, True),
        Status(number, "search", "step", 6, 10, {"epoch": "1/5", "entropy": "33.9"}, True),
        Status(number, "search", "step", 6, 10, {"epoch": "1/5", "entropy": "33.9"}, False),
    ]


def test_work_inside_work_has_a_number_of_its_own():
    told = []
    with progress.listening(told.append), progress.track("outer", total=2, unit="part") as advance:
        assert list(progress.each("inner", "ab", unit="letter")) == ["a", "b"]
        advance(1)
    inner = [status for status in told if status.name == "inner"]
    assert [status.done for status in inner] == [0, 1, 2, 2] and not inner[-1].running
    assert min(status.number for status in inner) > told[0].number == told[-1].number


def test_an_error_ends_the_work_and_passes_through():
    told = []
    with (
        pytest.raises(ZeroDivisionError),
        progress.listening(told.append),
        progress.track("search", total=1, unit="step"),
    ):
        raise ZeroDivisionError
    assert [status.running for status in told] == [True, False]


def test_the_innermost_listener_hears_and_nobody_may_be_one():
    outer, inner = [], []
    with progress.listening(outer.append):
        with progress.listening(inner.append), progress.track("a", total=1, unit="step"):
            pass
        with progress.listening(None), progress.track("b", total=1, unit="step"):
            pass
        with progress.track("c", total=1, unit="step"):
            pass
    with progress.track("d", total=1, unit="step"):
        pass
    assert [status.name for status in inner] == ["a", "a"]
    assert [status.name for status in outer] == ["c", "c"]
