"""Token streams cut into windows for truncated back-propagation through time, as in every PTB code.

The stream is laid out as B contiguous rows; window i of every row continues window i - 1, so the
recurrent state carries over.
"""

from typing import NamedTuple

import numpy as np

from nas.errors import UserError


class Tokens(NamedTuple):
    """One window of a token stream, or [K, ...] windows stacked."""

    tokens: np.ndarray  # [B, steps + 1] int32; inputs are [:, :-1], targets [:, 1:]
    # [B] bool; the window is the first of its stream: no carried state belongs to it
    start: np.ndarray


class Windows(NamedTuple):
    """The windows of one stream, a `nas.tasks.Stream`."""

    tokens: np.ndarray  # [n] int32; the whole stream
    rows: np.ndarray  # [B, L] int32; the stream as contiguous rows
    steps: int  # inputs per row and window

    @classmethod
    def of(cls, tokens: np.ndarray, batch: int, steps: int) -> "Windows":
        """Windows of `tokens` [n] in `batch` contiguous rows; the last n % batch tokens are
        dropped.

        Raises:
          UserError: too few tokens for one window.
        """
        length = len(tokens) // batch
        if length <= steps:
            raise UserError(
                f"{len(tokens)} tokens in {batch} rows (batch) are {length} per row: too few for "
                f"one window of {steps} steps "
                f"and its next token; use a smaller batch or fewer steps"
            )
        return cls(tokens, tokens[: length * batch].reshape(batch, length), steps)

    @property
    def length(self) -> int:
        return (self.rows.shape[1] - 1) // self.steps

    @property
    def examples(self) -> int:
        return len(self.rows) * self.steps

    def take(self, first: int, count: int) -> Tokens:
        index = np.arange(first, first + count) % self.length
        columns = index[:, None] * self.steps + np.arange(self.steps + 1)[None]
        start = np.repeat((index == 0)[:, None], len(self.rows), axis=1)
        return Tokens(np.moveaxis(self.rows[:, columns], 0, 1), start)

    def head(self, examples: int) -> Tokens:
        return self.take(
            0, min(self.length, -(-examples // self.examples)) if examples else self.length
        )

    def share(self, rows: slice) -> "Windows":
        return self._replace(rows=self.rows[rows])

    def halves(self, slices: int, seed: int) -> tuple[list[Tokens], list[Tokens]]:
        """The stream in short rows, the even ones, shuffled, and the odd ones; each slice has B of
        them.
        """
        batch, tokens = len(self.rows), self.rows.reshape(-1)
        while slices > 1 and len(tokens) // (2 * slices * batch) <= self.steps:
            slices //= 2
        rows = Windows.of(tokens, 2 * slices * batch, self.steps).rows
        shuffled = np.random.default_rng(seed).permutation(rows[::2])
        return tuple(
            [self._replace(rows=part).head(0) for part in half.reshape(slices, batch, -1)]
            for half in (shuffled, rows[1::2])
        )
