"""What is not finite stops a search, which names it, or is skipped and counted."""

import functools
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas import steps
from nas.errors import UserError
from nas.supernets.recurrent.language_model import LanguageModel
from tests.helpers import (
    assert_same_bits,
    read_metrics,
    scored,
)
from tests.one_search import checkpoint, quick, run, spoil, spoil_after_epoch

CONFIG = quick()
SKIP = quick(on_nonfinite="skip")

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_a_loss_that_is_not_finite_before_there_is_a_checkpoint(tmp_path, monkeypatch):
    start = steps.initial_state
    monkeypatch.setattr(
        steps,
        "initial_state",
        lambda *args: (state := start(*args)).replace(reward=spoil(state.reward)),
    )
    with pytest.raises(
        UserError,
        match="is not finite at shared step 0, architecture .*; last good checkpoint: none in ",
    ):
        run(CONFIG, tmp_path)


def nonfinite_reward(**replaced):
    """A maker of rewards some functions of which are wrapped."""
    make = LanguageModel.reward

    def reward(*args):
        made = make(*args)
        return made._replace(**{name: wrap(getattr(made, name)) for name, wrap in replaced.items()})

    return reward


def spoil_first_choice(function):
    """NaN for the architectures that begin with a 2."""
    return lambda state, decisions, batch: jnp.where(
        decisions[:, 0] == 2, jnp.nan, function(state, decisions, batch)
    )


@pytest.fixture
def spoiled_rewards(monkeypatch):
    monkeypatch.setattr(LanguageModel, "reward", nonfinite_reward(score=spoil_first_choice))
    monkeypatch.setattr(steps, "components", functools.cache(steps.components.__wrapped__))


def test_a_reward_that_is_not_finite_names_its_architecture(spoiled_rewards, tmp_path):
    with pytest.raises(
        UserError,
        match=(
            "^reward of an architecture is not finite at controller step [0-3], architecture '2 0 "
        ),
    ):
        run(quick(), tmp_path)


def test_skipped_updates_are_counted_and_change_nothing(spoiled_rewards, tmp_path):
    state = run(SKIP, tmp_path)
    lines = [line for line in read_metrics(tmp_path) if line["phase"] == "controller"]
    saved = scored(tmp_path)
    spoiled = np.isnan(saved["rewards"]).reshape(len(lines), -1)
    np.testing.assert_array_equal(spoiled.ravel(), saved["decisions"][:, 0] == 2)
    assert [line["skipped"] for line in lines] == spoiled.any(axis=1).tolist()
    assert 0 < sum(line["skipped"] for line in lines) < len(lines)
    assert state.strategy.optimiser.count == sum(line["skipped"] == 0 for line in lines)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.strategy.params))
    assert np.isfinite(state.strategy.baseline.value)
    assert all((line["loss"] == "nan") == bool(line["skipped"]) for line in lines)


def test_a_run_that_skips_everything_keeps_its_parameters(tmp_path, monkeypatch):
    spoil_after_epoch(monkeypatch, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of numpy
        state = run(SKIP, tmp_path)
    before = checkpoint(tmp_path, 22, SKIP)
    for name in ("params", "optimiser", "baseline"):
        assert_same_bits(getattr(state.strategy, name), getattr(before.strategy, name))
    assert_same_bits(state.reward, spoil(before.reward))
    assert (state.best_loss, *state.best_decisions) == (before.best_loss, *before.best_decisions)
    skipped = {
        phase: [line["skipped"] for line in read_metrics(tmp_path) if line["phase"] == phase]
        for phase in ("shared", "controller")
    }
    assert skipped == {"shared": [0] * 12 + [1] * 6, "controller": [0] * 4 + [1] * 4}
    assert all(json.dumps(line, allow_nan=False) for line in read_metrics(tmp_path))


def test_a_validation_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModel, "reward", nonfinite_reward(evaluate=spoil_first_choice))
    monkeypatch.setattr(steps, "components", functools.cache(steps.components.__wrapped__))
    with pytest.raises(
        UserError,
        match=(
            "^loss of an architecture is not finite at validation step 0, architecture '2 .*: "
            "none in"
        ),
    ):
        run(quick(epochs=1, valid_architectures=30), tmp_path / "stop")
    state = run(quick(epochs=1, valid_architectures=30, on_nonfinite="skip"), tmp_path / "skip")
    assert np.isfinite(state.best_loss) and state.best_decisions[0] != 2
