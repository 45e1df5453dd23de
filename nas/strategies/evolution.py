"""Regularised evolution (Real et al. 2019, algorithm 1): the youngest P architectures, of which the
oldest die.

Until P architectures were scored, proposals are uniform. Then each is the best of S drawn from the
population with replacement, with one decision changed; those proposed together have their parents
in the same population.
"""

import dataclasses

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from nas.config import check
from nas.errors import UserError
from nas.parallel import gather_over_devices
from nas.spaces import SearchSpace
from nas.types import Array, Info, Strategy


@dataclasses.dataclass(frozen=True)
class EvolutionSettings:
    """The sizes are those of Real et al. (2019).

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    population: int = 100  # P, the youngest architectures, which are alive
    tournament: int = 25  # S, drawn from them, the best of which is a parent

    def __post_init__(self):
        for name in ("population", "tournament"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))


@flax.struct.dataclass
class Population:
    """A ring of the youngest architectures."""

    decisions: Array  # [P, T] int32
    rewards: Array  # [P] float32
    born: Array  # [] int32; architectures scored so far


def evolution(space: SearchSpace, settings: EvolutionSettings) -> Strategy:
    """The strategy.

    A reward that is not finite loses to every other.

    Raises:
      UserError: more architectures are scored at once, on all devices, than the population holds
        (when `update` is traced).
    """
    population, tournament = settings.population, settings.tournament
    changeable = np.flatnonzero(np.array(space.num_choices) > 1).astype(np.int32)

    def init(key: Array) -> Population:
        del key
        return Population(
            jnp.zeros((population, space.num_decisions), jnp.int32),
            jnp.zeros(population, jnp.float32),
            jnp.int32(0),
        )

    def propose(state: Population, key: Array, n: int) -> Array:
        uniform_key, tournament_key, mutation_key = jax.random.split(key, 3)
        rows = jax.random.randint(tournament_key, (n, tournament), 0, population)
        winners = jnp.take_along_axis(
            rows, jnp.argmax(state.rewards[rows], axis=1)[:, None], axis=1
        )[:, 0]
        children = mutate(mutation_key, state.decisions[winners])
        return jnp.where(state.born < population, space.sample_uniform(uniform_key, n), children)

    def mutate(key: Array, parents: Array) -> Array:
        """Another choice at one position of each parent [n, T]."""
        position_key, step_key = jax.random.split(key)
        positions = jax.random.choice(position_key, jnp.asarray(changeable), (len(parents),))
        choices = jnp.array(space.num_choices, jnp.int32)[positions]
        steps = jax.random.randint(step_key, positions.shape, 1, choices)
        rows = jnp.arange(len(parents))
        return parents.at[rows, positions].set((parents[rows, positions] + steps) % choices)

    def update(
        state: Population,
        decisions: Array,
        rewards: Array,
        key: Array,
        axis_name: str | None = None,
    ) -> tuple[Population, Info]:
        del key
        chex.assert_rank([decisions, rewards], [2, 1])
        decisions, rewards = gather_over_devices((decisions, rewards), axis_name)
        if len(rewards) > population:
            raise UserError(
                f"config field strategy.population: must be at least the {len(rewards)} "
                "architectures scored at once, "
                f"got {population}"
            )
        ranked = jnp.where(jnp.isfinite(rewards), rewards, -jnp.inf)
        rows = (state.born + jnp.arange(len(rewards), dtype=jnp.int32)) % population
        state = Population(
            state.decisions.at[rows].set(decisions),
            state.rewards.at[rows].set(ranked),
            state.born + len(rewards),
        )
        return state, {"reward": jnp.mean(rewards)}

    return Strategy(
        init,
        lambda state, key, epoch: state,
        propose,
        update,
        lambda state, key: {},
        lambda state: None,
    )
