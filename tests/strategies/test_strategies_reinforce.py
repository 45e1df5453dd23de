"""One optimiser step on L = L_PG + lambda * L_Sup: written out by hand, and what many steps lead
to.
"""

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
from nas.errors import UserError
from nas.memory import MemorySettings
from nas.spaces.macro import MacroSpace
from nas.spaces.recurrent import RecurrentSpace
from nas.strategies import reinforce
from nas.strategies.reinforce import ReinforceSettings
from nas.types import Policy
from tests.helpers import policy_of

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=3)
EVERY = np.indices(SPACE.num_choices, np.int32).reshape(SPACE.num_decisions, -1).T
DECISIONS = EVERY[[5, 17, 40, 41, 66, 90, 101, 127]]
REWARDS = np.array([1, -0.5, 2, 0, 0.25, -1, 0.5, 1.5], np.float32)


write = jax.jit(memories.write)


class Arm(NamedTuple):
    """A strategy with its functions compiled; `traces` grows when `update` is traced."""

    config: ReinforceSettings
    policy: Policy
    init: Callable
    propose: Callable
    update: Callable
    traces: list

    def start(self, memory=((2, 0, 3, 1, 1),), scale=0.5, **weights) -> Any:
        """A state whose memory holds these vectors, `scale` away from where it starts, with other
        weights of the losses.
        """
        state = jax.tree.map(np.asarray, self.init(jax.random.key(0)))
        rng = np.random.default_rng(0)
        return state.replace(
            params=jax.tree.map(
                lambda leaf: (
                    leaf + np.float32(scale) * rng.normal(size=leaf.shape).astype(np.float32)
                ),
                state.params,
            ),
            memory=write(state.memory, np.array(memory, np.int32)),
            weights=state.weights.replace(
                **{name: np.float32(value) for name, value in weights.items()}
            ),
        )

    def train(self, state, reward, steps):
        """State after so many updates, and what they logged, stacked."""
        logged = []
        for propose, update in jax.random.split(jax.random.key(5), (steps, 2)):
            decisions = self.propose(state, propose, len(DECISIONS))
            state, info = self.update(
                state, decisions, reward(np.asarray(decisions)).astype(np.float32), update
            )
            logged.append(info)
        return state, {name: np.array([info[name] for info in logged]) for name in logged[0]}


@functools.cache
def arm(policy="lstm", supervised="reconstruct", **strategy):
    settings = {"supervised_weight": 0.7, "entropy_weight": 0.3, "baseline_decay": 0.8}
    settings |= {"learning_rate": 0.01} | strategy
    memory = MemorySettings(capacity=8, refresh_size=8, batch=4)
    config = ReinforceSettings(supervised, memory=memory, **settings)
    made, traces = policy_of(policy, SPACE, width=6), []
    strategy = reinforce(SPACE, made, config)

    def update(*arguments):
        traces.append(None)
        return strategy.update(*arguments)

    made = made._replace(score=jax.jit(made.score))
    return Arm(
        config,
        made,
        jax.jit(strategy.init),
        jax.jit(strategy.propose, static_argnums=2),
        jax.jit(update),
        traces,
    )


def moments(state):
    """Adam's averages of the gradients and of their squares."""
    return (
        jax.tree.map(np.asarray, optax.tree.get(state.optimiser, name)) for name in ("mu", "nu")
    )


def assert_close(found, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)


