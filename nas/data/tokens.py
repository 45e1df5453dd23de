"""Token streams cut into windows for truncated back-propagation through time, as in every PTB code.

The stream is laid out as B contiguous rows; window i of every row continues window i - 1, so the recurrent state carries over.
"""

from typing import NamedTuple

import numpy as np

from nas.config import DataConfig
from nas.data.corpus import Corpus, load_corpus
from nas.errors import UserError
from nas.types import Splits


class Tokens(NamedTuple):
    """One window of a token stream, or [K, ...] windows stacked."""

    tokens: np.ndarray  # [B, steps + 1] int32; inputs are [:, :-1], targets [:, 1:]
    start: np.ndarray  # [B] bool; the window is the first of its stream: carried state does not belong to it


class Windows(NamedTuple):
    """The windows of one stream, a `nas.types.Stream`."""

    rows: np.ndarray  # [B, L] int32
    steps: int  # inputs per row and window

    @classmethod
    def of(cls, tokens: np.ndarray, batch: int, steps: int) -> "Windows":
        """Windows of `tokens` [n] in `batch` contiguous rows; the last n % batch tokens are dropped.

        Raises:
          UserError: too few tokens for one window.
        """
        length = len(tokens) // batch
        if length <= steps:
            raise UserError(
                f"{len(tokens)} tokens in {batch} rows (batch) are {length} per row: too few for one window of {steps} steps "
                f"and its next token; use a smaller batch or fewer steps"
            )
        return cls(tokens[: length * batch].reshape(batch, length), steps)

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
        return self.take(0, min(self.length, -(-examples // self.examples)) if examples else self.length)

    def share(self, rows: slice) -> "Windows":
        return Windows(self.rows[rows], self.steps)

    def halves(self, slices: int, seed: int) -> tuple[list[Tokens], list[Tokens]]:
        """Of short rows of the stream, the even ones, shuffled, and the odd ones; each slice has B of them."""
        batch, tokens = len(self.rows), self.rows.reshape(-1)
        while slices > 1 and len(tokens) // (2 * slices * batch) <= self.steps:
            slices //= 2
        rows = Windows.of(tokens, 2 * slices * batch, self.steps).rows
        shuffled = np.random.default_rng(seed).permutation(rows[::2])
        return tuple(
            [Windows(part, self.steps).head(0) for part in half.reshape(slices, batch, -1)] for half in (shuffled, rows[1::2])
        )


def load_splits(config: DataConfig, *, corpus_dir: str | None = None, data_dir: str | None = None) -> Splits:
    """The windows of `load_corpus`, as `corpus_splits` cuts them.

    Raises:
      UserError: as both.
    """
    return corpus_splits(load_corpus(config, corpus_dir=corpus_dir, data_dir=data_dir), config)


def corpus_splits(corpus: Corpus, config: DataConfig) -> Splits:
    """Windows of `config.steps` tokens: of the training split in `config.batch` rows, of the others in `config.eval_batch`.

    Raises:
      UserError: a split is too short for one window.
    """
    rows = config.batch, config.eval_batch, config.eval_batch
    return Splits(*(Windows.of(tokens, batch, config.steps) for tokens, batch in zip(corpus[:3], rows, strict=True)))
