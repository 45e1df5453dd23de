"""Training from scratch: single updates by hand, when averaging begins, and the same bits however
often it was interrupted.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas import logs, tasks, training
from nas.checkpoint import Checkpoints
from nas.config import TrainingConfig
from nas.data.tokens import Tokens, Windows
from nas.errors import UserError
from nas.tasks import Splits
from tests.helpers import assert_same_bits, tiny

CONFIG = dataclasses.replace(
    tiny(
        search={"chunk": 6, "shared_steps": 6, "controller_steps": 6},
        network={"dropout_input": 0.3},
    ),
    training=TrainingConfig(epochs=4, learning_rate=2.0, patience=0, weight_decay=0.01),
)
TASK = tasks.build(CONFIG)
SPACE = TASK.space
CELL = "0 0 1 0 2"
STEPS = 10  # an epoch: two chunks, the second shorter


@functools.cache
def model_of(architecture, **settings):
    network = dataclasses.replace(TASK.network, **settings)
    return network.model(SPACE, TASK.data, architecture)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """All runs of one configuration share their compiled functions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_chunk", functools.cache(training.train_chunk))
        yield


@functools.cache
def splits():
    """Train, validation and test windows of tokens of which half are the same."""
    rng = np.random.default_rng(0)
    tokens = np.where(rng.random(480) < 0.5, 7, rng.integers(50, size=480)).astype(np.int32)
    parts = np.split(tokens, [4 * (5 * STEPS + 1), 4 * (5 * STEPS + 1) + 160])
    return Splits(*(Windows.of(part, 4, TASK.data.steps) for part in parts))


def run(config, workdir, architecture=CELL):
    workdir.mkdir(exist_ok=True)
    return training.run(model_of(architecture), config, workdir, TASK, splits())


def saved(workdir, model):
    """State, best parameters and validation losses of the newest checkpoint."""
    state = training.initial_state(model, 0)
    checkpoints = Checkpoints(workdir, 3)
    arrays, progress = checkpoints.restore({"state": state, "best": state.params})
    checkpoints.close()
    return arrays["state"], arrays["best"], progress["losses"]


