"""Screening: predictions against linear algebra, and that what is predicted best is proposed."""

import functools

import jax
import numpy as np
import pytest
from scipy.stats import norm, rankdata

from nas import archive as archives
from nas.errors import UserError
from nas.memory import MemorySettings
from nas.spaces.recurrent import RecurrentSpace
from nas.strategies import reinforce, screening
from nas.strategies.reinforce import ReinforceSettings
from tests.helpers import policy_of

SPACE = RecurrentSpace(num_nodes=3)
EVERY = np.indices(SPACE.num_choices, np.int32).reshape(SPACE.num_decisions, -1).T  # 128
KINDS = [kind for kind in screening.KINDS if kind != "none"]


def archive_of(rows, rewards, capacity=40):
    archive = archives.empty(capacity, SPACE.num_decisions)
    return archives.write(archive, EVERY[rows], np.array(rewards, np.float32), field="archive")


def test_normal_scores_are_quantiles_of_mid_ranks():
    rewards = [0.3, 0.1, 0.3, 0.9]
    found = np.asarray(jax.jit(screening.normal_scores)(archive_of([1, 2, 3, 4], rewards, 6)))
    expected = norm.ppf((rankdata(rewards) - 0.5) / 4)
    np.testing.assert_allclose(found, [*expected, 0, 0], atol=1e-5)


def test_ridge_is_that_of_the_normal_equations():
    rng = np.random.default_rng(0)
    rows, rewards = rng.choice(128, 30, replace=False), rng.normal(size=30)
    archive = archive_of(rows, rewards)
    found = jax.jit(
        lambda a, c: screening.ridge(a, functools.partial(screening.one_hot, SPACE), c)
    )(archive, EVERY[:50])
    known, unknown = (
        np.eye(SPACE.max_choices)[EVERY[of]].reshape(len(EVERY[of]), -1)
        for of in (rows, np.arange(50))
    )
    mean, wanted = known.mean(axis=0), norm.ppf((rankdata(rewards) - 0.5) / 30)
    scale = np.sqrt(np.sum((known - mean) ** 2) / 30)
    known, unknown = (known - mean) / scale, (unknown - mean) / scale
    penalty = screening._PENALTY * np.eye(known.shape[1])
    weights = np.linalg.solve(known.T @ known + penalty, known.T @ (wanted - wanted.mean()))
    np.testing.assert_allclose(found, unknown @ weights + wanted.mean(), atol=5e-3)


def test_pairs_know_what_no_single_decision_says():
    """The reward is whether two decisions agree."""
    rows = np.random.default_rng(0).permutation(128)
    good = EVERY[:, 0] == EVERY[:, 2]
    archive = archive_of(rows[:100], good[rows[:100]] * 1.0, 100)
    for features, told_apart in [(screening.one_hot, False), (screening.pairs, True)]:
        of = functools.partial(features, SPACE)
        predicted = np.asarray(jax.jit(lambda a, of=of: screening.ridge(a, of, EVERY))(archive))
        lowest = predicted[rows[100:]][good[rows[100:]]].min()
        assert (lowest > predicted[rows[100:]][~good[rows[100:]]].max()) == told_apart


@functools.cache
def strategy(kind):
    settings = ReinforceSettings(
        "likelihood",
        archive=60,
        candidates=60,
        learning_rate=0.03,
        policy_weight=0.0,
        entropy_weight=0.0,
        screening=kind,
        memory=MemorySettings(capacity=1, refresh_size=1, batch=30),
    )
    made = reinforce(SPACE, policy_of("lstm", SPACE, width=12), settings)
    return made._replace(
        init=jax.jit(made.init),
        propose=jax.jit(made.propose, static_argnums=2),
        update=jax.jit(made.update),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_predicted_best_is_proposed(kind):
    """The reward is the share of decisions that are 1; 30 of 128 are known."""
    made, target = strategy(kind), (EVERY == 1).mean(axis=1).astype(np.float32)
    rows = np.random.default_rng(1).choice(128, 60, replace=False)
    state = made.init(jax.random.key(0))
    for step in range(40):
        some = rows[(step % 2) * 30 :][:30]
        state, info = made.update(state, EVERY[some], target[some], jax.random.key(step))
    assert ("value_loss" in info) == (kind == "value")
    found = np.asarray(made.propose(state, jax.random.key(9), 5))
    left = np.setdiff1d(np.arange(128), rows)
    assert (found == 1).mean() > target[left].mean() + 0.1


@pytest.mark.parametrize("kind", screening.WITH_STATE)
def test_a_policy_without_state_cannot_be_read(kind):
    with pytest.raises(UserError, match="^config field strategy.screening: the policy has no hid"):
        reinforce(
            SPACE, policy_of("factorised", SPACE), ReinforceSettings(archive=1, screening=kind)
        )
