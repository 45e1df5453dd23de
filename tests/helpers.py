"""A search small enough to be run many times, programs to run it, and comparisons of what it leaves
behind.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from launch.configs.kjv_quick import get_config
from nas import logs, steps, tasks
from nas.checkpoint import Checkpoints
from nas.config import Config, choose, from_dict, override
from nas.controllers import POLICIES, build_policy
from nas.data.text import Text
from nas.data.tokens import Windows
from nas.scored import FILE
from nas.spaces.recurrent import RecurrentSpace
from nas.strategies import STRATEGIES, build_strategy
from nas.supernets.recurrent.language_model import LanguageModel
from nas.tasks import Splits, Task

TIMEOUT = 600  # seconds after which a program hangs, however busy the machine
TINY = {
    "space": {"num_nodes": 3},
    "data": {"vocabulary": 50, "batch": 4, "steps": 5, "eval_batch": 4},
    "network": {"width": 8, "learning_rate": 1.0, "warmup_epochs": 0},
    "policy": {"width": 8},
    "strategy": {
        "supervised_weight": 1.0,
        "learning_rate": 1e-3,
        "memory": {"capacity": 12, "refresh_size": 6, "batch": 4},
    },
    "search": {
        "epochs": 3,
        "warmup_epochs": 1,
        "shared_steps": 6,
        "controller_steps": 4,
        "chunk": 2,
        "valid_architectures": 3,
        "keep": 3,
    },
    "evaluation": {"architectures": 6, "examples": 40},
}
CHECKPOINTS = [11, 22, 33]  # the numbers that its three epochs end with


def tiny(**groups) -> Config:
    """The tiny search, some fields of some groups replaced: tiny(seed=1, search={"epochs": 1}).

    A policy or strategy of another name brings the settings of its own.
    """
    base = override(from_dict(get_config().to_dict()), TINY)
    for group, registry in (("policy", POLICIES), ("strategy", STRATEGIES)):
        if name := groups.get(group, {}).get("name"):
            chosen = choose(registry, getattr(base, group), name, group)
            base = dataclasses.replace(base, **{group: chosen})
    return override(base, groups)


def recurrent_task(num_nodes: int) -> Task:
    """Cells of so many nodes, judged as the presets judge them."""
    return Task("recurrent", RecurrentSpace(num_nodes=num_nodes), Text(), LanguageModel())


def splits_of(config, train, valid) -> Splits:
    """Windows of two token streams [n], as the task's data would cut them; validation is also
    test.
    """
    data = tasks.build(config).data
    valid = Windows.of(valid, data.eval_batch, data.steps)
    return Splits(Windows.of(train, data.batch, data.steps), valid, valid)


def policy_of(name, space, **settings):
    """A policy by name; settings that it does not have are left out."""
    return build_policy(choose(POLICIES, settings, name, "policy"), space)


def strategy_of(name, space, policy, **settings):
    """A strategy by name, of its default memory but for fields that are given."""
    chosen = choose(STRATEGIES, {}, name, "strategy")
    known = {field: value for field, value in settings.items() if field in chosen}
    if "memory" in known:
        known["memory"] = chosen["memory"] | known["memory"]
    return build_strategy(chosen | known, space, policy)


_PROGRESS = re.compile(r"[^:]+: \d+ %")
SIGNAL = "TEST_SIGNAL"  # environment variable: a signal and a number of lines, "15,4"
SIGNALLED = """

import os

if wanted := os.environ.get("TEST_SIGNAL"):
    from nas import logs

    number, lines = map(int, wanted.split(","))
    if logs.Writer.write.__name__ == "write":
        write, count = logs.Writer.write, [0]

        def signalled(self, phase, epoch, first_step, values, seconds):
            write(self, phase, epoch, first_step, values, seconds)
            before = count[0]
            count[0] += len(next(iter(values.values())))
            if before < lines <= count[0]:
                os.kill(os.getpid(), number)

        logs.Writer.write = signalled
