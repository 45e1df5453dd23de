"""The controller's update: one Adam step on both losses, arms as traced numbers, and where the memory comes from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas import objectives
from nas.config import Config, MemoryConfig, PolicyConfig, StrategyConfig
from nas.controllers import POLICIES
from nas.errors import UserError
from nas.spaces import RecurrentSpace
from nas.strategies import STRATEGIES

SPACE = RecurrentSpace(num_nodes=4)
POLICY = PolicyConfig(width=8, init_scale=0.5)
MEMORY = MemoryConfig(capacity=20, refresh_size=20, batch=16)


def make(policy=POLICY, memory=MEMORY, **settings):
    config = Config(nodes=4, policy=policy, memory=memory, strategy=StrategyConfig(**settings))
    made = POLICIES[policy.name](SPACE, policy)
    strategy = STRATEGIES[config.strategy.name](SPACE, made, config)
    return made, strategy


def begin(strategy, seed=0):
    return strategy.begin_epoch(strategy.init(jax.random.key(seed)), jax.random.key(99), jnp.int32(0))


def reward(decisions):
    """1 for every tanh."""
    return jnp.mean((SPACE.activations(decisions) == 0).astype(jnp.float32), axis=1)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("supervised", ["reconstruct", "next_decision"])
def test_update_is_one_adam_step_on_the_sum_of_both_losses(supervised):
    """Adam's first step is the sign of the gradient (but for epsilon); the gradient is that of L_PG + lambda L_Sup by hand."""
    policy, strategy = make(supervised=supervised, supervised_weight=0.7, entropy_weight=0.1, learning_rate=0.01)
    state = begin(strategy)
    decisions = strategy.propose(state, jax.random.key(1), 6)
    rewards = jax.random.normal(jax.random.key(2), (6,))
    from nas import memory

    remembered = memory.sample(state.memory, jax.random.key(3), MEMORY.batch)
    updated, info = strategy.update(state, decisions, rewards, jax.random.key(3))

    def loss(params):
        trace = policy.score(params["policy"], decisions)
        bonus = 0.1 * jnp.sum(trace.entropy, axis=1)
        advantage = jax.lax.stop_gradient(rewards + bonus - jnp.mean(rewards + bonus))
        policy_loss = -jnp.mean(advantage * jnp.sum(trace.log_prob, axis=1) + bonus)
        old = policy.score(params["policy"], remembered)
        if supervised == "next_decision":
            return policy_loss + 0.7 * -jnp.mean(old.log_prob[:, 1:])
        each = [
            objectives.reconstruction_loss(params["decoder"], e, d, jnp.asarray(SPACE.choice_mask()))
            for e, d in zip(old.hidden[:, -1], remembered, strict=True)
        ]
        return policy_loss + 0.7 * sum(each) / len(each)

    value, gradient = jax.value_and_grad(loss)(state.params)
    assert info["loss"] == pytest.approx(float(value), abs=1e-5)
    for before, after, g in zip(*map(jax.tree.leaves, (state.params, updated.params, gradient)), strict=True):
        clear = np.abs(g) > 1e-5
        np.testing.assert_allclose((after - before)[clear], -0.01 * np.sign(g)[clear], atol=2e-5)


def test_lambda_zero_is_policy_gradient_alone():
    _, with_memory = make(supervised_weight=0.0)
    state = begin(with_memory)
    decisions = with_memory.propose(state, jax.random.key(1), 4)
    updated, _ = with_memory.update(state, decisions, reward(decisions), jax.random.key(3))
    assert same(updated.params["decoder"], state.params["decoder"])
    other = state.replace(memory=state.memory.replace(decisions=jnp.zeros_like(state.memory.decisions)))
    assert same(with_memory.update(other, decisions, reward(decisions), jax.random.key(3))[0].params, updated.params)


def test_arms_share_one_compilation():
    _, strategy = make()
    state, traces = begin(strategy), []

    @jax.jit
    def update(state, decisions, rewards, key):
        traces.append(1)
        return strategy.update(state, decisions, rewards, key)

    decisions = strategy.propose(state, jax.random.key(1), 4)
    for weight, rate in ((0.0, 1e-3), (1.0, 1e-2), (0.3, 1e-4)):
        numbers = state.weights.replace(supervised=jnp.float32(weight), learning_rate=jnp.float32(rate))
        state, _ = update(state.replace(weights=numbers), decisions, reward(decisions), jax.random.key(int(1e4 * rate)))
    assert len(traces) == 1