def largest_difference(a, b):
    return max(
        np.abs(np.asarray(x) - y).max()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def written_out(arm, params, decisions, rewards, baseline, remembered):
    """The two losses as their equations say, for sequences that are all in one array; and R + w H
    of the architectures.
    """
    w, n = arm.config.entropy_weight, len(decisions)
    trace = arm.policy.score(params["policy"], np.concatenate([decisions, remembered]))
    entropies = trace.entropy[:n].sum(axis=1)
    totals = rewards + w * jax.lax.stop_gradient(entropies)
    advantages = totals - jnp.where(jnp.isnan(baseline), totals.mean(), baseline)
    policy_loss = -(advantages * trace.log_prob[:n].sum(axis=1) + w * entropies).mean()
    if arm.config.supervised == "next_decision":
        return policy_loss, -trace.log_prob[n:, 1:].mean(), totals
    decoder, nats = params["decoder"], jnp.float32(0)
    for t, choices in enumerate(SPACE.num_choices):
        logits = (
            trace.hidden[n:, -1] @ decoder["weight"][t, :, :choices]
            + decoder["bias"][None, t, :choices]
        )
        decided = remembered[:, t, None] == np.arange(choices)[None]
        nats += (
            jax.scipy.special.logsumexp(logits, axis=1) - jnp.sum(logits, axis=1, where=decided)
        ).mean()
    return policy_loss, nats / SPACE.num_decisions, totals


@functools.cache
def by_hand(policy, supervised):
    """(params, rewards, baseline, lambda) -> L and what it was made of, and its gradient; all rows
    of the memory are equal.
    """
    remembered = np.array([[2, 0, 3, 1, 1]] * 4, np.int32)

    def loss(params, rewards, baseline, supervised_weight):
        losses = written_out(
            arm(policy, supervised), params, DECISIONS, rewards, baseline, remembered
        )
        return losses[0] + supervised_weight * losses[1], losses

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


# One step.


@pytest.mark.parametrize(
    ("policy", "supervised"), [("lstm", "reconstruct"), ("factorised", "next_decision")]
)
def test_updates_are_adam_steps_on_the_sum_of_the_losses(policy, supervised):
    made = arm(policy, supervised)
    state, baseline = made.start(), np.nan
    mu, nu = moments(state)
    for step in range(1, 4):
        rewards = REWARDS * step
        (value, parts), gradient = by_hand(policy, supervised)(state.params, rewards, baseline, 0.7)
        policy_loss, supervised_loss, totals = parts
        after, info = made.update(state, DECISIONS, rewards, jax.random.key(step))

        mean = float(totals.mean())
        baseline = mean if np.isnan(baseline) else 0.8 * baseline + 0.2 * mean
        norm = math.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
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
            jax.tree.map(
                lambda m, g, b=decay, p=power: b * m + (1 - b) * np.asarray(g) ** p,
                average,
                gradient,
            )
            for average, decay, power in [(mu, 0.9, 1), (nu, 0.999, 2)]
        )
        for found, expected in zip(moments(after), (mu, nu), strict=True):
            assert_close(found, expected, rtol=1e-3, atol=1e-7)
        # From the moments found: where a gradient is all but zero, its sign is rounding.
        moved = jax.tree.map(
            lambda p, m, v, s=step: (
                p - 0.01 * (m / (1 - 0.9**s)) / (np.sqrt(v / (1 - 0.999**s)) + 1e-8)
            ),
            state.params,
            *moments(after),
        )
        assert_close(after.params, moved, atol=1e-6)
        assert np.array_equal(after.memory.decisions, state.memory.decisions)
        state = after


def test_without_supervised_weight_the_memory_does_not_matter():
    made, other = arm(), arm(supervised="next_decision")
    state = made.start(supervised=0)
    runs = [
        (made, state),
        (made, made.start(memory=[(0, 0, 0, 0, 0)], supervised=0)),
        (other, state),
    ]
    for step in range(3):
        runs = [(a, a.update(s, DECISIONS, REWARDS, jax.random.key(step))[0]) for a, s in runs]
    for _, after in runs:
        assert_close(after.params["policy"], runs[0][1].params["policy"], rtol=1e-6, atol=1e-7)
        assert_close(after.params["decoder"], state.params["decoder"], rtol=0)  # not moved at all
        assert largest_difference(after.params["policy"], state.params["policy"]) > 0.01

    after, _ = made.update(state, DECISIONS, REWARDS, jax.random.key(0))
    gradient = by_hand("lstm", "reconstruct")(state.params, REWARDS, np.nan, 0.0)[1]
    assert_close(
        next(moments(after)), jax.tree.map(lambda g: 0.1 * g, gradient), rtol=1e-3, atol=1e-7
    )


def test_without_policy_weight_rewards_do_not_matter():
    made = arm()
    state = made.start(policy=0)
    one, other = (
        made.update(state, DECISIONS, r, jax.random.key(0))[0] for r in (REWARDS, -3 * REWARDS)
    )
    assert_close(one.params, other.params, rtol=0)
    assert largest_difference(one.params, state.params) > 0.001


