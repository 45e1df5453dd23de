"""The benchmark of whole searches, run on a tiny one."""

import json
import subprocess
import sys

import pytest

from tests.forked import run_forked
from tests.helpers import assert_one_line

OPTIONS = {
    "space.num_nodes": 3,
    "network.width": 8,
    "data.vocabulary": 50,
    "evaluation.examples": 40,
    "search.shared_steps": 4,
    "search.controller_steps": 2,
    "search.chunk": 2,
    "search.valid_architectures": 2,
}


MODULE = "experiments.benchmarks.end_to_end"


def run(environment, out, *arguments):
    command = [sys.executable, "-m", MODULE, f"--out={out}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_parts_of_the_loop_add_up(tmp_path, user_environment):
    options = [f"--config.{name}={value}" for name, value in OPTIONS.items()]
    found = run(user_environment, tmp_path, *options, "--epochs=3", "--starts=0")
    assert found.returncode == 0, found.stderr
    results = json.loads((tmp_path / "end_to_end.json").read_text())
    loop, parts = results["loop"], {part["part"]: part for part in results["loop"]["parts"]}
    # Two epochs are counted: two chunks of shared steps and one of the controller in each.
    calls = {
        "shared chunk": 4,
        "epoch start": 2,
        "controller chunk": 2,
        "validation": 2,
        "around them": 0,
    }
    assert {name: part["calls"] for name, part in parts.items()} == calls
    assert all(part["seconds"] > 0 for part in parts.values())
    assert sum(part["seconds"] for part in parts.values()) == pytest.approx(loop["seconds"])
    for speed in results["speed"]:
        assert speed["tokens"] == pytest.approx(
            32 * 20 * speed["steps"]
        )  # rows and steps of a window
    assert (
        "around them" in found.stdout
        and "A search of 3 epochs" in (tmp_path / "performance.html").read_text()
    )


@pytest.mark.slow
def test_starts_are_timed(tmp_path, user_environment):
    options = [f"--config.{name}={value}" for name, value in OPTIONS.items()]
    found = run(user_environment, tmp_path, *options, "--epochs=2", "--starts=1")
    assert found.returncode == 0, found.stderr
    cold, warm, shown = json.loads((tmp_path / "end_to_end.json").read_text())["start"]
    assert cold["least"] == cold["median"] == cold["most"] > warm["most"] > shown["most"] > 0


def test_bad_flags_end_in_one_line(tmp_path, user_environment):
    assert_one_line(
        run_forked(user_environment, MODULE, f"--out={tmp_path}", "--config.network.width=0"),
        "network.width",
    )