def test_memory_is_drawn_from_old_parameters():
    policy, strategy = make(memory=dataclasses.replace(MEMORY, lag=2))
    state, keys = strategy.init(jax.random.key(0)), [jax.random.key(i) for i in range(4)]
    past = []
    for epoch, key in enumerate(keys):
        moved = policy.init(jax.random.key(10 + epoch))
        past.append(moved)
        state = strategy.begin_epoch(state.replace(params=state.params | {"policy": moved}), key, jnp.int32(epoch))
    expected = policy.sample(past[-2], jax.random.clone(keys[-1]), MEMORY.refresh_size)
    np.testing.assert_array_equal(state.memory.decisions, expected)
    assert not np.array_equal(expected, policy.sample(past[-1], jax.random.clone(keys[-1]), MEMORY.refresh_size))


@pytest.mark.parametrize(("period", "refreshed"), [(1, [1, 1, 1, 1]), (2, [1, 0, 1, 0]), (0, [1, 0, 0, 0])])
def test_refresh_period(period, refreshed):
    _, strategy = make(memory=dataclasses.replace(MEMORY, refresh_period=period))
    state = strategy.init(jax.random.key(0))
    for epoch, expected in enumerate(refreshed):
        before = state.memory.decisions
        state = strategy.begin_epoch(state, jax.random.key(epoch), jnp.int32(epoch))
        assert (not np.array_equal(before, state.memory.decisions)) == bool(expected)


def test_without_the_gradient_through_sampling_current_samples_teach_nothing():
    """E[grad -log p] is zero; with the score-function term the gradient is that of the entropy."""
    gradients = {}
    for source in ("current", "current_with_gradient"):
        memory = dataclasses.replace(MEMORY, source=source, batch=20_000)
        policy, strategy = make(
            PolicyConfig(name="factorised"), memory, supervised="next_decision", supervised_weight=1.0, policy_weight=0.0
        )
        state = begin(strategy)
        wave = jnp.cos(jnp.arange(7 * 4, dtype=jnp.float32)).reshape(7, 4) * 3
        state = state.replace(params=state.params | {"policy": {"logits": wave}})
        decisions = policy.sample(state.params["policy"], jax.random.key(5), 2)
        _, info = jax.jit(strategy.update)(state, decisions, reward(decisions), jax.random.key(6))
        gradients[source] = float(info["gradient_norm"])
    entropy = jax.grad(lambda p: jnp.sum(policy.score(p, decisions[:1]).entropy[0, 1:]) / 6)(state.params["policy"])
    size = float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(entropy))))
    assert gradients["current"] < 0.15 * size
    assert gradients["current_with_gradient"] == pytest.approx(size, rel=0.15)


def test_policy_gradient_raises_the_reward_and_memory_lowers_its_loss():
    _, strategy = make(supervised_weight=1.0, learning_rate=0.02)
    state = begin(strategy)

    @jax.jit
    def step(state, key):
        one, two = jax.random.split(key)
        decisions = strategy.propose(state, one, 8)
        return strategy.update(state, decisions, reward(decisions), two)

    state, first = step(state, jax.random.key(0))
    for i in range(1, 150):
        state, last = step(state, jax.random.key(i))
    assert last["reward"] > first["reward"] + 0.3
    assert last["supervised_loss"] < 0.5 * first["supervised_loss"]


def test_an_update_that_is_not_finite_is_dropped_and_counted():
    _, strategy = make(supervised_weight=1.0)
    state = begin(strategy)
    decisions = strategy.propose(state, jax.random.key(1), 4)
    updated, info = strategy.update(state, decisions, jnp.array([1.0, jnp.nan, 1.0, 1.0]), jax.random.key(2))
    assert info["skipped"] == 1 and info["baseline"] == state.baseline.value
    assert same(updated, state)


def test_nothing_to_reconstruct_from():
    with pytest.raises(UserError, match="factorised has no hidden state"):
        make(PolicyConfig(name="factorised"), supervised_weight=1.0)
