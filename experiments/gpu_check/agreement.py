"""Stages that check whether the device computes what it should: the CPU's numbers, the same numbers
after a kill, the tests, the quick study.
"""

import functools
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from experiments.benchmarks import operations
from experiments.gpu_check.work import Stage, pictures, tokens, use_precision
from launch import device
from nas import config as configs
from nas import logs, steps
from nas.errors import UserError

# Largest relative differences that the order of sums explains: for products whose operands keep all
# bits (TF32 would differ by more), and for rounded ones. An image network in single precision may
# put a pixel on the other side of a ReLU.
_ALLOWED = {"float32": 3e-5, "bfloat16": 3e-3, "images": 2e-3}


def equality(stage: Stage) -> None:
    """Are losses and rewards those that the CPU computes at the same time?

    Raises:
      UserError: they differ by more than rounding explains.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, own = pathlib.Path(folder, "reference.json"), {}
        process = stage.beside(file)
        for name, values in _numbers(stage):
            own[name] = values
            stage.tell(compared=_compared(own, file))
        if process.wait():
            raise UserError("the CPU's numbers could not be computed")
        compared = _compared(own, file)
    stage.tell(compared=compared)
    wrong = [name for name, of in compared.items() if not of["difference"] <= of["allowed"]]
    if wrong:
        raise UserError(f"differ from the CPU's numbers: {', '.join(wrong)}")


def reference(stage: Stage) -> None:
    """Computes the same numbers on the CPU, while the device computes its own."""
    device.select_device("cpu")
    for name, values in _numbers(stage):
        stage.tell(**{name: values})


def _compared(own, file):
    """The largest relative difference of numbers that both have by now, and the one allowed."""
    theirs = json.loads(file.read_text()) if file.exists() else {}
    compared = {}
    for name in own.keys() & theirs.keys():
        ours, wanted = np.array(own[name]), np.array(theirs[name])
        difference = float(np.max(np.abs(ours - wanted) / np.abs(wanted)))
        compared[name] = {"difference": difference, "allowed": _ALLOWED[name.split()[0]]}
    return dict(sorted(compared.items()))


def _numbers(stage):
    """Yields a name, whose first word says what is allowed, and numbers: losses and gradient norms
    of the first shared steps, and rewards of 8 architectures after them.
    """
    for matmul in ("float32", "bfloat16"):
        shapes = {
            "data": {"vocabulary": 1000, "batch": 16, "eval_batch": 16, "steps": 20},
            "network": {
                "width": stage.size.moderate,
                "learning_rate": 1.0,
                "init_scale": 0.07,
                "matmul": operations.SETTING[matmul],
            },
        }
        use_precision(matmul)
        config = stage.preset("ptb_paper", shapes)
        splits = tokens(config)
        logged, state = _trained(config, splits, 20)
        for name, values in logged.items():
            yield f"{matmul} {name}", values
        for together in (1, 8):
            one = configs.override(config, {"network": {"reward_chunk": together}})
            yield f"{matmul} rewards, {together} at a time", _scored(one, splits, state)
    use_precision("float32")
    config = stage.preset("mnist_macro", {"network": {"dropout": 0.0}})
    logged, _ = _trained(config, pictures(config), 5)
    for name, values in logged.items():
        yield f"images {name}", values


def _trained(config, splits, count):
    """What the first steps of the shared weights log, and the state after them."""
    parts = steps.components(config)
    first = jax.jit(lambda: steps.initial_checkpoint(config, parts))()
    chunk = functools.partial(steps.shared_chunk(config, parts), axis_name=None)
    common = np.arange(count, dtype=np.int32), np.int32(0)
    arguments = first["search"], first["carry"], splits.train.take(0, count), common
    state, _, (info, _) = jax.jit(chunk)(*arguments)
    return {name: info[name].tolist() for name in ("loss", "gradient_norm")}, state


def _scored(config, splits, state):
    parts = steps.components(config)
    decisions = parts.task.space.sample_uniform(jax.random.key(1), 8)
    batch = jax.tree.map(lambda leaf: leaf[0], splits.valid.take(0, 1))
    return jax.jit(parts.reward.score)(state.reward, decisions, batch).tolist()


def resume(stage: Stage) -> None:
    """Does a search that was killed and continued end with the numbers of one that was not?

    Raises:
      UserError: it does not.
    """
    ends = {}
    for name in ("whole", "killed"):
        with tempfile.TemporaryDirectory() as folder:
            workdir = pathlib.Path(folder)
            command = stage.program(
                "launch.search",
                f"--workdir={workdir}",
                "--config.search.epochs=4",
                "--config.search.warmup_epochs=1",
            )
            started = time.perf_counter()
            if name == "killed":
                _kill_after_two_checkpoints(command, workdir)
            subprocess.run(command, check=True)
            (*_, last) = (line for line in logs.read(workdir) if line["phase"] == "valid")
        ends[name] = {key: value for key, value in last.items() if key != "seconds"}
        stage.tell(**{f"{name}_seconds": time.perf_counter() - started}, ends=ends)
    if ends["whole"] != ends["killed"]:
        raise UserError(f"other numbers after a kill: {ends}")


def _kill_after_two_checkpoints(command, workdir):
    process = subprocess.Popen(command)
    while process.poll() is None and len([*workdir.glob("checkpoints/[0-9]*")]) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def tests(stage: Stage) -> None:
    """Runs the tests that make sense on any device, on this one.

    Raises:
      UserError: some fail.
    """
    platform = f"--platform={stage.size.platform}"
    options = ["-q", "-p", "no:cacheprovider", "--durations=5"]
    command = [sys.executable, "-m", "pytest", platform, *options, *stage.size.tests]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(process.stdout)
    lines = process.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    stage.tell(failed=failed, last=lines[-1] if lines else "")
    if process.returncode:
        raise UserError(f"tests failed: {len(failed)}")


def quick(stage: Stage) -> None:
    """Runs the quick study as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        command = stage.program(
            "experiments.table_correlations",
            "--arms=pg,memory",
            "--seeds=0",
            f"--workdir={folder}",
        )
        started = time.perf_counter()
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    stage.tell(seconds=time.perf_counter() - started, printed=process.stdout.splitlines())
