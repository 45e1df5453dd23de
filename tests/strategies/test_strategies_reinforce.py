"""One optimiser step on L = L_PG + lambda * L_Sup: written out by hand, and what many steps lead to."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nas import memory as memories
from nas.config import Config, from_dict
from nas.controllers import POLICIES
from nas.errors import UserError
from nas.spaces import RecurrentSpace
from nas.strategies import reinforce
from nas.types import Policy, Strategy

SPACE = RecurrentSpace(num_nodes=3)
MASK = SPACE.choice_mask()
DECISIONS = np.array([[0, 0, 1, 0, 2], [3, 0, 1, 1, 0], [0, 0, 0, 1, 3]], np.int32)
REWARDS = np.array([1.0, -0.5, 2.0], np.float32)


class Arm(NamedTuple):
    """A strategy with its functions compiled; `traces` grows when `update` is traced."""

    config: Config
    policy: Policy
    strategy: Strategy
    update: Callable
    traces: list

    def start(self, memory=((2, 0, 3, 1, 1),), seed=0) -> Any:
        """A state away from where it starts, whose memory holds these vectors."""
        state = self.strategy.init(jax.random.key(seed))
        rng = np.random.default_rng(seed)
        params = jax.tree.map(lambda leaf: leaf + 0.5 * rng.normal(size=leaf.shape).astype(np.float32), state.params)
        return state.replace(params=params, memory=memories.write(state.memory, jnp.array(memory, jnp.int32)))


@functools.cache
def arm(policy="lstm", supervised="reconstruct", source="uniform", **strategy):
    config = from_dict(
        {
            "policy": {"name": policy, "width": 6},
            "memory": {"capacity": 8, "refresh_size": 8, "batch": 4, "source": source},
            "strategy": {"supervised": supervised, "supervised_weight": 0.7, "entropy_weight": 0.3, "baseline_decay": 0.8}
            | {"learning_rate": 0.01}
            | strategy,
        }
    )
    made, traces = POLICIES[policy](SPACE, config.policy), []
    strategy = reinforce(SPACE, made, config)

    def update(*arguments):
        traces.append(None)
        return strategy.update(*arguments)

    return Arm(config, made, strategy, jax.jit(update), traces)


def moments(state):
    """Adam's averages of the gradients and of their squares."""
    return (jax.tree.map(np.asarray, optax.tree.get(state.optimiser, name)) for name in ("mu", "nu"))


def assert_close(found, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)


def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


def written_out(arm, params, decisions, rewards, baseline, remembered):
    """The two losses as their equations say, for sequences that are all in one array; and R + w H of the architectures."""
    w = arm.config.strategy.entropy_weight
    trace = arm.policy.score(params["policy"], decisions)
    entropies = trace.entropy.sum(axis=1)
    totals = rewards + w * jax.lax.stop_gradient(entropies)
    advantages = totals - (totals.mean() if baseline is None else baseline)
    policy_loss = -(advantages * trace.log_prob.sum(axis=1) + w * entropies).mean()
    trace = arm.policy.score(params["policy"], remembered)
    if arm.config.strategy.supervised == "next_decision":
        return policy_loss, -trace.log_prob[:, 1:].mean(), totals
    decoder, nats = params["decoder"], jnp.float32(0)
    for t, choices in enumerate(SPACE.num_choices):
        logits = trace.hidden[:, -1] @ decoder["weight"][t, :, :choices] + decoder["bias"][None, t, :choices]
        decided = remembered[:, t, None] == np.arange(choices, dtype=np.int32)[None]
        nats += (jax.scipy.special.logsumexp(logits, axis=1) - jnp.sum(jnp.where(decided, logits, 0.0), axis=1)).mean()
    return policy_loss, nats / SPACE.num_decisions, totals


# One step.