"""


def write_config(path: pathlib.Path, config: Config) -> None:
    """A configuration file for --config, which is Python that the program runs.

    Where SIGNAL is set, the program sends itself that signal when it has logged so many lines:
    whoever sent it from outside might come too late.
    """
    path.write_text(f"def get_config():\n    return {dataclasses.asdict(config)!r}\n{SIGNALLED}")


def signalled(number: int, lines: int) -> dict[str, str]:
    """The environment in which a program sends itself a signal after so many lines."""
    return {SIGNAL: f"{int(number)},{lines}"}


def start_program(environment, module, *arguments) -> subprocess.Popen:
    """Starts `python -m module` with its output in pipes."""
    return start_python(environment, "-m", module, *arguments)


def start_python(environment, *arguments) -> subprocess.Popen:
    """Starts Python with its output in pipes, and Ctrl-C as it is in a terminal.

    A shell withholds Ctrl-C from what a script starts in the background, and so from what that
    starts.
    """
    command = [sys.executable, *map(str, arguments)]
    handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # with a handler of ours a program has the usual one
    try:
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, handler)


def finish_program(process) -> subprocess.CompletedProcess:
    """Waits for a started program; the guard is for one that hangs, and no measure of its speed."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(condition, *processes) -> None:
    """Waits for what only the file system tells, while the processes run; the guard is for one that
    hangs.
    """
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert all(process.poll() is None for process in processes), [
            process.communicate() for process in processes
        ]
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.01)


def wait_until_stopped(process) -> None:
    """Waits until SIGSTOP has stopped a process."""
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def messages(process) -> list[str]:
    """The lines on standard error that do not tell how far the program is."""
    return [line for line in process.stderr.splitlines() if not _PROGRESS.match(line)]


def assert_one_line(process, *parts):
    """The program ended with one line that holds `parts`, and exit code 2."""
    assert process.returncode == 2, process.stderr
    lines = messages(process)
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    for part in parts:
        assert part in lines[0]


def figure_texts(figure, width: float) -> str:
    """Draws a figure, no wider than so many inches, then returns all that is written in it, none of
    it too small to read.
    """
    from matplotlib.text import Text

    figure.canvas.draw()
    written = [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()
    ]
    assert all(text.get_fontsize() >= 8 for text in written)
    assert figure.get_size_inches()[0] <= width
    return "\n".join(text.get_text() for text in written)


@contextlib.contextmanager
def mounted(folder: pathlib.Path, kilobytes: int):
    """A file system of that size at `folder`, which is made; skips the test where mounting is not
    allowed.

    Yields:
      a function that makes it read-only.
    """

    def mount(*arguments):
        return subprocess.run(["mount", *arguments, folder], capture_output=True).returncode == 0

    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"):
        pytest.skip("may not mount a file system")
    try:
        yield lambda: mount("-o", "remount,ro")
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: pathlib.Path) -> pathlib.Path:
    """A file that takes all the room left on a file system."""
    path = disk / "ballast"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    return path


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Path -> content of all files below a folder, which must not change where nothing may be
    written.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_same_bits(a, b):
    """Two trees with the same leaves, bit for bit."""

    def check(path, a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes()), (
            jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(check, a, b)


def restore(config: Config, workdir: pathlib.Path):
    """State, carry and progress of the newest intact checkpoint."""
    parts = steps.components(config)
    template = jax.eval_shape(lambda: steps.initial_checkpoint(config, parts))
    checkpoints = Checkpoints(workdir, config.search.keep)
    try:
        return checkpoints.restore(template)
    finally:
        checkpoints.close()


def read_metrics(workdir: pathlib.Path) -> list[dict]:
    """The lines of a run's metrics, their times left out; every line must be whole."""
    lines = logs.read(workdir)
    assert 1 + len(lines) == len((workdir / logs.FILE).read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def scored(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Decisions [n, T] and rewards [n] of all architectures that a run has scored."""
    found = np.load(workdir / FILE)
    return {"decisions": found["decisions"], "rewards": found["reward"]}


def expected_lines(config: Config) -> set[tuple[str, int]]:
    """(phase, step) of all lines of a finished run's metrics."""
    settings = config.search
    counts = {
        "shared": settings.epochs * settings.shared_steps,
        "controller": (settings.epochs - settings.warmup_epochs) * settings.controller_steps,
        "valid": settings.epochs,
    }
    return {(phase, step) for phase, count in counts.items() for step in range(count)}


def assert_same_run(config: Config, workdir: pathlib.Path, reference: pathlib.Path):
    """Two finished runs are the same, bit for bit: all that a checkpoint holds, metrics but for
    times, architectures.
    """
    (state, progress), (expected, expected_progress) = (
        restore(config, path) for path in (workdir, reference)
    )
    assert progress == expected_progress and progress["epoch"] == config.search.epochs
    assert_same_bits(state, expected)
    lines = read_metrics(workdir)
    assert [json.dumps(line) for line in lines] == [
        json.dumps(line) for line in read_metrics(reference)
    ]
    names = [(line["phase"], line["step"]) for line in lines]
    assert len(names) == len(set(names)) and set(names) == expected_lines(config)
    assert_same_bits(*(scored(path) for path in (workdir, reference)))


def flip(path, rng):
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
