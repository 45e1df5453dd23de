"""Array types and state containers that more than one room uses.

Shapes: A architectures, T decisions, K choices, H hidden width, B rows of a batch; K batches may be stacked.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # a pytree of arrays
Batch = Any  # a pytree; every leaf is [B, ...], a row an example; [K, B, ...] where K batches are stacked
Info = dict[str, Array]  # what a step logs: name -> scalar or array


class Trace(NamedTuple):
    """What a policy says about n decision vectors."""

    log_prob: Array  # [n, T] float32; log p(a_t | a_<t) of the decisions taken
    entropy: Array  # [n, T] float32; nats, exact entropy of p(. | a_<t)
    log_probs: Array  # [n, T, K] float32; of every choice, MASKED where position t has no such choice
    hidden: Array | None  # [n, T + 1, H] float32; hidden[:, t] has consumed t decisions; None: the policy has no state

    def embedding(self, reading: str = "after") -> Array:
        """[n, H] the state that stands for an architecture.

        Args:
          reading: "after" the last decision was consumed (ours), or "before" it, the state that produced it (the
            paper's code).

        Raises:
          ValueError: another reading, or a policy without a hidden state.
        """
        if self.hidden is None:
            raise ValueError("this policy has no hidden state")
        if reading not in ("after", "before"):
            raise ValueError(f"reading must be after or before, got {reading!r}")
        return self.hidden[:, -1 if reading == "after" else -2]


class Policy(NamedTuple):
    """A distribution over decision vectors, as pure functions."""

    init: Callable[[Array], Params]  # key -> params
    sample: Callable[..., Array]  # (params, key, n, prefix=None) -> [n, T] int32; prefix [P] or [n, P] is forced
    score: Callable[[Params, Array], Trace]  # (params, decisions [n, T]) -> Trace
    state_width: int = 0  # H of `Trace.hidden`; 0: it has no hidden state to read an embedding from


class Strategy(NamedTuple):
    """What proposes architectures and learns from their rewards: all that the search loop sees of it."""

    init: Callable[[Array], Any]  # key -> state
    begin_epoch: Callable[..., Any]  # (state, key, epoch) -> state; same key on every device
    propose: Callable[..., Array]  # (state, key, n) -> [n, T] int32
    update: Callable[..., tuple[Any, Info]]  # (state, decisions [A, T], rewards [A], key, axis_name=None) -> state, info
    measure: Callable[..., Info]  # (state, key) -> what is logged at the end of an epoch; same key on every device
    policy_params: Callable[[Any], Params | None]  # state -> parameters of its policy; None: it has none


class Stream(Protocol):
    """Batches by number: the same number is always the same batch, and after the last of a pass comes the first of the next."""

    length: int  # batches in a pass
    examples: int  # what a batch counts for: images, or tokens to be predicted

    def take(self, first: int, count: int) -> Batch:
        """Batches first .. first + count - 1, counted over all passes, stacked [count, B, ...]."""

    def head(self, examples: int) -> Batch:
        """The first batches, as many as hold so many examples (rounded up; 0: a whole pass), stacked."""

    def share(self, rows: slice) -> "Stream":
        """The stream of these rows of every batch: what one process reads."""

    def halves(self, slices: int, seed: int) -> tuple[list[Batch], list[Batch]]:
        """Two halves of a pass, disjoint and of one size, in at most so many slices each: one to choose on, one to report on.

        Args:
          slices: a power of two; halved while a slice would hold no batch.
          seed: of the order of the slices of the first half.
        """


class Splits(NamedTuple):
    """The streams of a data set."""

    train: Stream
    valid: Stream
    test: Stream


def stacked(batch: Batch) -> int:
    """How many batches are stacked in `batch`."""
    return len(jax.tree.leaves(batch)[0])


class Reward(NamedTuple):
    """Where rewards come from: a shared-weight network that is trained on the way, or a table."""

    init: Callable[[Array], Any]  # key -> state
    initial_carry: Callable[[int], Any]  # rows B -> carry
    # (state, carry, decisions [T], batch, key, epoch, axis_name=None) -> state, carry, info
    train: Callable[..., tuple[Any, Any, Info]]
    score: Callable[..., Array]  # (state, decisions [A, T], batch) -> [A] rewards
    evaluate: Callable[..., Array]  # (state, decisions [A, T], batches stacked [W, B, ...]) -> [A] log perplexity
