"""Regularised evolution: who dies, who wins, what a mutation changes, and that it climbs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from nas.errors import UserError
from nas.spaces.nasbench201 import NASBench201Space
from nas.spaces.recurrent import RecurrentSpace
from nas.strategies.evolution import EvolutionSettings
from nas.strategies.evolution import evolution as make_evolution

SPACE = NASBench201Space()


@functools.cache
def evolution(space, population, tournament, **others):
    """The strategy, its functions compiled."""
    made = make_evolution(space, EvolutionSettings(population, tournament, **others))
    return made._replace(
        init=jax.jit(made.init),
        propose=jax.jit(made.propose, static_argnums=2),
        update=jax.jit(made.update, static_argnums=4),
    )


def start(strategy):
    return strategy.init(jax.random.key(0))


def scored(strategy, state, decisions, rewards):
    decisions, rewards = np.asarray(decisions, np.int32), np.asarray(rewards, np.float32)
    return strategy.update(state, decisions, rewards, jax.random.key(1))


def filled(strategy, decisions, rewards):
    """A population of these architectures."""
    return scored(strategy, start(strategy), decisions, rewards)[0]


def row(value):
    return [value] * 6


def test_proposals_are_uniform_until_the_population_is_full():
    strategy = evolution(SPACE, 4, 2)
    state = filled(strategy, [row(0)] * 3, [9, 9, 9])
    proposed = np.asarray(strategy.propose(state, jax.random.key(0), 2000))
    for column in proposed.T:
        assert chisquare(np.bincount(column, minlength=5)).pvalue > 1e-5
    state, info = scored(strategy, state, [row(0)], [1])
    assert float(info["reward"]) == 1
    assert np.all(
        (np.asarray(strategy.propose(state, jax.random.key(0), 2000)) != 0).sum(axis=1) == 1
    )


def test_the_oldest_die_however_good():
    strategy = evolution(SPACE, 4, 1)
    state = filled(strategy, [row(0), row(1), row(2), row(3)], [99, 1, 2, 3])
    state, _ = scored(strategy, state, [row(4), row(0)], [4, 5])
    alive = sorted(
        zip(
            np.asarray(state.population.decisions)[:, 0].tolist(),
            np.asarray(state.population.rewards).tolist(),
            strict=True,
        )
    )
    assert alive == [(0, 5), (2, 2), (3, 3), (4, 4)]
    state, _ = scored(strategy, state, [row(1)] * 3, [6, 7, 8])
    assert sorted(np.asarray(state.population.rewards).tolist()) == [5, 6, 7, 8]
    assert int(state.population.scored) == 9


def test_a_mutation_changes_one_decision_to_any_other_choice():
    strategy = evolution(SPACE, 1, 1)
    parent = np.array([0, 1, 2, 3, 4, 0], np.int32)
    children = np.asarray(
        strategy.propose(filled(strategy, [parent], [1]), jax.random.key(3), 6000)
    )
    changed = children != parent
    assert np.all(changed.sum(axis=1) == 1)
    counts = [
        np.sum(changed[:, t] & (children[:, t] == choice))
        for t in range(6)
        for choice in range(5)
        if choice != parent[t]
    ]
    assert len(counts) == 24 and chisquare(counts).pvalue > 1e-5


def test_decisions_without_a_choice_are_not_mutated():
    space = RecurrentSpace(num_nodes=3)  # choices 4, 1, 4, 2, 4
    strategy = evolution(space, 1, 1)
    children = np.asarray(
        strategy.propose(filled(strategy, [[0] * 5], [1]), jax.random.key(3), 400)
    )
    np.testing.assert_array_equal(space.validate(children), children)
    assert np.all((children != 0).sum(axis=1) == 1)


@pytest.mark.parametrize("tournament", [1, 3])
def test_winners_of_tournaments_by_hand(tournament):
    strategy = evolution(SPACE, 4, tournament)
    state = filled(strategy, [row(0), row(1), row(2), row(3)], [1, 4, 3, 2])
    children = np.asarray(strategy.propose(state, jax.random.key(5), 8000))
    parents = np.sort(children, axis=1)[:, 2]  # five of six decisions are the parent's
    best_first = [1, 2, 3, 0]
    # The k best of four are all that S draws with replacement saw with probability (k / 4)^S, so
    # the k-th best wins with ...
    shares = np.array([((4 - k) / 4) ** tournament - ((3 - k) / 4) ** tournament for k in range(4)])
    assert chisquare(np.bincount(parents, minlength=4)[best_first], 8000 * shares).pvalue > 1e-5


def test_climbs_to_the_best_of_a_smooth_landscape():
    strategy = evolution(SPACE, 50, 25)
    target = jnp.array([4, 3, 2, 1, 0, 4])

    def step(state, key):
        decisions = strategy.propose(state, key, 4)
        rewards = jnp.sum(decisions == target[None], axis=1).astype(jnp.float32)
        return strategy.update(state, decisions, rewards, key)[0], rewards

    keys = jax.random.split(jax.random.key(0), 200)
    _, rewards = jax.jit(lambda state: jax.lax.scan(step, state, keys))(start(strategy))
    assert rewards[:12].mean() == pytest.approx(6 / 5, abs=0.6)  # uniform
    assert rewards[-50:].mean() > 3
    assert rewards.max() == 6  # one in 15,625: 800 uniform proposals find it in one run of twenty


def test_devices_share_one_population():
    strategy = evolution(SPACE, 8, 2)
    decisions = (
        np.arange(16, dtype=np.int32).reshape(2, 8, 1)[:, :4] % 5 * np.ones((1, 1, 6), np.int32)
    )
    rewards = np.arange(8, dtype=np.float32).reshape(2, 4)
    update = jax.pmap(
        lambda d, r: strategy.update(start(strategy), d, r, jax.random.key(1), "devices"),
        axis_name="devices",
    )
    state, info = update(decisions, rewards)
    single = filled(strategy, decisions.reshape(8, 6), rewards.ravel())
    for device in range(2):
        assert jax.tree.all(
            jax.tree.map(lambda a, b, d=device: np.array_equal(a[d], b), state, single)
        )
        assert info["reward"][device] == 3.5


def test_a_reward_that_is_not_finite_loses():
    strategy = evolution(SPACE, 4, 50)
    state = filled(strategy, [row(0), row(1), row(2), row(3)], [np.nan, -5, np.inf, -9])
    children = np.asarray(strategy.propose(state, jax.random.key(0), 200))
    assert np.all((children != 1).sum(axis=1) == 1)


def test_more_than_the_population_holds():
    with pytest.raises(
        UserError, match="^config field strategy.population: must be at least the 5 architectures"
    ):
        filled(evolution(SPACE, 4, 2), [row(0)] * 5, range(5))


def test_with_an_archive_what_was_scored_is_not_proposed_again():
    """The neighbours of one parent are 24: 23 are scored, and the last is all that is proposed."""
    strategy = evolution(SPACE, 1, 1, archive=24, candidates=200)
    neighbours = np.asarray(SPACE.neighbours(jnp.array(row(2))))
    state = filled(strategy, neighbours[:1], [0])
    for one in (*neighbours[1:23], row(2)):  # the parent last: it alone is alive
        state, _ = scored(strategy, state, [one], [1])
    for seed in range(3):
        found = strategy.propose(state, jax.random.key(seed), 1)
        np.testing.assert_array_equal(found, neighbours[23:])


def test_more_than_the_archive_holds():
    with pytest.raises(UserError, match="^config field strategy.archive: must be at least the 5 a"):
        filled(evolution(SPACE, 8, 2, archive=4), [row(0)] * 5, range(5))
