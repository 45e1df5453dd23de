"""The search loop: the same numbers from the same seed, however often it is interrupted, and none
that is not finite.
"""

import dataclasses
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from nas import logs, search, steps
from nas.checkpoint import Checkpoints
from nas.data.tokens import Tokens
from nas.errors import UserError
from nas.parallel import choose_devices
from nas.scored import FILE, Scored
from tests.helpers import (
    CHECKPOINTS,
    assert_same_bits,
    assert_same_run,
    expected_lines,
    read_metrics,
    restore,
    scored,
    tiny,
)
from tests.one_search import checkpoint, quick, run, spoil_after_epoch

CONFIG = quick()


pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """The directory and the final state of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    state = run(CONFIG, workdir)
    return workdir, state


@pytest.fixture(scope="module")
def initial(compiled_once):
    """The state before the first step, compiled as a search compiles it."""
    parts = steps.components(CONFIG)
    return jax.jit(
        lambda: steps.initial_state(CONFIG, parts), compiler_options=search._for_one_call()
    )()


def test_the_same_seed_gives_the_same_bits(whole, tmp_path):
    workdir, expected = whole
    state = run(CONFIG, tmp_path)
    assert_same_bits(state, expected)
    assert_same_bits(state, restore(CONFIG, tmp_path)[0]["search"])
    assert_same_run(CONFIG, tmp_path, workdir)


def first_policy(seed):
    """Parameters of the controller before the first step."""
    config = tiny(seed=seed)
    return jax.jit(
        lambda: steps.initial_state(config, steps.components(config)).strategy.params["policy"]
    )()


def test_another_seed_gives_others(whole, tmp_path):
    config = quick(
        seed=1, epochs=1
    )  # the first epoch is warm-up: nothing of the controller to compile
    state = run(config, tmp_path)
    lines, others = (
        [line for line in read_metrics(path) if line["phase"] == "shared"]
        for path in (tmp_path, whole[0])
    )
    assert all(lines[step]["loss"] != others[step]["loss"] for step in range(6))
    for ours, theirs in (
        (first_policy(1), first_policy(0)),
        (state.reward.params, checkpoint(whole[0], CHECKPOINTS[0]).reward.params),
    ):
        different = jax.tree.leaves(
            jax.tree.map(lambda a, b: np.any(np.asarray(a) != np.asarray(b)), ours, theirs)
        )
        assert sum(different) > len(different) / 2  # biases start at zero for every seed


def test_warm_up_trains_shared_weights_only(whole, initial):
    warm, trained = (checkpoint(whole[0], step) for step in CHECKPOINTS[:2])
    assert_same_bits(warm.strategy, initial.strategy)
    assert np.any(
        np.asarray(warm.reward.params["embedding"])
        != np.asarray(initial.reward.params["embedding"])
    )
    assert np.any(
        np.asarray(trained.strategy.params["policy"]["logits"])
        != np.asarray(initial.strategy.params["policy"]["logits"])
    )
    assert {line["epoch"] for line in read_metrics(whole[0]) if line["phase"] == "controller"} == {
        1,
        2,
    }


def test_what_a_run_leaves_behind(whole):
    workdir, state = whole
    names = [(line["phase"], line["step"]) for line in read_metrics(workdir)]
    assert len(names) == len(set(names)) and set(names) == expected_lines(CONFIG)
    saved = scored(workdir)
    updates, per_step = 2 * CONFIG.search.controller_steps, CONFIG.search.architectures
    assert saved["decisions"].shape == (updates * per_step, 5) and saved["rewards"].shape == (
        updates * per_step,
    )
    steps.components(CONFIG).task.space.validate(saved["decisions"])
    logged = [line["reward"] for line in read_metrics(workdir) if line["phase"] == "controller"]
    np.testing.assert_allclose(
        saved["rewards"].reshape(updates, per_step).mean(axis=1), logged, rtol=1e-6
    )
    valid = [line["loss_best"] for line in read_metrics(workdir) if line["phase"] == "valid"]
    np.testing.assert_allclose(state.best_loss, min(valid), rtol=1e-6)


def test_each_step_function_is_compiled_once_also_after_resuming(whole, tmp_path):
    shutil.copytree(whole[0] / "checkpoints" / "22", tmp_path / "checkpoints" / "22")
    shutil.copy(whole[0] / FILE, tmp_path)
    parts = steps.components(CONFIG)
    run(CONFIG, tmp_path)
    for make in (steps.shared_chunk, steps.controller_chunk, steps.epoch_start, steps.validation):
        assert choose_devices("jit").lift(make(CONFIG, parts)).compiled._cache_size() == 1, make


def test_one_compilation_serves_every_seed():
    def program(seed):
        config = quick(seed=seed)
        parts = steps.components(config)
        state = jax.eval_shape(lambda: steps.initial_state(config, parts))
        carry = jax.eval_shape(lambda: parts.reward.initial_carry(4))
        batch = Tokens(np.zeros((2, 4, 6), np.int32), np.zeros((2, 4), bool))
        common = np.arange(2, dtype=np.int32), np.int32(0)
        chunks = (steps.shared_chunk, steps.controller_chunk)
        return [
            choose_devices("jit")
            .lift(make(config, parts))
            .compiled.lower(state, carry, batch, common)
            .as_text()
            for make in chunks
        ]

    assert program(0) == program(1)


def test_interrupted_after_every_chunk(whole, tmp_path, monkeypatch):
    write, stops = logs.Writer.write, []
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]  # the last: the terminal was closed
    handlers = [signal.getsignal(number) for number in numbers]

    def interrupted(self, phase, *args):
        write(self, phase, *args)
        if phase != "valid":
            os.kill(os.getpid(), numbers[len(stops) % 3])

    monkeypatch.setattr(logs.Writer, "write", interrupted)
    while len(stops) < 100:
        try:
            run(CONFIG, tmp_path)
            break
        except search.Interrupted as stop:
            stops.append(stop)
            number = numbers[(len(stops) - 1) % 3]
            assert stop.code == (130 if number == signal.SIGINT else 0)
            assert f"{number.name}: " in str(stop) and "\n" not in str(stop)
    assert len(stops) == 3 * 3 + 2 * 2
    assert [signal.getsignal(number) for number in numbers] == handlers
    assert_same_run(CONFIG, tmp_path, whole[0])


def test_a_signal_while_an_epoch_ends_stops_after_the_next_chunk(whole, tmp_path, monkeypatch):
    write = logs.Writer.write

    def interrupted(self, phase, epoch, *args):
        write(self, phase, epoch, *args)
        if (phase, epoch) == ("valid", 0):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(logs.Writer, "write", interrupted)
    with pytest.raises(search.Interrupted, match="epoch 1, shared 2, controller 0"):
        run(CONFIG, tmp_path)
    run(CONFIG, tmp_path)
    assert_same_run(CONFIG, tmp_path, whole[0])


def test_after_so_many_minutes_it_is_saved_within_an_epoch(whole, tmp_path):
    plan = dataclasses.replace(CONFIG.search, checkpoint_minutes=1e-9, keep=100)
    config = dataclasses.replace(CONFIG, search=plan)
    assert_same_bits(run(config, tmp_path), whole[1])
    shared, controller = ([*range(2, steps + 1, 2)] for steps in (6, 4))  # chunks of two
    assert (plan.chunk, plan.shared_steps, plan.controller_steps) == (2, 6, 4)
    within = [shared, *2 * [shared + [6 + step for step in controller]]]  # one epoch warms up
    expected = [11 * epoch + step for epoch in range(3) for step in [*within[epoch], 11]]
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert sorted(saved) == expected
    shutil.rmtree(tmp_path / "checkpoints" / "33")
    for step in (26, 28, 30, 32):
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    run(CONFIG, tmp_path)  # from within the last epoch
    assert_same_run(CONFIG, tmp_path, whole[0])


class Killed(BaseException):
    pass


def test_killed_before_and_after_everything_that_it_writes(whole, tmp_path, monkeypatch):
    """The i-th process dies at the i-th place; between two of them the last line of the metrics is
    cut off.
    """
    calls, last = [], [0]

    def guard(function):
        def call(*args, **kwargs):
            for act in (lambda: None, lambda: function(*args, **kwargs)):
                act()
                calls.append(function.__qualname__)
                if len(calls) == last[0]:
                    raise Killed

        return call

    monkeypatch.setattr(logs.Writer, "write", guard(logs.Writer.write))
    monkeypatch.setattr(Scored, "append", guard(Scored.append))
    monkeypatch.setattr(Checkpoints, "save", guard(Checkpoints.save))
    monkeypatch.setattr(Checkpoints, "_write", guard(Checkpoints._write))
    places = []
    for place in range(1, 60):
        last[0] = place
        calls.clear()
        try:
            run(CONFIG, tmp_path)
            break
        except Killed:
            places.append(calls[-1])
            with (tmp_path / logs.FILE).open("a") as file:
                file.write('{"phase": "sha')
    names = {"Writer.write", "Scored.append", "Checkpoints.save", "Checkpoints._write"}
    assert set(places) == names and len(places) > 10
    assert_same_run(CONFIG, tmp_path, whole[0])


def test_a_damaged_checkpoint_is_passed_over_and_replaced(whole, tmp_path, capsys):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "checkpoints" / "33").rglob("metadata"):
        path.write_bytes(b"")
    run(CONFIG, tmp_path)
    assert capsys.readouterr().err.startswith(
        f"checkpoint 33 in {tmp_path / 'checkpoints'} is damaged: "
    )
    assert_same_run(CONFIG, tmp_path, whole[0])
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["11", "22", "33"]


def test_the_last_good_checkpoint_before_a_loss_that_is_not_finite(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spoil_after_epoch(patch, 1)
        with pytest.raises(UserError) as error:
            run(CONFIG, tmp_path)
    message = str(error.value)
    assert (
        "gradient_norm is not finite at shared step 12, architecture '" in message
        or "loss is not" in message
    )
    assert (
        f"last good checkpoint: 22 in {tmp_path}; search.on_nonfinite=skip drops such updates"
        in message
    )
    steps.components(CONFIG).task.space.parse(message.split("'")[1])
    assert len(read_metrics(tmp_path)) == 6 + 1 + 6 + 4 + 1  # nothing of the chunk that went wrong
    run(CONFIG, tmp_path)
    assert_same_run(CONFIG, tmp_path, whole[0])
