"""Pieces of a study: calls that leave their results in files. Whoever reads the results makes the
pieces that are missing.
"""

import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nas.errors import Interrupted, UserError


class Piece(NamedTuple):
    """A call whose result is kept in files."""

    name: str  # shown while it runs; unique among the pieces of a call of `run`
    function: Callable[..., Any]  # at the top of a module, so that another process finds it
    arguments: tuple = ()
    options: dict[str, Any] = {}
    # its share of all the work, in any unit that all pieces use: for the estimate of the time left
    work: float = 1.0
    # names of pieces whose results it reads; those made in the same call come before it
    after: tuple[str, ...] = ()


class Ledger:
    """Keeps track of the pieces of a call: which may begin, and which have failed."""

    def __init__(self, pieces: Sequence[Piece]):
        self.waiting = list(pieces)
        self._count = len(pieces)
        self._unmade = {piece.name for piece in pieces}
        self._failed: dict[str, str] = {}
        self._dropped: list[str] = []

    def next(self) -> Piece | None:
        """Takes the first piece that waits for no other one; None if there is none."""
        ready = (one for one in self.waiting if self._unmade.isdisjoint(one.after))
        if piece := next(ready, None):
            self.waiting.remove(piece)
        return piece

    def made(self, piece: Piece) -> None:
        """Notes that the piece has left its result."""
        self._unmade.remove(piece.name)

    def failed(self, piece: Piece, reason: str) -> None:
        """Notes that the piece has left no result, so that the pieces that read it cannot begin."""
        self._failed[piece.name] = reason
        lost = {piece.name}
        while dropped := [one for one in self.waiting if not lost.isdisjoint(one.after)]:
            lost |= {one.name for one in dropped}
            self._dropped += [one.name for one in dropped]
            self.waiting = [one for one in self.waiting if one not in dropped]

    def check(self) -> None:
        """Raises an error if pieces have failed; for when all others are done.

        Raises:
          UserError: names every piece that failed, its reason, and what could not begin.
        """
        if not self._failed:
            return
        parts = [f"{name}: {reason}" for name, reason in self._failed.items()]
        if self._dropped:
            parts.append(f"not begun, since they read what is missing: {', '.join(self._dropped)}")
        raise UserError(
            f"{len(self._failed)} of {self._count} pieces failed: {'; '.join(parts)}; finished "
            "pieces are kept, and the same command makes the missing ones"
        )


def interrupted(received: Sequence[int]) -> Interrupted:
    """What to raise after these signals."""
    return Interrupted(
        130 if signal.SIGINT in received else 0,
        f"{signal.Signals(received[0]).name}: stopped; run the same command again to continue",
    )
