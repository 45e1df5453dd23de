"""Array types and state containers that more than one room uses.

Shapes: A architectures, T decisions, K choices, H hidden width, B rows of a token batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Params = Any  # a pytree of arrays
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


class Strategy(NamedTuple):
    """What proposes architectures and learns from their rewards: all that the search loop sees of it."""

    init: Callable[[Array], Any]  # key -> state
    begin_epoch: Callable[..., Any]  # (state, key, epoch) -> state; same key on every device
    propose: Callable[..., Array]  # (state, key, n) -> [n, T] int32
    update: Callable[..., tuple[Any, Info]]  # (state, decisions [A, T], rewards [A], key, axis_name=None) -> state, info
    measure: Callable[..., Info]  # (state, key) -> what is logged at the end of an epoch; same key on every device


class Batch(NamedTuple):
    """One window of the token streams."""

    tokens: Array  # [B, steps + 1] int32; inputs are [:, :-1], targets [:, 1:]
    start: Array  # [] bool; the window is the first of its stream: carried state does not belong to it


class Reward(NamedTuple):
    """Where rewards come from: a shared-weight network that is trained on the way, or a table."""

    init: Callable[[Array], Any]  # key -> state
    initial_carry: Callable[[int], Any]  # rows B -> carry
    # (state, carry, decisions [T], batch, key, epoch, axis_name=None) -> state, carry, info
    train: Callable[..., tuple[Any, Any, Info]]
    score: Callable[..., Array]  # (state, decisions [A, T], batch) -> [A] rewards
    evaluate: Callable[..., Array]  # (state, decisions [A, T], windows: Batch stacked [W, ...]) -> [A] log perplexity
