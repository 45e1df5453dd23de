"""A piece of a study: a function that leaves its result in files. Whoever reads them does what is
missing.
"""

import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nas.errors import Interrupted, UserError


class Piece(NamedTuple):
    """A call whose result is kept in files."""

    name: str  # shown while it runs; no two pieces of a call of `run` have the same
    function: Callable[..., Any]  # of a module, so that another process finds it
    arguments: tuple = ()
    options: dict[str, Any] = {}
    work: float = (
        1.0  # beside that of the other pieces, in any unit: how much of the time left is its
    )
    after: tuple[
        str, ...
    ] = ()  # names of pieces whose results it reads: those that are made stand before it


class Ledger:
    """What becomes of the pieces of a call: which may begin, and which failed."""

    def __init__(self, pieces: Sequence[Piece]):
        self.waiting = list(pieces)
        self._count = len(pieces)
        self._unmade = {piece.name for piece in pieces}
        self._failed: dict[str, str] = {}
        self._dropped: list[str] = []

    def next(self) -> Piece | None:
        """Takes the first piece that waits for no other."""
        ready = (one for one in self.waiting if self._unmade.isdisjoint(one.after))
        if piece := next(ready, None):
            self.waiting.remove(piece)
        return piece

    def made(self, piece: Piece) -> None:
        """The piece has left its result."""
        self._unmade.remove(piece.name)

    def failed(self, piece: Piece, reason: str) -> None:
        """The piece has left none, so that those that read it cannot begin."""
        self._failed[piece.name] = reason
        lost = {piece.name}
        while dropped := [one for one in self.waiting if not lost.isdisjoint(one.after)]:
            lost |= {one.name for one in dropped}
            self._dropped += [one.name for one in dropped]
            self.waiting = [one for one in self.waiting if one not in dropped]

    def check(self) -> None:
        """Raises what failed, when all are done.

        Raises:
          UserError: names every piece that failed, its reason, and what could not begin.
        """
        if not self._failed:
            return
        parts = [f"{name}: {reason}" for name, reason in self._failed.items()]
        if self._dropped:
            parts.append(f"not begun, since they read what is missing: {', '.join(self._dropped)}")
        raise UserError(
            f"{len(self._failed)} of {self._count} pieces failed: {'; '.join(parts)}; the others "
            "are kept, and the same command makes what is missing"
        )


def interrupted(received: Sequence[int]) -> Interrupted:
    """What to raise after these signals."""
    return Interrupted(
        130 if signal.SIGINT in received else 0,
        f"{signal.Signals(received[0]).name}: stopped; run the same command again to continue",
    )
