"""Token streams cut into windows for truncated back-propagation through time, as in every PTB code.

The stream is laid out as B contiguous rows; window i of every row continues window i - 1, so the recurrent state carries over.
"""

from typing import NamedTuple

import numpy as np

from nas.errors import UserError
from nas.types import Batch


def stream(tokens: np.ndarray, batch: int) -> np.ndarray:
    """[n] int32 -> [B, n // B] int32: contiguous rows; the last n % B tokens are dropped.

    Raises:
      UserError: fewer than two tokens per row, an input and its target.
    """
    if len(tokens) < 2 * batch:
        raise UserError(f"{len(tokens)} tokens are too few for {batch} rows (batch) of at least 2; use a smaller batch")
    return tokens[: len(tokens) // batch * batch].reshape(batch, -1)


def num_windows(stream, steps: int) -> int:
    """How many windows of `steps` inputs and their shifted targets fit in a stream [B, L].

    Raises:
      UserError: not even one.
    """
    batch, length = stream.shape
    if length <= steps:
        raise UserError(
            f"{batch * length} tokens in {batch} rows (batch) are {length} per row: too few for one window of {steps} steps "
            f"and its next token; use a smaller batch or fewer steps"
        )
    return (length - 1) // steps


class Windows(NamedTuple):
    """The windows of one stream, in order and again from the start."""

    rows: np.ndarray  # [B, L] int32
    steps: int  # inputs per row and window

    @classmethod
    def of(cls, tokens: np.ndarray, batch: int, steps: int) -> "Windows":
        """Windows of `tokens` [n] in `batch` rows.

        Raises:
          UserError: too few tokens for one window.
        """
        windows = cls(stream(tokens, batch), steps)
        num_windows(windows.rows, steps)
        return windows

    def take(self, first: int, count: int) -> Batch:
        """Windows first .. first + count - 1, counted over all passes, stacked: tokens [count, B, steps + 1], start [count]."""
        index = np.arange(first, first + count) % num_windows(self.rows, self.steps)
        columns = index[:, None] * self.steps + np.arange(self.steps + 1)[None]
        return Batch(np.moveaxis(self.rows[:, columns], 0, 1), index == 0)

    def head(self, tokens: int) -> Batch:
        """The first windows, as many as hold `tokens` targets (rounded up; 0: the whole stream), stacked."""
        count = num_windows(self.rows, self.steps)
        if tokens:
            count = min(count, -(-tokens // (len(self.rows) * self.steps)))
        return self.take(0, count)