@pytest.mark.parametrize(
    ("policy", "supervised"), [("lstm", "reconstruct"), ("lstm", "next_decision"), ("factorised", "next_decision")]
)
def test_updates_are_adam_steps_on_the_sum_of_the_losses(policy, supervised):
    """All rows of the memory are the same, so that what is drawn from it is known."""
    made = arm(policy, supervised)
    state, baseline = made.start(), None
    remembered = np.array([[2, 0, 3, 1, 1]] * 4, np.int32)
    mu, nu = moments(state)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, rewards, baseline):
        policy_loss, supervised_loss, totals = written_out(made, params, DECISIONS, rewards, baseline, remembered)
        return policy_loss + 0.7 * supervised_loss, (policy_loss, supervised_loss, totals)

    for step in range(1, 4):
        rewards = REWARDS * step
        (value, (policy_loss, supervised_loss, totals)), gradient = loss(state.params, rewards, baseline)
        after, info = made.update(state, DECISIONS, rewards, jax.random.key(step))

        mean = float(totals.mean())
        baseline = mean if baseline is None else 0.8 * baseline + 0.2 * mean
        norm = math.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
        assert norm < made.config.strategy.clip  # longer gradients are another test's
        for name, expected in [
            ("loss", value),
            ("policy_loss", policy_loss),
            ("supervised_loss", supervised_loss),
            ("reward", rewards.mean()),
            ("baseline", baseline),
            ("gradient_norm", norm),
            ("skipped", 0),
        ]:
            np.testing.assert_allclose(info[name], expected, rtol=1e-4, err_msg=name)
        assert info["entropy"] == pytest.approx((mean - rewards.mean()) / 0.3, rel=1e-4)

        mu, nu = (
            jax.tree.map(lambda m, g, b=decay, p=power: b * m + (1 - b) * np.asarray(g) ** p, average, gradient)
            for average, decay, power in [(mu, 0.9, 1), (nu, 0.999, 2)]
        )
        for found, expected in zip(moments(after), (mu, nu), strict=True):
            assert_close(found, expected, rtol=1e-3, atol=1e-7)
        # From the moments found: where a gradient is all but zero, its sign is rounding.
        moved = jax.tree.map(
            lambda p, m, v, s=step: p - 0.01 * (m / (1 - 0.9**s)) / (np.sqrt(v / (1 - 0.999**s)) + 1e-8),
            state.params,
            *moments(after),
        )
        assert_close(after.params, moved, atol=1e-6)
        assert np.array_equal(after.memory.decisions, state.memory.decisions)
        state = after


def test_without_supervised_weight_the_memory_does_not_matter():
    made, other = arm(supervised_weight=0.0), arm(supervised="next_decision", supervised_weight=0.0)
    state = made.start()
    states = [state, made.start(memory=[(0, 0, 0, 0, 0)]), state]
    for step in range(3):
        key = jax.random.key(step)
        states = [
            a.update(s, DECISIONS, REWARDS, jax.random.clone(key))[0] for a, s in zip([made, made, other], states, strict=True)
        ]
        gradient = jax.grad(lambda p: written_out(made, p, DECISIONS, REWARDS, None, DECISIONS)[0])(state.params)
        if step == 0:  # the moments are those of L_PG alone
            assert_close(next(moments(states[0])), jax.tree.map(lambda g: 0.1 * g, gradient), rtol=1e-3, atol=1e-7)
    for s in states:
        assert_close(s.params["policy"], states[0].params["policy"], rtol=1e-6, atol=1e-7)
        assert_close(s.params["decoder"], state.params["decoder"], rtol=0)  # not moved at all
    assert largest(jax.tree.map(lambda a, b: a - b, states[0].params["policy"], state.params["policy"])) > 0.01


def test_without_policy_weight_rewards_do_not_matter():
    made = arm(policy_weight=0.0)
    state = made.start()
    one, other = (made.update(state, DECISIONS, r, jax.random.key(0))[0] for r in (REWARDS, -3 * REWARDS))
    assert_close(one.params, other.params, rtol=0)
    assert largest(jax.tree.map(lambda a, b: a - b, one.params, state.params)) > 0.001


def test_arms_that_differ_by_a_number_share_one_compilation():
    made = arm()
    state = made.start()
    weights = state.weights
    plain, info = made.update(state, DECISIONS, REWARDS, jax.random.key(0))
    traced = len(made.traces)

    def varied(**numbers):
        numbers = {name: jnp.float32(value) for name, value in numbers.items()}
        return made.update(state.replace(weights=weights.replace(**numbers)), DECISIONS, REWARDS, jax.random.key(0))

    alone, of_policy = varied(supervised=0)
    assert of_policy["loss"] == of_policy["policy_loss"] != info["loss"]
    assert info["loss"] == pytest.approx(float(info["policy_loss"] + 0.7 * info["supervised_loss"]), rel=1e-5)

    faster, _ = varied(learning_rate=0.02)
    for half, whole, start in zip(*(jax.tree.leaves(s.params) for s in (plain, faster, state)), strict=True):
        np.testing.assert_allclose(np.asarray(whole) - start, 2 * (np.asarray(half) - start), atol=1e-6)

    # The first baseline is the mean itself: of the entropy weight there remain deviations of H times log p, and H.
    score = made.policy.score(state.params["policy"], DECISIONS)
    entropies, log_p = (np.asarray(x, np.float64).sum(axis=1) for x in (score.entropy, score.log_prob))
    change = -np.mean((entropies - entropies.mean()) * log_p + entropies)
    assert varied(entropy=1.3)[1]["policy_loss"] - info["policy_loss"] == pytest.approx(change, rel=1e-4)
    assert len(made.traces) == traced
    assert largest(jax.tree.map(lambda a, b: a - b, alone.params["decoder"], state.params["decoder"])) == 0


def test_a_gradient_that_is_too_long_is_shortened():
    made = arm(clip=0.5)
    state, info = made.update(made.start(), DECISIONS, REWARDS * 100, jax.random.key(0))
    assert info["gradient_norm"] > 10  # what is logged is not clipped
    mu, _ = moments(state)  # a tenth of the first gradient
    assert optax.global_norm(mu) == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_an_update_that_is_not_finite_is_dropped_and_counted():
    made = arm()
    state, _ = made.update(made.start(), DECISIONS, REWARDS, jax.random.key(0))
    for bad in (np.nan, np.inf):
        after, info = made.update(state, DECISIONS, np.array([1, bad, 1], np.float32), jax.random.key(1))
        assert info["skipped"] == 1
        assert_close(after, state, rtol=0)
    assert made.update(state, DECISIONS, REWARDS, jax.random.key(1))[1]["skipped"] == 0


