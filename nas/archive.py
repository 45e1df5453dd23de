"""The archive: the architectures scored most recently, with their rewards. A search need not pay
again for what it has scored, and can learn from the best of it.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from nas.errors import UserError
from nas.spaces import SearchSpace
from nas.types import Array


@flax.struct.dataclass
class Archive:
    """A ring buffer of the C architectures scored most recently."""

    decisions: Array  # [C, T] int32
    rewards: Array  # [C] float32; -inf where the reward was not finite
    scored: Array  # [] int32; architectures scored so far; row scored % C is written next


def empty(capacity: int, length: int) -> Archive:
    """An archive of `capacity` rows of `length` decisions, none filled."""
    return Archive(
        jnp.zeros((capacity, length), jnp.int32), jnp.full(capacity, -jnp.inf), jnp.int32(0)
    )


def write(archive: Archive, decisions: Array, rewards: Array, *, field: str) -> Archive:
    """Writes n architectures [n, T] and their rewards [n] over the oldest rows.

    Args:
      field: name of the setting that gives the number of rows, for the error message.

    Raises:
      UserError: there are fewer than n rows (raised when this is traced).
    """
    capacity, n = len(archive.rewards), len(rewards)
    if n > capacity:
        wanted = f"must be at least the {n} architectures scored at once, got {capacity}"
        raise UserError(f"config field strategy.{field}: {wanted}")
    rows = (archive.scored + jnp.arange(n, dtype=jnp.int32)) % capacity
    return Archive(
        archive.decisions.at[rows].set(decisions),
        archive.rewards.at[rows].set(jnp.where(jnp.isfinite(rewards), rewards, -jnp.inf)),
        archive.scored + n,
    )


def filled(archive: Archive) -> Array:
    """[C] bool: the rows that hold an architecture."""
    return jnp.arange(len(archive.rewards)) < archive.scored


def look_up(archive: Archive, decisions: Array) -> tuple[Array, Array]:
    """Whether the archive holds each of architectures [n, T], bool [n], and their rewards [n], -inf
    where it does not.
    """
    same = _same(decisions, archive.decisions) & filled(archive)[None]
    return jnp.any(same, axis=1), jnp.max(
        jnp.where(same, archive.rewards[None], -jnp.inf), axis=1, initial=-jnp.inf
    )


def first_new(archive: Archive, candidates: Array, n: int) -> Array:
    """[n, T]: the first of candidates [M, T] that the archive does not hold, each once.

    Where there are fewer than n, candidates that are held or repeated follow in the same order.
    """
    earlier = jnp.tri(len(candidates), k=-1, dtype=bool)
    repeats = jnp.any(_same(candidates, candidates) & earlier, axis=1)
    repeats |= look_up(archive, candidates)[0]
    return candidates[jnp.argsort(repeats, stable=True)[:n]]


def propose(
    archive: Archive | None,
    draw: Callable[[Array, int], Array],
    space: SearchSpace,
    key: Array,
    n: int,
    candidates: int,
) -> Array:
    """[n, T] architectures that the archive does not hold, the first of `candidates` drawn for each
    of them, then of as many uniform ones; just n drawn ones without an archive.

    Args:
      draw: (key, count) -> [count, T], the preferred ones first.
    """
    if archive is None:
        return draw(key, n)
    draw_key, uniform_key = jax.random.split(key)
    drawn = draw(draw_key, n * candidates)
    uniform = space.sample_uniform(uniform_key, len(drawn))
    return first_new(archive, jnp.concatenate([drawn, uniform]), n)


def best(archive: Archive, n: int) -> tuple[Array, Array]:
    """The n best architectures of the archive [n, T], best first, and how many of these rows are
    filled, [] int32.
    """
    _, rows = jax.lax.top_k(jnp.where(filled(archive), archive.rewards, -jnp.inf), n)
    return archive.decisions[rows], jnp.minimum(archive.scored, n)


def _same(a: Array, b: Array) -> Array:
    """[n, m] bool: whether row i of a [n, T] equals row j of b [m, T]."""
    same = jnp.ones((len(a), len(b)), bool)
    for t in range(a.shape[1]):  # all T at once would make an array [n, m, T] in memory
        same &= a[:, t, None] == b[None, :, t]
    return same
