"""Whole searches on several devices: what they leave behind, and that they continue on any other
number of devices.
"""

import collections
import pathlib
import shutil
import signal
from typing import NamedTuple

import jax
import numpy as np
import pytest

from nas import logs, search, steps
from nas.data.tokens import Windows
from nas.errors import UserError
from nas.parallel import Devices
from nas.tasks import Splits
from tests.helpers import (
    assert_same_bits,
    assert_same_run,
    expected_lines,
    read_metrics,
    restore,
    scored,
    tiny,
)

CONFIG = tiny(
    space={"num_nodes": 4},
    data={"vocabulary": 30, "batch": 8, "eval_batch": 8},
    evaluation={"examples": 80},
    network={"width": 8, "learning_rate": 1.0, "dropout_input": 0.2},
    policy={"name": "factorised"},  # compiles quickly
    strategy={"supervised": "next_decision"},
    search={"warmup_epochs": 0, "shared_steps": 4, "controller_steps": 4, "architectures": 2},
)
JIT, TWO, FOUR = Devices("jit", 1, 1), Devices("pmap", 2, 2), Devices("pmap", 4, 4)
PHASES = ("shared_chunk", "controller_chunk", "epoch_start", "validation")


def run(workdir, devices, config=CONFIG):
    rng = np.random.default_rng(0)
    train, valid = (
        Windows.of(rng.integers(0, 30, 8 * length, dtype=np.int32), 8, 5) for length in (41, 26)
    )
    return search.run(config, workdir, Splits(train, valid, valid), devices=devices)


def run_until(monkeypatch, controller_step, workdir, devices):
    """Runs, and is sent a signal when the chunk that starts at this step of the controller has been
    logged.
    """
    write = logs.Writer.write

    def signalled(self, phase, epoch, first_step, *args):
        write(self, phase, epoch, first_step, *args)
        if (phase, first_step) == ("controller", controller_step):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(logs.Writer, "write", signalled)
        with pytest.raises(search.Interrupted):
            run(workdir, devices)


def count_traces(patch):
    """How often each step function is traced from now on: once a compilation."""
    counts = collections.Counter()

    def counting(name):
        make = getattr(steps, name)

        def make_counted(config, parts):
            fn = make(config, parts)

            def counted(*args):
                counts[name] += 1
                return fn(*args)

            return counted

        patch.setattr(steps, name, make_counted)

    for name in PHASES:
        counting(name)
    return counts


@pytest.fixture
def traces(monkeypatch):
    return count_traces(monkeypatch)


class Whole(NamedTuple):
    """A run on four devices that nothing interrupted."""

    workdir: pathlib.Path
    state: steps.SearchState
    traces: dict[str, int]
    compiled: list[
        int
    ]  # programs of any kind that had been compiled when the first, second, third epoch was logged


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir, compiled, count, write = (
        tmp_path_factory.mktemp("whole"),
        [],
        [0],
        logs.Writer.write,
    )

    def listen(event, seconds, **details):
        count[0] += event == "/jax/core/compile/jaxpr_to_mlir_module_duration"

    def counting(self, phase, *args):
        write(self, phase, *args)
        if phase == "valid":
            compiled.append(count[0])

    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs.Writer, "write", counting)
        traces = count_traces(patch)
        return Whole(workdir, run(workdir, FOUR), traces, compiled)


def check_architectures(workdir, per_step):
    """`architectures.npy` holds this many of each controller step, in order, with the rewards whose
    mean was logged.
    """
    saved = scored(workdir)
    logged = [line["reward"] for line in read_metrics(workdir) if line["phase"] == "controller"]
    assert len(logged) == len(per_step)
    assert saved["decisions"].shape == (sum(per_step), 7) and saved["rewards"].shape == (
        sum(per_step),
    )
    steps.components(CONFIG).task.space.validate(saved["decisions"])
    parts = np.split(saved["rewards"], np.cumsum(per_step)[:-1])
    np.testing.assert_allclose([part.mean() for part in parts], logged, rtol=1e-5)