def test_arms_that_differ_by_a_number_share_one_compilation():
    made = arm()
    state = made.start()
    weights = state.weights
    plain, info = made.update(state, DECISIONS, REWARDS, jax.random.key(0))
    traced = len(made.traces)

    def varied(**numbers):
        numbers = {name: np.float32(value) for name, value in numbers.items()}
        return made.update(
            state.replace(weights=weights.replace(**numbers)), DECISIONS, REWARDS, jax.random.key(0)
        )

    alone, of_policy = varied(supervised=0)
    assert of_policy["loss"] == of_policy["policy_loss"] != info["loss"]
    assert info["loss"] == pytest.approx(
        float(info["policy_loss"] + 0.7 * info["supervised_loss"]), rel=1e-5
    )

    faster, _ = varied(learning_rate=0.02)
    for half, whole, start in zip(
        *(jax.tree.leaves(s.params) for s in (plain, faster, state)), strict=True
    ):
        np.testing.assert_allclose(
            np.asarray(whole) - start, 2 * (np.asarray(half) - start), atol=1e-6
        )

    # The first baseline is the mean itself: of the entropy weight there remain deviations of H
    # times log p, and H.
    score = made.policy.score(state.params["policy"], DECISIONS)
    entropies, log_p = (
        np.asarray(x, np.float64).sum(axis=1) for x in (score.entropy, score.log_prob)
    )
    change = -np.mean((entropies - entropies.mean()) * log_p + entropies)
    assert varied(entropy=1.3)[1]["policy_loss"] - info["policy_loss"] == pytest.approx(
        change, rel=1e-4
    )
    assert len(made.traces) == traced
    assert largest_difference(alone.params["decoder"], state.params["decoder"]) == 0


def test_an_update_that_is_not_finite_is_dropped_and_counted():
    made = arm()
    state, _ = made.update(made.start(), DECISIONS, REWARDS, jax.random.key(0))
    for bad in (np.nan, np.inf):
        after, info = made.update(
            state, DECISIONS, np.append(REWARDS[1:], np.float32(bad)), jax.random.key(1)
        )
        assert info["skipped"] == 1
        assert_close(after, state, rtol=0)
    assert made.update(state, DECISIONS, REWARDS, jax.random.key(1))[1]["skipped"] == 0


@pytest.mark.parametrize("policy", ["factorised", "uniform"])
def test_what_has_no_hidden_state_cannot_be_reconstructed_from(policy):
    with pytest.raises(UserError, match="^config field strategy.supervised: .*next_decision"):
        arm(policy)


def test_without_supervised_weight_it_need_not_be():
    made = arm("uniform", supervised_weight=0.0)
    assert (
        made.update(made.start(), DECISIONS, REWARDS, jax.random.key(0))[1]["supervised_loss"] == 0
    )


# Many steps.


def nothing(decisions):
    return np.zeros(len(decisions))


@pytest.mark.parametrize(
    ("policy", "supervised"), [("lstm", "reconstruct"), ("factorised", "next_decision")]
)
def test_policy_gradient_finds_what_is_rewarded(policy, supervised):
    """The reward is the share of ReLUs: 1/4 at first, at most .98, since the squashing leaves every
    choice uncertain.
    """
    made = arm(policy, supervised)
    start = made.start(scale=0, supervised=0, entropy=0, learning_rate=0.05)
    _, logged = made.train(
        start, lambda decisions: (SPACE.activations(decisions) == 1).mean(axis=1), 200
    )
    assert np.mean(logged["reward"][:10]) == pytest.approx(1 / 4, abs=0.15)
    assert np.mean(logged["reward"][-20:]) > 0.9


def test_the_entropy_bonus_alone_makes_a_policy_uniform():
    made = arm()
    _, logged = made.train(
        made.start(scale=1.5, supervised=0, entropy=1, learning_rate=0.05), nothing, 200
    )
    most = math.log(math.prod(SPACE.num_choices))
    assert np.mean(logged["entropy"][:5]) < most - 0.3
    assert np.mean(logged["entropy"][-20:]) == pytest.approx(most, abs=0.05)


