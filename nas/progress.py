"""Progress of long work: whoever does the work reports, and whoever started the program listens.

The library writes nothing to a terminal. A program listens and shows what is reported; where nobody
listens, as in a test or a notebook, reports go nowhere:

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
    """How far some work is at one moment."""

    number: int  # identifies the work: 0 for the first that this process began, then 1, ...
    name: str
    unit: str  # what is counted, in the singular: "step"
    done: int
    total: int
    facts: Mapping[str, str]  # what else to show, in this order: "reward" -> "0.61"
    running: bool  # False once the work has ended, even by an error


Listener = Callable[[Status], None]

_listener: Listener | None = None
_numbers = itertools.count()


@contextlib.contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Calls `listener` with every report of this process, in place of the listener before; None: no
    listener.
    """
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextlib.contextmanager
def track(name: str, *, total: int, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Reports on some work, which may be part of other work.

    Args:
      total: number of units.
      done: units that an earlier run has done.

    Yields:
      `advance(count=0, **facts)`: reports that `count` more units are done, and what else to show;
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
    """Yields the items, each a unit of some work; it is done when the next one is asked for."""
    items = list(items)
    with track(name, total=len(items), unit=unit) as advance:
        for item in items:
            yield item
            advance(1)
