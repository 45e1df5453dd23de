"""Array types and state containers that more than one room uses.

Shapes: A architectures, T decisions, K choices, H hidden width, B rows of a batch; K batches may be
stacked.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # a pytree of arrays
# a pytree; every leaf is [B, ...], a row an example; [K, B, ...] where K batches are stacked
Batch = Any
Info = dict[str, Array]  # what a step logs: name -> scalar or array


class Trace(NamedTuple):
    """What a policy says about n decision vectors."""

    log_prob: Array  # [n, T] float32; log p(a_t | a_<t) of the decisions taken
    entropy: Array  # [n, T] float32; nats, exact entropy of p(. | a_<t)
    log_probs: (
        Array  # [n, T, K] float32; of every choice, MASKED where position t has no such choice
    )
    hidden: (
        Array | None
    )  # [n, T + 1, H] float32; hidden[:, t] has consumed t decisions; None: the policy has no state

    def embedding(self, reading: str = "after") -> Array:
        """[n, H] the state that stands for an architecture.

        Args:
          reading: "after" the last decision was consumed (ours), or "before" it, the state that
            produced it (the paper's code).

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
        """[n, T] int32; decisions of `prefix` [P] or [n, P] are forced."""


class Policy(NamedTuple):
    """A distribution over decision vectors, as pure functions."""

    init: Callable[[Array], Params]  # key -> params
    sample: Draw
    score: Callable[[Params, Array], Trace]  # (params, decisions [n, T]) -> Trace
    state_width: int = 0  # H of `Trace.hidden`; 0: no hidden state to read an embedding from


class BeginEpoch(Protocol):
    """Prepares a strategy for an epoch."""

    def __call__(self, state: Any, key: Array, epoch: Array) -> Any:
        """The state; the key is the same on every device."""


class Propose(Protocol):
    """Proposes architectures."""

    def __call__(self, state: Any, key: Array, n: int) -> Array:
        """[n, T] int32."""


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
    """What proposes architectures and learns from their rewards: all that the search sees of it."""

    init: Callable[[Array], Any]  # key -> state
    begin_epoch: BeginEpoch
    propose: Propose
    update: Update
    # (state, key) -> what is logged at the end of an epoch; same key on every device
    measure: Callable[[Any, Array], Info]
    # state -> parameters of its policy; None: it has none
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
        """Next state and carry, and what is logged, from one architecture [T] and one batch."""


class Score(Protocol):
    """Scores architectures under the shared weights."""

    def __call__(self, state: Any, decisions: Array, batch: Batch) -> Array:
        """[A] of decisions [A, T]; `Reward` says of what batch, and what the numbers are."""


class Reward(NamedTuple):
    """Where rewards come from: a shared-weight network that is trained on the way, or a table."""

    init: Callable[[Array], Any]  # key -> state
    initial_carry: Callable[[int], Any]  # rows B -> carry
    train: TrainStep
    score: Score  # on one batch: rewards
    evaluate: Score  # on batches stacked [W, B, ...]: validation losses


class Loss(Protocol):
    """What training from scratch descends."""

    def __call__(
        self, params: Params, batch: Batch, carry: Any, key: Array | None
    ) -> tuple[Array, Any]:
        """[] loss and next carry; `key` is of dropout or augmentation, None: without."""


class Model(NamedTuple):
    """One architecture alone, as pure functions."""

    init: Callable[[Array], Params]  # key -> params
    initial_carry: Callable[[int], Any]  # rows B -> carry before the first batch
    loss: Loss
    evaluate: Callable[
        [Params, Batch], Array
    ]  # (params, batches [W, B, ...]) -> [] validation loss
    width: int  # of its layers
    # (params, batches [W, B, ...]) -> [] mean reward; None: the loss says it all
    reward: Callable[[Params, Batch], Array] | None = None
    # path of an array in params -> whether weight decay is of it
    decays: Callable[[tuple], bool] = lambda path: True


def stacked(batch: Batch) -> int:
    """How many batches are stacked in `batch`."""
    return len(jax.tree.leaves(batch)[0])