# Nowhere the same: given the first decision the rest is certain, without it a coin is tossed at
# three of four positions.
OPPOSITE = np.array([(0, 0, 1, 0, 2), (3, 0, 2, 1, 0)], np.int32)


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [("lstm", 0, 0.08), ("factorised", 3 / 4 * math.log(2), 0.6)],
    ids=["lstm", "factorised"],
)
def test_next_decision_loss_makes_a_controller_condition_on_its_past(policy, least, most):
    """A fixed memory is learned by heart, by what can: a factorised policy is left with its
    positions' own entropies.
    """
    made = arm(policy, "next_decision")
    _, logged = made.train(
        made.start(OPPOSITE, scale=0, policy=0, supervised=1, learning_rate=0.03), nothing, 250
    )
    # At first every choice is about equally likely: ln 1, ln 4, ln 2 and ln 4.
    assert logged["supervised_loss"][0] == pytest.approx(
        (2 * math.log(4) + math.log(2)) / 4, abs=0.02
    )
    assert least - 1e-3 <= logged["supervised_loss"][-30:].mean() < most


def test_reconstruction_loss_makes_the_last_state_tell_decisions_apart():
    made = arm()
    memory = np.array([*OPPOSITE, (0, 0, 2, 1, 3), (1, 0, 0, 0, 1)], np.int32)
    state, logged = made.train(
        made.start(memory, scale=0, policy=0, supervised=1, learning_rate=0.03), nothing, 250
    )
    assert logged["supervised_loss"][0] == pytest.approx(
        (3 * math.log(4) + math.log(2)) / 5, abs=0.1
    )
    assert logged["supervised_loss"][-1] < 0.05
    embedding, decoder = (
        made.policy.score(state.params["policy"], memory).hidden[:, -1],
        state.params["decoder"],
    )
    logits = np.einsum("nh,thk->ntk", embedding, decoder["weight"]) + np.asarray(decoder["bias"])
    np.testing.assert_array_equal(
        np.argmax(np.where(SPACE.choice_mask(), logits, -np.inf), axis=2), memory
    )


def test_the_skip_penalty_moves_skips_to_their_target_and_nothing_else():
    """Without rewards; operations keep their probabilities."""
    space = MacroSpace(layers=4)
    policy = policy_of("factorised", space)
    settings = ReinforceSettings(
        supervised_weight=0.0,
        entropy_weight=0.0,
        learning_rate=0.1,
        skip_weight=1.0,
        skip_target=0.2,
    )
    strategy = reinforce(space, policy, settings)
    state, update = jax.jit(strategy.init)(jax.random.key(0)), jax.jit(strategy.update)
    decisions = np.asarray(space.sample_uniform(jax.random.key(1), 4))
    for step in range(150):
        state, info = update(state, decisions, np.zeros(4, np.float32), jax.random.key(step))
    probabilities = np.exp(policy.score(state.params["policy"], decisions).log_probs[0])
    np.testing.assert_allclose(probabilities[space.positions("skip"), 1], 0.2, atol=0.01)
    np.testing.assert_allclose(probabilities[space.positions("operation")], 1 / 6, atol=1e-5)
    assert float(info["skip_penalty"]) < 1e-3


def test_without_skips_there_is_no_penalty():
    with pytest.raises(UserError, match="strategy.skip_weight"):
        settings = ReinforceSettings(skip_weight=1.0)
        reinforce(SPACE, policy_of("lstm", SPACE), settings)


def test_adams_settings_are_obeyed():
    """With beta1 = 0 and a large epsilon the first step is the gradient's direction by its size."""
    policy = policy_of("factorised", SPACE)
    steps = {}
    for epsilon in (1e-8, 1e3):
        settings = ReinforceSettings(
            supervised_weight=0.0, learning_rate=1.0, adam_beta1=0.0, adam_epsilon=epsilon
        )
        strategy = reinforce(SPACE, policy, settings)
        state = jax.jit(strategy.init)(jax.random.key(0))
        after, _ = jax.jit(strategy.update)(state, DECISIONS, REWARDS, jax.random.key(1))
        moved = jax.tree.map(lambda a, b: a - b, after.params["policy"], state.params["policy"])
        steps[epsilon] = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)])
    moving = np.abs(steps[1e3]) > 1e-6
    np.testing.assert_allclose(np.abs(steps[1e-8][moving]), 1, rtol=1e-3)
    assert np.ptp(np.abs(steps[1e3][moving])) > 1e-5 and np.abs(steps[1e3]).max() < 1e-2
