"""Array types and state containers that several packages share.

Shapes: A architectures, T decisions, K choices, H hidden width, B rows of a batch; K also counts
stacked batches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # a pytree of arrays
# a pytree with leaves [B, ...], one example per row; [K, B, ...] for K stacked batches
Batch = Any
Info = dict[str, Array]  # what a step logs: name -> scalar or array


class Trace(NamedTuple):
    """What a policy says about n decision vectors."""

    log_prob: Array  # [n, T] float32; log p(a_t | a_<t) of the decisions taken
    entropy: Array  # [n, T] float32; nats, exact entropy of p(. | a_<t)
    # [n, T, K] float32; log_prob of every choice, MASKED where position t has no such choice
    log_probs: Array
    # [n, T + 1, H] float32; hidden[:, t] has consumed t decisions; None: the policy has no state
    hidden: Array | None

    def embedding(self, reading: str = "after") -> Array:
        """[n, H] the state that stands for an architecture.

        Args:
          reading: "after" the last decision was consumed (ours), or "before" it, the state that
            produced that decision (the paper's code).

        Raises:
          ValueError: another reading, or a policy without a hidden state.
        """
        if self.hidden is None:
            raise ValueError("this policy has no hidden state")
        if reading not in ("after", "before"):
            raise ValueError(f"reading must be after or before, got {reading!r}")
        return self.hidden[:, -1 if reading == "after" else -2]


class Draw(Protocol):
    """Draws decision vectors."""

    def __call__(self, params: Params, key: Array, n: int, prefix: Array | None = None) -> Array:
        """[n, T] int32 decisions; those of `prefix` [P] or [n, P] are forced."""


class Policy(NamedTuple):
    """A distribution over decision vectors, as pure functions."""

    init: Callable[[Array], Params]  # key -> params
    sample: Draw
    score: Callable[[Params, Array], Trace]  # (params, decisions [n, T]) -> Trace
    state_width: int = 0  # H of `Trace.hidden`; 0: no hidden state to read an embedding from


class BeginEpoch(Protocol):
    """Prepares a strategy for an epoch."""

    def __call__(self, state: Any, key: Array, epoch: Array) -> Any:
        """The next state; the key is the same on every device."""


class Propose(Protocol):
    """Proposes architectures."""

    def __call__(self, state: Any, key: Array, n: int) -> Array:
        """[n, T] int32 decisions."""


class Update(Protocol):
    """Learns from rewards."""

    def __call__(
        self,
        state: Any,
        decisions: Array,
        rewards: Array,
        key: Array,
        axis_name: str | None = None,
    ) -> tuple[Any, Info]:
        """The next state and what is logged, from decisions [A, T] and rewards [A] of this
        device.
        """


class Strategy(NamedTuple):
    """Proposes architectures and learns from their rewards: all that the search sees of it."""

    init: Callable[[Array], Any]  # key -> state
    begin_epoch: BeginEpoch
    propose: Propose
    update: Update
    # (state, key) -> what is logged at the end of an epoch; the key is the same on every device
    measure: Callable[[Any, Array], Info]
    # state -> parameters of its policy; None if it has no policy
    policy_params: Callable[[Any], Params | None]


class TrainStep(Protocol):
    """One step of the shared weights."""

    def __call__(
        self,
        state: Any,
        carry: Any,
        decisions: Array,
        batch: Batch,
        key: Array,
        epoch: Array,
        axis_name: str | None = None,
    ) -> tuple[Any, Any, Info]:
        """The next state, carry and what is logged, from one architecture [T] and one batch."""


class Score(Protocol):
    """Scores architectures under the shared weights."""

    def __call__(self, state: Any, decisions: Array, batch: Batch) -> Array:
        """[A] numbers, one for each of decisions [A, T]; `Reward` says which, and on what batch."""


class Reward(NamedTuple):
    """Where rewards come from: a shared-weight network trained during the search, or a table."""

    init: Callable[[Array], Any]  # key -> state
    initial_carry: Callable[[int], Any]  # rows B -> carry
    train: TrainStep
    score: Score  # on one batch: rewards
    evaluate: Score  # on batches stacked [W, B, ...]: validation losses


class Loss(Protocol):
    """The loss that training from scratch minimises."""

    def __call__(
        self, params: Params, batch: Batch, carry: Any, key: Array | None
    ) -> tuple[Array, Any]:
        """[] loss and next carry; `key` is for dropout or augmentation, None turns them off."""


class Model(NamedTuple):
    """A single architecture, as pure functions."""

    init: Callable[[Array], Params]  # key -> params
    initial_carry: Callable[[int], Any]  # rows B -> carry before the first batch
    loss: Loss
    # (params, batches [W, B, ...]) -> [] validation loss
    evaluate: Callable[[Params, Batch], Array]
    width: int  # width of its layers
    # (params, batches [W, B, ...]) -> [] mean reward; None: the loss is all there is to report
    reward: Callable[[Params, Batch], Array] | None = None
    # path of an array in params -> whether weight decay applies to it
    decays: Callable[[tuple], bool] = lambda path: True


def stacked(batch: Batch) -> int:
    """How many batches are stacked in `batch`."""
    return len(jax.tree.leaves(batch)[0])
