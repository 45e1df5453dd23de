"""The image tasks through the ordinary programs, on small digits."""

import csv
import json
import re
import signal

import numpy as np
import pytest

from launch.configs import mnist_macro, mnist_micro
from nas import logs
from nas.config import from_dict, override
from tests.forked import run_forked
from tests.helpers import assert_one_line, assert_same_run, signalled, write_config

DIGITS = {
    "seed": 3,
    "data": {"source": "digits", "downscale": 1, "size": 8, "batch": 32, "eval_batch": 60},
    "strategy": {
        "supervised_weight": 10.0,
        "memory": {"capacity": 60, "refresh_size": 30, "batch": 20},
    },
    "policy": {"width": 16},
    "search": {
        "epochs": 3,
        "warmup_epochs": 1,
        "shared_steps": 40,
        "controller_steps": 10,
        "chunk": 10,
        "valid_architectures": 4,
    },
    "evaluation": {"architectures": 12, "examples": 120},
    "training": {"epochs": 2},
}
TASKS = {
    "macro": (
        mnist_macro,
        {"space": {"layers": 4}, "network": {"channels": 6, "cosine_epochs": 3}},
    ),
    "micro": (
        mnist_micro,
        {"space": {"blocks": 2}, "network": {"channels": 4, "cells": 1, "cosine_epochs": 3}},
    ),
}
every_task = pytest.mark.parametrize("name", TASKS)


def config_of(name, **changes):
    preset, sizes = TASKS[name]
    return override(
        override(override(from_dict(preset.get_config().to_dict()), DIGITS), sizes), changes
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory, quick_environment):
    """Runs a program with the configuration of a task."""
    folder = tmp_path_factory.mktemp("configs")
    for name in TASKS:
        write_config(folder / f"{name}.py", config_of(name))

    def run(module, name, *arguments, **environment):
        given = () if name is None else (f"--config={folder / name}.py",)
        return run_forked(quick_environment | environment, f"launch.{module}", *given, *arguments)

    return run


def done(process):
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory, program):
    """name -> folder of a finished search."""
    folders = {}

    def run(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "run"
            said = done(program("search", name, f"--workdir={folders[name]}"))
            assert re.match(r"best validated: cross-entropy \d\.\d{3}, decisions [\d ]+\n", said)
        return folders[name]

    return run


@every_task
def test_shared_weights_learn_and_rewards_are_accuracies(name, searched):
    lines = logs.read(searched(name))
    losses = logs.curves(lines, "shared")["loss"][1]
    assert len(losses) == 120 and losses[-20:].mean() < losses[:20].mean() - 0.05
    rewards = logs.curves(lines, "controller")["reward"][1]
    assert len(rewards) == 20 and rewards.min() >= 0 and rewards.max() <= 1
    counts = 4 * 60 * rewards  # of four architectures on 60 images
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    first = json.loads((searched(name) / logs.FILE).read_text().partition("\n")[0])
    assert first == {"loss": "cross-entropy, nats an image", "reward": "accuracy"}


@pytest.mark.parametrize(
    "name, lines",
    [
        ("macro", 20),  # while shared weights train
        ("macro", 85),  # while the controller does
        pytest.param("micro", 20, marks=pytest.mark.slow),
        pytest.param("micro", 85, marks=pytest.mark.slow),
    ],
)
def test_a_search_that_is_stopped_continues_to_the_same_bits(
    name, lines, searched, program, tmp_path
):
    argument = f"--workdir={tmp_path}"
    stopped = program("search", name, argument, **signalled(signal.SIGTERM, lines))
    assert stopped.returncode == 0 and "run the same command again" in stopped.stderr
    assert len(logs.read(tmp_path)) < 143
    done(program("search", name, argument))
    assert_same_run(config_of(name), tmp_path, searched(name))


@every_task
def test_its_evaluation_and_report(name, searched, program):
    said = done(program("evaluate", None, f"--workdir={searched(name)}"))
    assert "common operations" in said and "Best cell's cross-entropy: " in said
    page = (searched(name) / "report" / "index.html").read_text()
    assert "The paper did not search this space." in page and "perplex" not in page
    rows = list(csv.reader((searched(name) / "report" / "best.csv").open(newline="")))
    assert any(row and row[0] == "class frequencies" for row in rows)


def test_its_derivation_and_the_best_one_alone(searched, program, tmp_path):
    workdir = searched("macro")
    said = done(program("derive", None, f"--workdir={workdir}", "--architectures=30"))
    found = json.loads((workdir / "derived.json").read_text())
    told = r"best: cross-entropy \d\.\d{3}, error \(%\) \d+\.\d\d on the half of the validation"
    assert re.search(told, said)
    arguments = f"--decisions={found['decisions']}", f"--workdir={tmp_path / 'alone'}"
    stopped = program("train_from_scratch", "macro", *arguments, **signalled(signal.SIGTERM, 40))
    assert stopped.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    said = done(program("train_from_scratch", "macro", *arguments))
    assert re.search(r"test cross-entropy \d\.\d{3}, error \(%\) \d+\.\d\d\n", said)
    assert said == done(program("train_from_scratch", "macro", *arguments))  # it is read


@pytest.mark.parametrize("baseline", ["plain", "resnet"])
def test_a_baseline(baseline, program, tmp_path):
    arguments = f"--baseline={baseline}", f"--workdir={tmp_path}", "--config.training.epochs=1"
    said = done(program("train_from_scratch", "macro", *arguments))
    assert re.match(rf"{baseline}: [\d,]+ parameters, width \d+\n", said)
    assert re.search(r"error \(%\) \d+\.\d\d\n", said)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--config.network.channels=5"], ["network.channels", "even", "5"]),
        (["--config.space.layers=2"], ["space.layers", "at least 3"]),
        (["--config.data.size=14"], ["8 x 8 x 1", "14 x 14 x 1"]),
        (["--config.data.classes=9"], ["is 9, not in 0..8 (data.classes)"]),
        (["--config.data.source=imagenet"], ["data.source", "mnist, digits, cifar10, arrays"]),
        (["--config.strategy.skip_target=1.0"], ["strategy.skip_target", "(0, 1)"]),
    ],
)
def test_bad_settings_end_in_one_line_and_write_nothing(arguments, parts, program, tmp_path):
    workdir = tmp_path / "run"
    assert_one_line(program("search", "macro", *arguments, f"--workdir={workdir}"), *parts)
    assert not (workdir / "checkpoints").exists()


def test_a_skip_penalty_needs_skips(program, tmp_path):
    process = program(
        "search", "micro", "--config.strategy.skip_weight=1.0", f"--workdir={tmp_path}"
    )
    assert_one_line(process, "strategy.skip_weight", "no skips")