def test_a_run_on_four_devices(whole):
    workdir, state, *_ = whole
    names = [(line["phase"], line["step"]) for line in read_metrics(workdir)]
    assert len(names) == len(set(names)) and set(names) == expected_lines(CONFIG)
    assert all(
        np.isfinite(value) for line in read_metrics(workdir) for value in list(line.values())[1:]
    )
    check_architectures(workdir, [4 * CONFIG.search.architectures] * 12)
    saved, progress = restore(CONFIG, workdir)
    assert progress["epoch"] == 3
    assert_same_bits(saved["search"], state)
    assert saved["carry"].shape == (8, 8) and len(np.unique(saved["carry"], axis=0)) == 8
    best = min(line["loss_best"] for line in read_metrics(workdir) if line["phase"] == "valid")
    np.testing.assert_allclose(state.best_loss, best, rtol=1e-6)


def test_each_step_function_is_compiled_once_and_nothing_after_the_first_epoch(whole):
    assert whole.traces == dict.fromkeys(PHASES, 1)
    assert whole.compiled[0] >= len(PHASES)
    assert (
        whole.compiled[1] == whole.compiled[2]
    )  # the first checkpoint is written after the first epoch was logged


@pytest.mark.slow
def test_interrupted_in_the_middle_of_an_epoch_the_same_devices_go_on_to_the_same_bits(
    whole, tmp_path, traces, monkeypatch
):
    run_until(monkeypatch, 4, tmp_path, FOUR)
    assert restore(CONFIG, tmp_path)[1]["controller"] == 2
    traces.clear()
    state = run(tmp_path, FOUR)
    assert traces == dict.fromkeys(PHASES, 1)
    assert_same_bits(state, whole.state)
    assert_same_run(CONFIG, tmp_path, whole.workdir)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((FOUR, TWO, JIT), id="fewer"),
        pytest.param((JIT, TWO, FOUR), id="more", marks=pytest.mark.slow),
    ],
)
def test_a_run_continues_on_another_number_of_devices(tmp_path, traces, monkeypatch, order):
    """Interrupted in the middle of the second and of the third epoch."""
    totals = [devices.total * CONFIG.search.architectures for devices in order]
    saved = []
    for devices, step in zip(order, (4, 8), strict=False):
        traces.clear()
        run_until(monkeypatch, step, tmp_path, devices)
        assert traces == dict.fromkeys(PHASES, 1)
        assert restore(CONFIG, tmp_path)[1]["epoch"] == step // 4
        saved.append(scored(tmp_path))
    traces.clear()
    state = run(tmp_path, order[-1])
    assert traces == {
        "controller_chunk": 1,
        "validation": 1,
    }  # all else of the last epoch had been done
    names = [(line["phase"], line["step"]) for line in read_metrics(tmp_path)]
    assert len(names) == len(set(names)) and set(names) == expected_lines(CONFIG)
    check_architectures(tmp_path, [totals[0]] * 6 + [totals[1]] * 4 + [totals[2]] * 2)
    final = scored(tmp_path)
    for earlier in saved:
        assert_same_bits(
            {name: column[: len(earlier[name])] for name, column in final.items()}, earlier
        )
    assert_same_bits(restore(CONFIG, tmp_path)[0]["search"], state)


def test_a_finished_run_is_returned_as_it_is(whole, tmp_path, traces):
    shutil.copytree(whole.workdir, tmp_path, dirs_exist_ok=True)
    for devices in (FOUR, TWO, JIT):
        assert_same_bits(run(tmp_path, devices), whole.state)
    assert not traces
    assert_same_run(CONFIG, tmp_path, whole.workdir)


@pytest.mark.parametrize("name", ["batch", "eval_batch"])
def test_rows_that_the_devices_do_not_divide(tmp_path, name):
    config = tiny(data={"batch": 8, "eval_batch": 8} | {name: 6})
    with pytest.raises(
        UserError, match=f"config field data.{name}: 6 rows cannot be divided over 4 devices"
    ):
        run(tmp_path, FOUR, config)
    assert not list(tmp_path.iterdir())
