"""Regularised evolution (Real et al. 2019, algorithm 1): a population of the P youngest
architectures, whose oldest members die.

Until P architectures have been scored, proposals are uniform. From then on a proposal is the best
of S architectures drawn from the population with replacement, with one decision changed. Proposals
made together have their parents in the same population. With an archive, several such proposals are
drawn and one that the archive does not hold is taken.
"""

import dataclasses
import functools

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


@dataclasses.dataclass(frozen=True)
class EvolutionSettings:
    """The sizes are those of Real et al. (2019).

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    population: int = 100  # P, architectures alive: the youngest ones
    tournament: int = 25  # S, architectures drawn from these, the best of which is the parent
    archive: int = 0  # architectures scored most recently, not proposed again; 0: no archive
    candidates: int = 8  # drawn for each proposal if there is an archive

    def __post_init__(self):
        for name in ("population", "tournament", "candidates"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        check("archive", self.archive >= 0, "0 (none) or more", self.archive)


@flax.struct.dataclass
class EvolutionState:
    """The architectures alive, and those scored before."""

    population: Archive
    archive: Archive | None


def evolution(space: SearchSpace, settings: EvolutionSettings) -> Strategy:
    """The strategy.

    A reward that is not finite loses to every other.

    Raises:
      UserError: more architectures are scored at once, on all devices, than the population or the
        archive holds (when `update` is traced).
    """
    population, tournament = settings.population, settings.tournament

    def init(key: Array) -> EvolutionState:
        del key
        sizes = (population, settings.archive)
        return EvolutionState(
            *(archives.empty(size, space.num_decisions) if size else None for size in sizes)
        )

    def draw(alive: Archive, key: Array, n: int) -> Array:
        """[n, T] architectures, which may have been scored before."""
        uniform_key, tournament_key, mutation_key = jax.random.split(key, 3)
        rows = jax.random.randint(tournament_key, (n, tournament), 0, population)
        winners = jnp.take_along_axis(
            rows, jnp.argmax(alive.rewards[rows], axis=1)[:, None], axis=1
        )[:, 0]
        children = space.mutate(mutation_key, alive.decisions[winners])
        return jnp.where(alive.scored < population, space.sample_uniform(uniform_key, n), children)

    def propose(state: EvolutionState, key: Array, n: int) -> Array:
        children = functools.partial(draw, state.population)
        return archives.propose(state.archive, children, space, key, n, settings.candidates)

    def update(
        state: EvolutionState,
        decisions: Array,
        rewards: Array,
        key: Array,
        axis_name: str | None = None,
    ) -> tuple[EvolutionState, Info]:
        del key
        chex.assert_rank([decisions, rewards], [2, 1])
        scored = gather_over_devices((decisions, rewards), axis_name)
        state = EvolutionState(
            archives.write(state.population, *scored, field="population"),
            state.archive and archives.write(state.archive, *scored, field="archive"),
        )
        return state, {"reward": jnp.mean(scored[1])}

    return Strategy(
        init,
        lambda state, key, epoch: state,
        propose,
        update,
        lambda state, key: {},
        lambda state: None,
    )
