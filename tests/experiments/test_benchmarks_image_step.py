"""The benchmark of the image networks. With PyTorch it checks that what it compares is the same."""

import importlib.util
import json

import numpy as np
import pytest

from experiments.benchmarks import image_step
from nas.spaces.macro import MacroSpace
from nas.spaces.micro import MicroSpace
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


def test_multiply_adds_by_hand():
    """Three layers of four channels on 8 x 8, 4 x 4 and 2 x 2 pixels: conv_3x3, sep_5x5 and a pool;
    reductions of two and of three stored tensors.
    """
    case = image_step.Case("macro", 3, 4, 8)
    wiring = image_step.wiring_of(case)[2]
    decisions = np.array([0, 3, 0, 4, 0, 0])
    layers = 64 * (16 + 9 * 16), 16 * (16 + (25 + 4) * 4), 4 * (16 + 9 * 4)
    around = 64 * 9 * 3 * 4 + 2 * 16 * 16 + 3 * 4 * 16 + 4 * 10
    assert wiring.multiply_adds(decisions) == sum(layers) + around
    assert isinstance(image_step.wiring_of(case)[0], MacroSpace)
    assert isinstance(image_step.wiring_of(case._replace(name="micro"))[0], MicroSpace)