def lines(workdir):
    return [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in logs.read(workdir)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """The directory of a run that nothing interrupted, and its result."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(CONFIG, workdir)


@functools.cache
def gradient_of(model):
    def loss(params, tokens):
        batch = Tokens(tokens, jnp.ones(len(tokens), bool))
        return model.loss(params, batch, model.initial_carry(4), None)[0]

    return jax.jit(jax.grad(loss))


def step(params, tokens, *, clip=0.01, average=None, averaged=0, averaging=False, rate=0.5):
    """One update without dropout, from a zero state, with weight decay .1; the new state, what is
    logged, and the gradient.
    """
    model = model_of(CELL, dropout_input=0.0)
    average = params if average is None else average
    state = training.TrainState(params, average, np.int32(averaged), ())
    batch = Tokens(tokens[None], np.ones((1, len(tokens)), bool))
    state, _, info = training.train_chunk(model, clip=clip, weight_decay=0.1)(
        state,
        model.initial_carry(4),
        batch,
        np.uint32(0),
        np.zeros(1, np.int32),
        np.float32(rate),
        np.bool_(averaging),
    )
    return state, info, gradient_of(model)(params, tokens)


@pytest.fixture(scope="module")
def problem():
    params = jax.jit(model_of(CELL).init)(jax.random.key(0))
    return params, np.random.default_rng(0).integers(50, size=(4, 6), dtype=np.int32)


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_one_step_is_that_of_the_recipe(problem, clip):
    params, tokens = problem
    state, info, gradient = step(params, tokens, clip=clip)
    norm = math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(gradient)))
    assert 0.01 < norm < 1e6
    factor = min(1.0, clip / norm)
    expected = jax.tree.map(
        lambda p, g: p - 0.5 * (factor * np.asarray(g) + 0.1 * p), params, gradient
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state.params, expected
    )
    assert info["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert_same_bits(state.average, state.params)
    assert int(state.averaged) == 0


def test_two_steps_with_nesterovs_momentum(problem):
    """v = m v + d and w = w - rate (d + m v), where d is the gradient and the decay."""
    params, tokens = problem
    model = model_of(CELL, dropout_input=0.0)
    chunk = training.train_chunk(model, clip=1e6, weight_decay=0.1, momentum=0.9)
    zeros = jax.tree.map(np.zeros_like, params)
    state = training.TrainState(params, params, np.int32(0), zeros)
    batch = Tokens(np.stack([tokens, tokens]), np.ones((2, len(tokens)), bool))
    constants = np.uint32(0), np.arange(2, dtype=np.int32), np.float32(0.5), np.bool_(False)
    state, _, _ = chunk(state, model.initial_carry(4), batch, *constants)
    velocity = zeros
    for _ in range(2):
        gradient = gradient_of(model)(params, tokens)
        down = jax.tree.map(lambda g, p: np.asarray(g) + 0.1 * p, gradient, params)
        velocity = jax.tree.map(lambda v, d: 0.9 * v + d, velocity, down)
        params = jax.tree.map(lambda p, d, v: p - 0.5 * (d + 0.9 * v), params, down, velocity)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, (state.params, state.velocity), (params, velocity))


@pytest.mark.parametrize("averaged", [0, 1, 2])
def test_the_average_is_the_mean_of_the_iterates_since_it_began(problem, averaged):
    params, tokens = problem
    before = jax.tree.map(lambda leaf: leaf + 1.0, params)
    state, _, _ = step(params, tokens, average=before, averaged=averaged, averaging=True)
    assert int(state.averaged) == averaged + 1
    expected = jax.tree.map(lambda a, p: (averaged * a + p) / (averaged + 1), before, state.params)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state.average, expected
    )


def test_when_averaging_begins():
    # Each loss is compared with the best of those more than two epochs before it: 4.5 at epoch 5
    # with 5, 4, 4.6.
    losses = [5, 4, 4.6, 3.9, 3.8, 4.5, 1]
    assert [training.averaging_start(losses[:n], 2) for n in range(8)] == [None] * 6 + [6, 6]
    assert training.averaging_start([3, 2, 1, 1, 1, 1], 0) is None  # no worse is not worse
    assert training.averaging_start([3, 2, 2.5, 9], 0) == 3


def test_the_learning_rate_decays_until_averaging_begins():
    config = TrainingConfig(learning_rate=8.0, learning_rate_decay=0.5, decay_start=2)
    assert [training.learning_rate(config, epoch, None) for epoch in range(5)] == [8, 8, 4, 2, 1]
    assert [training.learning_rate(config, epoch, 4) for epoch in range(6)] == [8, 8, 4, 2, 2, 2]


def test_a_cosine_ends_at_zero_and_asks_for_no_averaging():
    settings = TrainingConfig(learning_rate=2.0, schedule="cosine", epochs=4)
    rates = [training.learning_rate(settings, epoch, None) for epoch in range(5)]
    assert rates == pytest.approx([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0])


def test_what_a_run_leaves_behind(whole):
    workdir, result = whole
    state, best, losses = saved(workdir, model_of(CELL))
    logged = lines(workdir)
    assert [(line["phase"], line["step"]) for line in logged if line["phase"] == "train"] == [
        ("train", step) for step in range(4 * STEPS)
    ]
    assert [line["loss"] for line in logged if line["phase"] == "valid"] == losses
    assert result.loss == min(losses) and losses.index(min(losses)) == result.best_epoch
    evaluate = jax.jit(model_of(CELL).evaluate)
    _, valid, test = splits()
    assert float(evaluate(best, valid.head(0))) == result.loss
    assert float(evaluate(best, test.head(0))) == result.test_loss
    assert float(evaluate(state.average, valid.head(0))) == losses[-1]
    assert (
        result.parameters == sum(leaf.size for leaf in jax.tree.leaves(best)) and result.width == 8
    )
    assert min(losses) < math.log(50) - 0.5  # it learns
    options = {"clip": 0.25, "weight_decay": 0.01, "momentum": 0.0}
    chunk = training.train_chunk(model_of(CELL), **options)
    assert chunk._cache_size() == 2  # two lengths of chunks


def test_evaluation_carries_its_state_over():
    model, (_, valid, _) = model_of(CELL), splits()
    params = jax.jit(model.init)(jax.random.key(3))
    carry, losses = model.initial_carry(4), []
    for tokens, start in zip(*valid.head(0), strict=True):
        loss, carry = jax.jit(model.loss)(params, Tokens(tokens, start), carry, None)
        losses.append(float(loss))
    assert len(losses) > 1
    assert float(jax.jit(model.evaluate)(params, valid.head(0))) == pytest.approx(
        np.mean(losses), rel=1e-6
    )


@pytest.mark.parametrize("architecture", [CELL, "lstm"])
def test_interrupted_again_and_again(tmp_path, architecture):
    expected = run(CONFIG, tmp_path / "whole", architecture)
    write, writes = logs.Writer.write, []

    def interrupted(self, phase, epoch, first_step, *args):
        write(self, phase, epoch, first_step, *args)
        writes.append(phase)
        if len(writes) % 4 == 0:  # an epoch writes three times
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs.Writer, "write", interrupted)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                run(CONFIG, tmp_path / "stopped", architecture)
        result = run(CONFIG, tmp_path / "stopped", architecture)
    assert result == expected
    model = model_of(architecture)
    assert_same_bits(saved(tmp_path / "stopped", model), saved(tmp_path / "whole", model))
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


def test_the_seed_is_obeyed(whole, tmp_path):
    assert run(dataclasses.replace(CONFIG, seed=1), tmp_path) != whole[1]


def test_averaging_in_a_run(whole, tmp_path, monkeypatch):
    """With patience 0 and a validation that gets worse at epoch 1, epochs 2 and 3 are averaged, at
    the rate of epoch 1.
    """
    monkeypatch.setattr(
        training, "averaging_start", lambda losses, patience: 2 if len(losses) >= 2 else None
    )
    config = dataclasses.replace(
        CONFIG,
        training=dataclasses.replace(CONFIG.training, decay_start=1, learning_rate_decay=0.5),
    )
    result = run(config, tmp_path)
    state, _, _ = saved(tmp_path, model_of(CELL))
    assert int(state.averaged) == 2 * STEPS and result.averaging_from == 2
    assert [line["learning_rate"] for line in lines(tmp_path) if line["phase"] == "valid"] == [
        2,
        1,
        1,
        1,
    ]
    assert any(
        np.any(a != b)
        for a, b in zip(*map(jax.tree.leaves, (state.average, state.params)), strict=True)
    )


def test_a_loss_that_is_not_finite(tmp_path):
    wild = dataclasses.replace(
        CONFIG, training=dataclasses.replace(CONFIG.training, learning_rate=1e30)
    )
    with pytest.raises(UserError) as error:
        run(wild, tmp_path)
    message = str(error.value)
    assert (
        " is not finite at train step " in message
        and "training.learning_rate" in message
        and "\n" not in message
    )
    assert f"last good checkpoint: none in {tmp_path}" in message
    assert all(line["step"] < 6 for line in lines(tmp_path))
