"""The memory: architectures drawn from OLD controller parameters, and the queue that keeps those
parameters.

Why old: trained on its own fresh samples a controller could lower the supervised loss by making its
samples easier to predict (Adam & Lorraine 2019). The other sources in this list are controls for
that argument:

  old        sampled from the parameters of `lag` epochs ago, at each refresh
  shuffled   as old, but each position is permuted over the sequences of a refresh: only the
             marginals stay
  snapshot   sampled afresh at every update, from the parameters that the last refresh of `old` used
  uniform    sampled uniformly, at each refresh
  current    sampled from the current parameters at every update; the samples are constants
  current_with_gradient
             the same, and the gradient also goes through the sampling (score-function term)

One more source is no control but another memory, the priority queue of Abolafia et al. (2018):

  best       the best architectures of the archive, at every update
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from nas.config import check, check_choice
from nas.types import Array, Params

SOURCES = ("old", "shuffled", "snapshot", "uniform", "current", "current_with_gradient", "best")


@dataclasses.dataclass(frozen=True)
class MemorySettings:
    """Where the sequences of the supervised loss come from.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    source: str = "old"  # one of SOURCES
    capacity: int = 1000  # sequences held
    refresh_size: int = 1000  # sequences written per refresh; if = capacity, all are replaced
    refresh_period: int = 1  # epochs between refreshes; 0: a single refresh at the start
    lag: int = 1  # age in epochs of the parameters that a refresh samples from
    batch: int = 64  # sequences per update

    def __post_init__(self):
        check_choice("source", self.source, SOURCES)
        for name in ("capacity", "refresh_size", "lag", "batch"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        fits = self.refresh_size <= self.capacity
        check("refresh_size", fits, "at most the capacity", self.refresh_size)
        check("refresh_period", self.refresh_period >= 0, "0 (once) or more", self.refresh_period)


@flax.struct.dataclass
class Memory:
    """A ring buffer of decision vectors."""

    decisions: Array  # [C, T] int32
    size: Array  # [] int32; rows that are filled
    cursor: Array  # [] int32; row that is written next


def empty(capacity: int, length: int) -> Memory:
    """A memory of `capacity` rows of `length` decisions, none filled."""
    return Memory(jnp.zeros((capacity, length), jnp.int32), jnp.int32(0), jnp.int32(0))


def of(decisions: Array, size: Array) -> Memory:
    """A memory of these rows [C, T], of which the first `size` [] are filled."""
    return Memory(decisions, size, jnp.int32(0))


def write(memory: Memory, decisions: Array) -> Memory:
    """Writes n decision vectors [n, T] (n at most the capacity) over the oldest rows."""
    capacity, n = len(memory.decisions), len(decisions)
    rows = (memory.cursor + jnp.arange(n, dtype=jnp.int32)) % capacity
    return Memory(
        memory.decisions.at[rows].set(decisions),
        jnp.minimum(memory.size + n, capacity),
        (memory.cursor + n) % capacity,
    )


def sample(memory: Memory, key: Array, n: int) -> Array:
    """[n, T] rows drawn uniformly with replacement from the filled ones, of which there must be at
    least one.
    """
    return memory.decisions[jax.random.randint(key, (n,), 0, memory.size)]


def start_history(params: Params, lag: int) -> Params:
    """A queue that holds `params` `lag` times, stacked on a leading axis [lag, ...]: the parameters
    at the end of the last `lag` epochs, oldest first.
    """
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], lag, axis=0), params)


def push(history: Params, params: Params) -> Params:
    """Drops the oldest parameters, appends the newest."""
    return jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), history, params)


def oldest(history: Params) -> Params:
    """The parameters of `lag` epochs ago."""
    return jax.tree.map(lambda leaf: leaf[0], history)
