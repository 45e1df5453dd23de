"""A policy with an archive: nothing is paid for twice, the memory holds the best, mutations are of
it.
"""

import functools

import jax
import numpy as np
import pytest

from nas.memory import MemorySettings
from nas.spaces.recurrent import RecurrentSpace
from nas.strategies import reinforce
from nas.strategies.reinforce import ReinforceSettings
from tests.helpers import policy_of

SPACE = RecurrentSpace(num_nodes=3)
EVERY = np.indices(SPACE.num_choices, np.int32).reshape(SPACE.num_decisions, -1).T  # 128


@functools.cache
def strategy(policy="factorised", source="best", capacity=3, **settings):
    """The strategy, its functions compiled."""
    memory = MemorySettings(source, capacity=capacity, refresh_size=1, batch=50)
    settings = {"supervised": "likelihood", "archive": 100, "candidates": 20} | settings
    config = ReinforceSettings(memory=memory, **settings)
    made = reinforce(SPACE, policy_of(policy, SPACE, width=4), config)
    return made._replace(
        init=jax.jit(made.init),
        begin_epoch=jax.jit(made.begin_epoch),
        propose=jax.jit(made.propose, static_argnums=2),
        update=jax.jit(made.update, static_argnums=4),
    )


def scored(made, rows, rewards, state=None):
    """The state after some rows of EVERY were scored together."""
    state = made.init(jax.random.key(0)) if state is None else state
    return made.update(state, EVERY[rows], np.array(rewards, np.float32), jax.random.key(1))[0]


def row_of(decisions):
    return np.ravel_multi_index(np.asarray(decisions).T, SPACE.num_choices).tolist()


@pytest.mark.parametrize("policy", ["lstm", "uniform"])
def test_what_was_scored_is_not_proposed_again(policy):
    made, seen = strategy(policy), []
    state = made.init(jax.random.key(0))
    for step in range(10):
        rows = row_of(made.propose(state, jax.random.key(step), 10))
        seen += rows
        state = scored(made, rows, np.zeros(10), state)
    assert len(set(seen)) == 100
    # The archive forgets what was scored 100 queries ago, and that alone.
    state = scored(made, [row for row in range(128) if row not in seen][:20], np.zeros(20), state)
    drawn = {
        row for step in range(20) for row in row_of(made.propose(state, jax.random.key(step), 8))
    }
    assert drawn & set(seen[:20]) and not drawn & set(seen[20:])


def test_the_memory_holds_the_best_of_what_was_scored():
    made = strategy()
    state = scored(made, [3, 70], [0.5, 0.1])
    assert int(state.memory.size) == 2
    state = scored(made, [9, 44, 100], [0.2, np.nan, 0.9], state)
    assert row_of(state.memory.decisions) == [100, 3, 9] and int(state.memory.size) == 3
    later = made.begin_epoch(state, jax.random.key(0), np.int32(0))  # no refresh of other sources
    np.testing.assert_array_equal(later.memory.decisions, state.memory.decisions)


@pytest.mark.parametrize("policy", ["lstm", "factorised"])
def test_the_likelihood_of_the_best_is_raised_of_the_first_decision_too(policy):
    """Without rewards, from the best one alone: all that is left to chance is the squashing."""
    made = strategy(
        policy,
        capacity=1,
        supervised_weight=1.0,
        policy_weight=0.0,
        entropy_weight=0.0,
        learning_rate=0.1,
    )
    state = scored(made, [5, 77, 20], [0.5, 0.9, 0.1])
    for _ in range(100):
        state = scored(made, [5], [0.5], state)
    trace = policy_of(policy, SPACE, width=4).score(made.policy_params(state), EVERY[[77]])
    assert np.all(np.asarray(trace.log_prob) > np.log(0.9))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_share_of_the_proposals_are_mutations_of_a_memory_that_is_full(share):
    made = strategy("uniform", mutations=share, archive=3, candidates=1)
    rows = np.ravel_multi_index(
        np.array([[0] * 5, [1, 0, 1, 0, 1], [3, 0, 3, 1, 3]]).T, (4, 1, 4, 2, 4)
    )

    def near(state):
        """The share of proposals that differ in one decision from a row of the memory."""
        found = [made.propose(state, jax.random.key(seed), 1)[0] for seed in range(500)]
        changed = np.array(found)[:, None] != EVERY[rows][None]
        return (changed.sum(axis=2) == 1).any(axis=1).mean()

    state = scored(made, rows[:2], [0.5, 0.4])
    # A row has 3 + 3 + 1 + 3 neighbours; of 126 that are left, 30 are one of some row.
    deviation = np.sqrt(1 / 4 / 500)
    assert near(state) == pytest.approx(30 / 126, abs=4 * deviation)
    state = scored(made, rows[2:], [0.6], state)
    expected = share + (1 - share) * 30 / 125
    assert near(state) == pytest.approx(expected, abs=4 * deviation if share < 1 else 0)


def test_devices_share_one_archive():
    made = strategy("uniform")
    start = made.init(jax.random.key(0))
    rows = np.array([[3, 70], [9, 44]])
    rewards = np.array([[0.1, 0.2], [0.4, 0.3]], np.float32)
    update = jax.pmap(
        lambda d, r: made.update(start, d, r, jax.random.key(1), "devices")[0],
        axis_name="devices",
    )
    state = update(EVERY[rows], rewards)
    for device in range(2):
        assert row_of(state.memory.decisions[device]) == [9, 44, 70]
