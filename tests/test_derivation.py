"""Deriving a cell: who is ranked, on what text, and that the order is the one that an exhaustive
ranking gives.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas import derivation, runs, steps
from nas.data.tokens import Windows
from nas.errors import UserError
from tests.helpers import splits_of, tiny

CONFIG = tiny(network={"init_scale": 1.0})  # at which cells differ
SEED = 4


@pytest.fixture(scope="module")
def run(compiled_once):
    """A search before its first step on random tokens."""
    parts, rng = steps.components(CONFIG), np.random.default_rng(0)
    state = jax.jit(lambda: steps.initial_state(CONFIG, parts))()
    opened = runs.Run(
        pathlib.Path("run"), CONFIG, {}, parts.task, parts.policy, parts.reward, state, {}
    )
    train, valid = (rng.integers(0, 50, length, dtype=np.int32) for length in (200, 600))
    vars(opened)["splits"] = splits_of(CONFIG, train, valid)
    return opened


@pytest.fixture(scope="module")
def derived(run):
    return derivation.derive(run, 100, seed=SEED)


def evaluate(run, decisions, rows):
    """[n] log perplexities on rows of text, four rows and one architecture at a time (in shapes
    that are compiled anyway).
    """
    one, values = jax.jit(run.reward.evaluate), np.zeros(len(decisions))
    parts = [
        Windows(part.ravel(), part, CONFIG.data["steps"]).head(0)
        for part in rows.reshape(-1, 4, rows.shape[1])
    ]
    for i, architecture in enumerate(decisions):
        same = np.repeat(architecture[None], 10, axis=0)
        values[i] = np.mean([one(run.state.reward, same, windows)[0] for windows in parts])
    return values


def test_every_sample_is_ranked_once(run, derived):
    strategy = steps.components(CONFIG).strategy
    sampled = np.asarray(strategy.propose(run.state.strategy, jax.random.key(SEED), 100))
    assert {*map(tuple, derived.decisions)} == {*map(tuple, sampled)}
    assert len(derived.decisions) == len(np.unique(sampled, axis=0)) == 100 - derived.repeated < 100
    assert not derived.given.any()


def test_half_of_the_cells_leave_in_every_round(run, derived):
    # 600 tokens in two halves of 8 slices of 4 rows are 9 a row: one window of 5.
    lasting = [int(np.sum(derived.examples >= slices * 4 * 5)) for slices in (1, 2, 4, 8)]
    n = len(derived.decisions)
    assert lasting == [n, -(-n // 2), -(-n // 4), -(-n // 8)]
    assert np.all(np.diff(derived.examples) <= 0)
    for tokens in np.unique(derived.examples):
        assert np.all(np.diff(derived.loss[derived.examples == tokens]) >= 0)
    np.testing.assert_array_equal(
        np.isfinite(derived.held_out), derived.examples == derived.examples[0]
    )


def test_the_halves_of_the_validation_split(run, derived):
    lasted = derived.examples == derived.examples[0]
    rows = run.splits.valid.tokens[: 64 * 9].reshape(64, 9)
    # All slices together are a half, whatever the order of its rows.
    np.testing.assert_allclose(
        derived.loss[lasted], evaluate(run, derived.decisions[lasted], rows[::2]), rtol=1e-5
    )
    np.testing.assert_allclose(
        derived.held_out[lasted], evaluate(run, derived.decisions[lasted], rows[1::2]), rtol=1e-5
    )


def test_who_left_was_worse_on_the_same_text(run, derived):
    """Every cell on the slice that all were read on: those that left in the first round are the
    worse half.
    """
    (left,) = np.nonzero(derived.examples == derived.examples.min())
    rows = np.random.default_rng(SEED).permutation(
        run.splits.valid.tokens[: 64 * 9].reshape(64, 9)[::2]
    )[:4]
    values = evaluate(run, derived.decisions, rows)
    np.testing.assert_allclose(derived.loss[left], values[left], rtol=1e-5)
    stayed = np.setdiff1d(np.arange(len(values)), left)
    assert values[stayed].max() <= values[left].min() + 1e-6


def test_the_seed_is_obeyed(run, derived):
    again, other = (derivation.derive(run, 100, seed=seed) for seed in (SEED, SEED + 1))
    for ours, theirs in zip(again, derived, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert {*map(tuple, other.decisions)} != {*map(tuple, derived.decisions)}


@pytest.mark.parametrize("architectures", [1, 3, 20])
def test_a_cell_of_the_users_own_lasts_to_the_end(run, derived, architectures):
    worst = derived.decisions[-1]
    found = derivation.derive(run, architectures, seed=SEED + 1, given=worst)
    (own,) = np.flatnonzero(found.given)
    np.testing.assert_array_equal(found.decisions[own], worst)
    assert np.isfinite(found.held_out[own]) and np.sum(np.isfinite(found.held_out)) >= 2
    assert len(np.unique(found.decisions, axis=0)) == len(found.decisions)


def variant(run, valid=None, evaluate=None):
    """The run with another validation split or another way to evaluate."""
    changed = dataclasses.replace(
        run, reward=run.reward._replace(evaluate=evaluate or run.reward.evaluate)
    )
    splits = run.splits
    if valid is not None:
        splits = splits_of(CONFIG, splits.train.tokens, valid)
    vars(changed)["splits"] = splits
    return changed


def test_diverged_cells_are_last(run):
    def spoiled(state, decisions, windows):
        return jnp.where(
            decisions[:, 0] == 1, jnp.nan, run.reward.evaluate(state, decisions, windows)
        )

    found = derivation.derive(variant(run, evaluate=spoiled), 100, seed=SEED)
    assert np.any(found.decisions[:, 0] == 1)
    assert not np.any(found.decisions[np.isfinite(found.held_out), 0] == 1)


def test_a_search_in_which_every_cell_diverged(run):
    diverged = variant(
        run, evaluate=lambda state, decisions, windows: jnp.full(len(decisions), jnp.nan)
    )
    with pytest.raises(UserError, match="^--workdir: no architecture of .* has a finite loss"):
        derivation.derive(diverged, 9)


def test_a_short_split(run):
    found = derivation.derive(
        variant(run, run.splits.valid.tokens[:60]), 10
    )  # two halves of 4 rows of 7
    assert np.unique(found.examples).tolist() == [4 * 5] and np.isfinite(found.held_out).all()
    with pytest.raises(UserError, match="too few for one window"):
        derivation.derive(variant(run, run.splits.valid.tokens[:40]), 10)
