"""One stage at work: its size, its configurations and data, and where it reports what it finds."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import operations
from experiments.benchmarks.products import Point
from nas import config as configs
from nas import tasks
from nas.config import Config
from nas.data.images import Images
from nas.data.tokens import Windows
from nas.files import write_atomic
from nas.tasks import Splits


class Size(NamedTuple):
    """What depends on whether a GPU computes."""

    platform: str
    point: Point  # the shapes of `ptb_paper`
    side: int  # rows and columns of the large product's matrices
    copied: int  # float32 numbers that are copied
    updates: int  # controller updates in one call
    moderate: int  # width of the cells whose numbers are compared with the CPU's
    text: dict[str, Any]  # changes to presets of text
    images: dict[str, Any]
    search: dict[str, Any]  # how the search is cut short
    tests: tuple[str, ...]  # arguments of pytest


SIZES = {
    "full": Size(
        platform="gpu",
        point=Point(width=1000, nodes=12, batch=64, vocabulary=10_000, steps=35),
        side=8192,
        copied=2**30,
        updates=100,
        moderate=200,
        text={},
        images={},
        search={"epochs": 2, "shared_steps": 100, "controller_steps": 200, "chunk": 100},
        tests=("--numprocesses=8", "--dist=loadfile"),
    ),
    "small": Size(
        platform="cpu",
        point=Point(width=16, nodes=3, batch=4, vocabulary=60, steps=5),
        side=256,
        copied=2**20,
        updates=5,
        moderate=16,
        text={
            "space": {"num_nodes": 3},
            "data": {"vocabulary": 60, "batch": 4, "eval_batch": 4, "steps": 5},
            "network": {"width": 16},
            "policy": {"width": 8},
            "strategy": {"memory": {"capacity": 20, "refresh_size": 20, "batch": 8}},
            "search": {"epochs": 3, "warmup_epochs": 1, "shared_steps": 10, "controller_steps": 10},
            "evaluation": {"architectures": 10, "examples": 40},
        },
        images={
            "space": {"layers": 3},
            "network": {"channels": 4},
            "data": {"size": 8, "batch": 4, "eval_batch": 4},
        },
        search={"epochs": 2, "shared_steps": 10, "controller_steps": 10, "chunk": 10},
        tests=("tests/test_objectives.py",),
    ),
}


class Stage:
    """One stage at work: its size, where it writes, what it has reported."""

    def __init__(self, file: pathlib.Path, size: str, out: pathlib.Path, data_dir: str):
        self.size, self.out, self.data_dir = SIZES[size], out, data_dir
        self._file, self._found = file, {}
        self._own = [size, str(out), data_dir]

    def tell(self, **found) -> None:
        """Writes what was found so far."""
        self._found |= found
        write_atomic(self._file, json.dumps(self._found) + "\n")

    def preset(self, name: str, *changes: dict[str, Any], matmul: str = "") -> Config:
        """A preset at this size, with products of float32, tf32 or bfloat16 numbers."""
        module = importlib.import_module(f"launch.configs.{name}")
        config = configs.from_dict(module.get_config().to_dict())
        if matmul:
            precision = "tf32" if matmul == "tf32" else "float32"
            network = {"network": {"matmul": operations.SETTING[matmul]}}
            config = configs.override(config, {"precision": precision} | network)
        small = self.size.images if "channels" in config.network else self.size.text
        for values in (small, *changes):
            config = configs.override(config, values)
        return config

    def program(self, module: str, *arguments: str) -> list[str]:
        """The command line of a program on `kjv_quick` at this size, on its device."""
        given = [f"--platform={self.size.platform}", "--config=kjv_quick", *_flags(self.size.text)]
        if self.data_dir:
            given.append(f"--data_dir={self.data_dir}")
        return [sys.executable, "-m", module, *given, *arguments]

    def beside(self, file: pathlib.Path) -> subprocess.Popen:
        """Starts a process that computes the same numbers on the CPU."""
        own = [str(file), *self._own, "reference"]
        # Without CXX, which may forbid compiling, the CPU runs the C++: its numbers then come from
        # other code.
        environment = {name: value for name, value in os.environ.items() if name != "CXX"}
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.gpu_check.stages", *own],
            env=environment | {"JAX_PLATFORMS": "cpu"},
        )


def use_precision(matmul: str) -> None:
    """From now on products of float32 numbers are as exact as `matmul` says, on any device."""
    jax.config.update("jax_default_matmul_precision", operations.PRECISION[matmul])


def tokens(config: Config) -> Splits:
    """Streams of tokens by Zipf's law, as long as those of the Penn Treebank for its shapes."""
    data = tasks.build(config).data
    weights = 1 / np.arange(1, data.vocabulary + 1)
    rng = np.random.default_rng(0)

    def windows(count, rows):
        drawn = rng.choice(data.vocabulary, count * data.examples(rows), p=weights / weights.sum())
        return Windows.of(drawn.astype(np.int32), rows, data.steps)

    valid = windows(33, data.eval_batch)
    return Splits(windows(414, data.batch), valid, valid)


class _Pictures(NamedTuple):
    """Batches of random images, as many as are asked for."""

    data: Any
    rows: int

    def take(self, first, count):
        rng = np.random.default_rng(first)
        shape = (count, self.rows)
        pixels = (*shape, self.data.size, self.data.size, self.data.channels)
        return Images(
            rng.integers(0, 256, pixels).astype(np.uint8),
            rng.integers(0, self.data.classes, shape).astype(np.int32),
        )


def pictures(config: Config) -> Splits:
    """Streams of random images with the shapes of a configuration."""
    data = tasks.build(config).data
    train, valid = _Pictures(data, data.batch), _Pictures(data, data.eval_batch)
    return Splits(train, valid, valid)


def _flags(changes, prefix="--config"):
    """Changes of a configuration as flags."""
    flags = []
    for name, value in changes.items():
        inner = f"{prefix}.{name}"
        flags += _flags(value, inner) if isinstance(value, dict) else [f"{inner}={value}"]
    return flags
