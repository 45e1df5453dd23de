"""Examples that stand by themselves, such as images with their labels, in batches."""

from typing import Any, NamedTuple

import jax
import numpy as np

from nas.errors import UserError


class Rows(NamedTuple):
    """Batches of `batch` out of n examples, a `nas.tasks.Stream`; what does not fill a batch is
    left out.

    If shuffled, every pass has an order of its own, which depends only on the number of the pass.
    """

    leaves: Any  # a pytree of arrays [n, ...]
    batch: int
    shuffled: bool = False
    own: slice = slice(None)  # the rows of every batch that this process reads

    @classmethod
    def of(cls, leaves: Any, batch: int, *, shuffled: bool = False) -> "Rows":
        """The batches of all examples.

        Raises:
          UserError: too few examples for one batch.
        """
        count = len(jax.tree.leaves(leaves)[0])
        if count < batch:
            raise UserError(f"{count} examples are too few for one batch of {batch}")
        return cls(leaves, batch, shuffled)

    @property
    def length(self) -> int:
        return len(jax.tree.leaves(self.leaves)[0]) // self.batch

    @property
    def examples(self) -> int:
        return self.batch

    def take(self, first: int, count: int) -> Any:
        rows = [self._rows(number) for number in range(first, first + count)]
        return jax.tree.map(lambda leaf: np.stack([leaf[one] for one in rows]), self.leaves)

    def head(self, examples: int) -> Any:
        wanted = -(-examples // self.batch) if examples else self.length
        return self.take(0, min(self.length, wanted))

    def share(self, rows: slice) -> "Rows":
        return self._replace(own=rows)

    def halves(self, slices: int, seed: int) -> tuple[list[Any], list[Any]]:
        """The batches of the first pass with even and with odd numbers, the even ones shuffled."""
        if self.length < 2:
            raise UserError("one batch of examples is too few for two halves")
        each = self.length // 2
        while slices > each:
            slices //= 2
        even = np.random.default_rng(seed).permutation(np.arange(0, 2 * each, 2))
        odd = np.arange(1, 2 * each, 2)
        per_slice = each // slices

        def parts(numbers):
            groups = numbers[: per_slice * slices].reshape(slices, per_slice)
            batches = [[self.take(int(number), 1) for number in group] for group in groups]
            return [jax.tree.map(lambda *leaf: np.concatenate(leaf), *group) for group in batches]

        return parts(even), parts(odd)

    def _rows(self, number):
        """[B] indices of the examples in a batch."""
        which, place = divmod(number, self.length)
        order = np.arange(len(jax.tree.leaves(self.leaves)[0]))
        if self.shuffled:
            order = np.random.default_rng(which).permutation(order)
        return order[place * self.batch : (place + 1) * self.batch][self.own]
