"""The benchmark of the image networks. With PyTorch it checks that what it compares is the same."""

import importlib.util
import json

import pytest

from tests.forked import run_forked


@pytest.mark.slow
def test_the_program(tmp_path, quick_environment):
    done = run_forked(
        quick_environment,
        "experiments.benchmarks.image_step",
        "--cases=macro-3-4-8,micro-1-4-8",
        "--batch=4",
        "--chunk=2",
        "--repeats=2",
        f"--out={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    assert "macro, 3 layers, 4 channels, 8 x 8" in done.stdout and "ratio" in done.stdout
    found = json.loads((tmp_path / "image_step.json").read_text())
    assert [of["case"]["name"] for of in found["cases"]] == ["macro", "micro"]
    forms = {"XLA"} | ({"PyTorch"} if importlib.util.find_spec("torch") else set())
    assert all(of["bound"] > 0 and forms <= set(of["milliseconds"]) for of in found["cases"])