@pytest.mark.parametrize("policy", ["factorised", "uniform"])
def test_what_has_no_hidden_state_cannot_be_reconstructed_from(policy):
    with pytest.raises(UserError, match="^config field strategy.supervised: .*next_decision"):
        arm(policy)
    made = arm(policy, supervised_weight=0.0)  # nothing to reconstruct, nothing to reconstruct from
    assert made.update(made.start(), DECISIONS, REWARDS, jax.random.key(0))[1]["supervised_loss"] == 0


# Many steps.


def train(made, state, reward, steps, architectures=8):
    """State after so many updates, and what they logged, stacked."""

    @jax.jit
    def run(state):
        def step(state, key):
            propose, update = jax.random.split(key)
            decisions = made.strategy.propose(state, propose, architectures)
            return made.strategy.update(state, decisions, reward(decisions), update)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(5), steps))

    return run(state)


@pytest.mark.parametrize("policy", ["lstm", "factorised"])
def test_policy_gradient_finds_what_is_rewarded(policy):
    """The reward is the share of ReLUs: 1/4 at first, at most .98 for choices that the squashing leaves uncertain."""
    made = arm(policy, supervised_weight=0.0, entropy_weight=0.0, learning_rate=0.05)
    _, logged = train(
        made,
        made.strategy.init(jax.random.key(0)).replace(memory=made.start().memory),
        lambda decisions: jnp.mean((SPACE.activations(decisions) == 1).astype(jnp.float32), axis=1),
        200,
    )
    assert np.mean(logged["reward"][:10]) == pytest.approx(1 / 4, abs=0.15)
    assert np.mean(logged["reward"][-20:]) > 0.9


def test_entropy_bonus_alone_makes_a_policy_uniform():
    made = arm(supervised_weight=0.0, entropy_weight=1.0, learning_rate=0.05)
    state, logged = train(made, made.start(), lambda decisions: jnp.zeros(len(decisions)), 200)
    most = math.log(math.prod(SPACE.num_choices))
    assert np.mean(logged["entropy"][:5]) < most - 0.2
    assert np.mean(logged["entropy"][-20:]) == pytest.approx(most, abs=0.05)


# Nowhere the same: given the first decision the rest is certain, without it a coin is tossed at three of four positions.
OPPOSITE = [(0, 0, 1, 0, 2), (3, 0, 2, 1, 0)]


@pytest.mark.parametrize(("policy", "least", "most"), [("lstm", 0, 0.08), ("factorised", 3 / 4 * math.log(2), 0.6)])
def test_next_decision_loss_makes_a_controller_condition_on_its_past(policy, least, most):
    """A fixed memory is learned by heart, by what can: a factorised policy is left with its positions' own entropies."""
    made = arm(policy, "next_decision", policy_weight=0.0, supervised_weight=1.0, learning_rate=0.03)
    state = made.strategy.init(jax.random.key(0))
    state = state.replace(memory=memories.write(state.memory, jnp.array(OPPOSITE, jnp.int32)))
    state, logged = train(made, state, lambda decisions: jnp.zeros(len(decisions)), 250)
    # Before: ln 4, 0, ln 2 and ln 4 of the first decision on, the controller's almost.
    assert logged["supervised_loss"][0] == pytest.approx((2 * math.log(4) + math.log(2)) / 4, abs=0.02)
    log_prob = made.policy.score(state.params["policy"], np.array(OPPOSITE, np.int32)).log_prob
    assert least <= -np.mean(log_prob[:, 1:]) + 1e-3 < most


def test_reconstruction_loss_makes_the_last_state_tell_decisions_apart():
    made = arm(policy_weight=0.0, supervised_weight=1.0, learning_rate=0.03)
    state = made.strategy.init(jax.random.key(0))
    memory = np.array([*OPPOSITE, (0, 0, 2, 1, 3), (1, 0, 0, 0, 1)], np.int32)
    state = state.replace(memory=memories.write(state.memory, jnp.asarray(memory)))
    state, logged = train(made, state, lambda decisions: jnp.zeros(len(decisions)), 250)
    assert logged["supervised_loss"][0] == pytest.approx((3 * math.log(4) + math.log(2)) / 5, abs=0.1)
    assert logged["supervised_loss"][-1] < 0.05
    embedding = made.policy.score(state.params["policy"], memory).embedding()
    logits = jnp.einsum("nh,thk->ntk", embedding, state.params["decoder"]["weight"]) + state.params["decoder"]["bias"][None]
    np.testing.assert_array_equal(np.argmax(np.where(MASK, logits, -np.inf), axis=2), memory)
