"""How far long work is: whoever does it tells, and whoever started the program listens.

The library writes nothing to a terminal. A program listens and shows what it is told; where nobody
listens, as in a test or a notebook, nobody is told:

    with progress.track("derivation", total=1000, unit="cell") as advance:
        for cell in cells:
            ...
            advance(1, best="61.2")
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class Status(NamedTuple):
    """Some work at one moment."""

    number: int  # of the work, in the order in which this process began it
    name: str
    unit: str  # what is counted, in the singular: "step"
    done: int
    total: int
    facts: Mapping[str, str]  # what else there is to show, in this order: "reward" -> "0.61"
    running: bool  # False when it ended, in whatever way


Listener = Callable[[Status], None]

_listener: Listener | None = None
_numbers = itertools.count()


@contextlib.contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Calls `listener` at every step of the work of this process, in place of who listened before;
    None: nobody.
    """
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextlib.contextmanager
def track(name: str, *, total: int, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Some work, which may be part of other work.

    Args:
      total: how many units there are.
      done: how many of them an earlier run has done.

    Yields:
      `advance(count=0, **facts)`: so many more units are done, and what else there is to show;
        facts stay until replaced.
    """
    number, facts = next(_numbers), {}

    def tell(running=True):
        if _listener:
            _listener(Status(number, name, unit, done, total, dict(facts), running))

    def advance(count: int = 0, **more: str) -> None:
        nonlocal done
        done += count
        facts.update(more)
        tell()

    tell()
    try:
        yield advance
    finally:
        tell(running=False)


def each(name: str, items: Iterable[Item], *, unit: str) -> Iterator[Item]:
    """The items, as the units of some work: one is done when the next is asked for."""
    items = list(items)
    with track(name, total=len(items), unit=unit) as advance:
        for item in items:
            yield item
            advance(1)
