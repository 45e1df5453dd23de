"""What an evaluation knows of a controller, as arrays: its architectures, and how it decides.

n architectures are compared pair by pair (P pairs in the order of `nas.evaluation.blocks`); N
others show how the policy decides. H is 0 where the policy has no hidden state.
"""

from typing import NamedTuple

import numpy as np

SETS = {"uniform": "uniform set", "own": "own samples"}  # evaluation sets: key -> title


class Sample(NamedTuple):
    """Architectures that are compared with each other."""

    decisions: np.ndarray  # [n, T] int32
    after: np.ndarray  # [n, H] state after the last decision was consumed
    before: np.ndarray  # [n, H] state that produced the last decision, as the paper's code reads it
    loss: np.ndarray  # [n] under the shared weights that this controller was trained with
    # [n] under shared weights that all arms have in common; NaN: not measured
    common_loss: np.ndarray
    edit_distance: np.ndarray  # [D, P] from `correlations.edit_distances`

    @property
    def block(self) -> int:
        """Architectures per block; those of a block are compared with each other."""
        return 2 * self.edit_distance.shape[1] // len(self.decisions) + 1

    @property
    def blocks(self) -> int:
        """Number of blocks; 1: all pairs are compared."""
        return len(self.decisions) // self.block

    def compared(self) -> str:
        """What is compared, in words."""
        n, pairs = len(self.decisions), self.edit_distance.shape[1]
        if self.blocks == 1:
            return f"{n:,} architectures, all pairs"
        return (
            f"{n:,} architectures, {pairs:,} pairs within {self.blocks:,} blocks of {self.block:,}"
        )


class Behaviour(NamedTuple):
    """How a policy decides."""

    own: np.ndarray  # [N, T] int32; samples of the policy
    own_log_probs: np.ndarray  # [N, T, K] log p(. | a_<t) along these samples
    uniform: np.ndarray  # [N, T] int32; uniform sequences, the same for every policy
    uniform_log_probs: np.ndarray  # [N, T, K] log p(. | a_<t) along these
    uniform_after: np.ndarray  # [N, H] states after the last decision
    # [T, T] nats; effect of an earlier decision (row) on a later one, by `conditioning.influence`
    influence: np.ndarray
    # [G, M, T] int32; M samples from each of G intermediate states, after T // 2 decisions
    continued: np.ndarray
