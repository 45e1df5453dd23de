"""What every registered strategy promises the search loop, with every policy."""

import functools

import jax
import numpy as np
import pytest

from nas.controllers import POLICIES
from nas.spaces.recurrent import RecurrentSpace
from nas.strategies import STRATEGIES
from tests.helpers import policy_of, strategy_of

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=3)
ARCHITECTURES = 40


@functools.cache
def made(name, policy):
    """A strategy with its functions compiled, and the list to which every tracing of one is
    added.
    """
    strategy = strategy_of(
        name,
        SPACE,
        policy_of(policy, SPACE, width=4),
        supervised="next_decision",
        supervised_weight=1.0,
        memory={"capacity": 8, "refresh_size": 4, "batch": 5},
    )
    traces = []

    def counted(function):
        def traced(*arguments):
            traces.append(function)
            return function(*arguments)

        return traced

    strategy = strategy._replace(
        init=jax.jit(strategy.init),
        begin_epoch=jax.jit(counted(strategy.begin_epoch)),
        propose=jax.jit(counted(strategy.propose), static_argnums=2),
        update=jax.jit(counted(strategy.update)),
    )
    return strategy, traces


@pytest.fixture(params=[(name, policy) for name in STRATEGIES for policy in POLICIES], ids="-".join)
def strategies(request):
    return made(*request.param)


def kinds(tree):
    """Structure, and shape and type of every leaf: what a compiled function is chosen by."""
    return jax.tree.structure(tree), [
        (leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)
    ]


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def rewards_of(decisions):
    return (np.asarray(decisions)[:, 0] == 1).astype(np.float32)


def test_proposals_are_valid_and_depend_on_the_key_alone(strategies):
    strategy, _ = strategies
    state = strategy.init(jax.random.key(0))
    decisions = strategy.propose(state, jax.random.key(1), ARCHITECTURES)
    assert decisions.shape == (ARCHITECTURES, SPACE.num_decisions) and decisions.dtype == np.int32
    np.testing.assert_array_equal(SPACE.validate(decisions), decisions)
    np.testing.assert_array_equal(
        strategy.propose(state, jax.random.key(1), ARCHITECTURES), decisions
    )
    assert not np.array_equal(strategy.propose(state, jax.random.key(2), ARCHITECTURES), decisions)


def test_states_keep_their_form_and_nothing_is_traced_again(strategies):
    strategy, traces = strategies
    state = strategy.init(jax.random.key(0))
    form, logged = kinds(state), set()
    for epoch in range(3):
        state = strategy.begin_epoch(state, jax.random.key(10 + epoch), np.int32(epoch))
        assert kinds(state) == form
        for step in range(2):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(20 + epoch), step))
            decisions = strategy.propose(state, keys[0], ARCHITECTURES)
            before = state
            state, info = strategy.update(state, decisions, rewards_of(decisions), keys[1])
            assert kinds(state) == form and not equal(before, state)
            assert all(value.shape == () and np.isfinite(value) for value in info.values())
            logged.add(frozenset(info))
    assert len(logged) == 1
    assert len(traces) == len(set(traces)) <= 3


def test_updates_depend_on_their_arguments_alone(strategies):
    strategy, _ = strategies
    state = strategy.begin_epoch(strategy.init(jax.random.key(0)), jax.random.key(1), np.int32(0))
    decisions = strategy.propose(state, jax.random.key(2), ARCHITECTURES)
    once, again = (
        strategy.update(state, decisions, rewards_of(decisions), jax.random.key(3))
        for _ in range(2)
    )
    assert equal(once, again)
    assert equal(strategy.init(jax.random.key(0)), strategy.init(jax.random.key(0)))
