"""Local search: climbs to the first better neighbour until there is none, then climbs anew.

A climb starts from the best of some architectures drawn uniformly. Neighbours differ in one
decision. They are scored in random order, and never twice: if a better one was scored before, the
climb moves there at once. White, Nolen, Savani (2021) found it hard to beat on tables of
architectures.
"""

import dataclasses

import chex
import flax.struct
import jax
import jax.numpy as jnp

from nas import archive as archives
from nas.archive import Archive
from nas.config import check
from nas.parallel import gather_over_devices
from nas.spaces import SearchSpace
from nas.types import Array, Info, Strategy

_CANDIDATES = 16  # drawn uniformly for each proposal


@dataclasses.dataclass(frozen=True)
class LocalSearchSettings:
    """Where climbs start.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    first_starts: int = 10  # uniform architectures, the best of which starts the first climb
    starts: int = 1  # the same for every later climb
    archive: int = 1000  # architectures scored most recently, which are not scored again

    def __post_init__(self):
        for name in ("first_starts", "starts", "archive"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))


@flax.struct.dataclass
class Climb:
    """Where a climb is."""

    decisions: Array  # [T] int32
    reward: Array  # [] float32; -inf: the climb has not started
    due: Array  # [] int32; uniform architectures still to be scored before it moves on
    archive: Archive


def local_search(space: SearchSpace, settings: LocalSearchSettings) -> Strategy:
    """The strategy. Of architectures scored together, the climb moves to the first better one.

    Raises:
      UserError: more architectures are scored at once, on all devices, than the archive holds (when
        `update` is traced).
    """

    def init(key: Array) -> Climb:
        del key
        return Climb(
            jnp.zeros(space.num_decisions, jnp.int32),
            jnp.float32(-jnp.inf),
            jnp.int32(settings.first_starts),
            archives.empty(settings.archive, space.num_decisions),
        )

    def propose(state: Climb, key: Array, n: int) -> Array:
        order_key, uniform_key = jax.random.split(key)
        neighbours = jax.random.permutation(order_key, space.neighbours(state.decisions))
        count = len(neighbours)
        uniform = space.sample_uniform(uniform_key, count + n * _CANDIDATES)
        first = jnp.where(state.due > 0, uniform[:count], neighbours)
        return archives.first_new(state.archive, jnp.concatenate([first, uniform[count:]]), n)

    def update(
        state: Climb,
        decisions: Array,
        rewards: Array,
        key: Array,
        axis_name: str | None = None,
    ) -> tuple[Climb, Info]:
        del key
        chex.assert_rank([decisions, rewards], [2, 1])
        decisions, rewards = gather_over_devices((decisions, rewards), axis_name)
        archive = archives.write(state.archive, decisions, rewards, field="archive")
        better = rewards > state.reward  # False where a reward is NaN
        best = jnp.argmax(jnp.where(better, rewards, -jnp.inf))
        row = jnp.where(state.due > 0, best, jnp.argmax(better))
        moved = better[row]
        here = jnp.where(moved, decisions[row], state.decisions)
        reward = jnp.where(moved, rewards[row], state.reward)
        due = jnp.maximum(state.due - len(rewards), 0)

        def look_round(here):
            neighbours = space.neighbours(here)
            held, known = archives.look_up(archive, neighbours)
            highest = jnp.argmax(known)
            return neighbours[highest], known[highest], jnp.all(held)

        def climbs(at):
            _, reward, (_, known, _) = at
            return (due == 0) & (known > reward)

        def climb(at):
            _, _, (there, known, _) = at
            return there, known, look_round(there)

        at = (here, reward, look_round(here))
        here, reward, (_, _, all_known) = jax.lax.while_loop(climbs, climb, at)
        ended = (due == 0) & all_known
        climbed = Climb(
            here,
            jnp.where(ended, -jnp.inf, reward),
            jnp.where(ended, settings.starts, due),
            archive,
        )
        return climbed, {"reward": jnp.mean(rewards)}

    return Strategy(
        init,
        lambda state, key, epoch: state,
        propose,
        update,
        lambda state, key: {},
        lambda state: None,
    )
