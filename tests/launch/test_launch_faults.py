"""Real processes that are killed, stopped, crowded out or run aground, and the run that goes on
afterwards.
"""

import collections
import functools
import json
import random
import shutil
import signal
import subprocess
import time

import pytest

from nas.data.text import load_corpus
from tests.forked import run_forked
from tests.helpers import (
    assert_one_line,
    assert_same_run,
    files,
    fill,
    finish_program,
    messages,
    mounted,
    read_metrics,
    signalled,
    start_program,
    tiny,
    wait_until,
    wait_until_stopped,
    write_config,
)

CONFIG = tiny(
    policy={"name": "factorised"}, strategy={"supervised": "next_decision"}
)  # compiles quickly
LINES = 3 * (6 + 1) + 2 * 4  # that it logs


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Flags that search with CONFIG."""
    folder = tmp_path_factory.mktemp("faults")
    write_config(folder / "tiny.py", CONFIG)
    load_corpus("kjv", 4000, data_dir=str(folder / "data"))
    return [f"--config={folder / 'tiny.py'}", f"--data_dir={folder / 'data'}"]


@pytest.fixture(scope="module")
def search(arguments, quick_environment):
    """Starts a search in a directory."""

    def start(workdir, *more, **environment):
        command = ["launch.search", *arguments, f"--workdir={workdir}", *more]
        return start_program(quick_environment | environment, *command)

    return start


@pytest.fixture(scope="module")
def whole(search, tmp_path_factory):
    """The directory of a search that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    assert_finishes(search(workdir), workdir)
    return workdir


def assert_finishes(process, workdir, whole=None):
    if isinstance(process, subprocess.Popen):
        process = finish_program(process)
    told = [line for line in messages(process) if " devices: of the " not in line]
    assert process.returncode == 0 and told == [], process.stderr
    assert process.stdout.startswith("best validated: perplexity ")
    if whole is not None:
        assert_same_run(CONFIG, workdir, whole)


def test_stopped_by_signals(arguments, whole, quick_environment, tmp_path):
    command = ["launch.search", *arguments, f"--workdir={tmp_path}"]
    for number, code, lines in ((signal.SIGTERM, 0, 4), (signal.SIGINT, 130, 12)):
        process = run_forked(quick_environment | signalled(number, lines), *command)
        assert process.returncode == code, process.stderr
        (line,) = messages(process)
        assert line.startswith(f"{number.name}: saved at epoch ") and line.endswith(
            "run the same command again to continue"
        )
        assert process.stdout == ""
        assert len(read_metrics(tmp_path)) < LINES
    assert_finishes(run_forked(quick_environment, *command), tmp_path, whole)


@pytest.mark.slow
def test_killed_again_and_again(search, whole, tmp_path):
    for lines in (2, 9, 4, 7):  # of those that each process logs
        process = finish_program(search(tmp_path, **signalled(signal.SIGKILL, lines)))
        assert process.returncode == -signal.SIGKILL
    assert_finishes(search(tmp_path), tmp_path, whole)


def logged(workdir) -> int:
    """Lines of metrics that a running search has written."""
    try:
        return (workdir / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return -1


def kill(process, workdir, lines, delay) -> bool:
    """Kills a search `delay` seconds after it has logged so many lines; whether it was still
    running.
    """
    wait_until(lambda: logged(workdir) >= lines or process.poll() is not None)
    time.sleep(delay)
    process.kill()
    return finish_program(process).returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_killed_at_twenty_random_moments(devices, search, quick_environment, tmp_path, capfd):
    """In either phase; every fifth kill comes before anything was logged, many of the others fall
    into the writing of checkpoints.
    """
    flags = f"--xla_force_host_platform_device_count={devices} {quick_environment['XLA_FLAGS']}"
    search = functools.partial(search, XLA_FLAGS=flags, NPROC="8")
    whole = tmp_path / "whole"
    assert_finishes(search(whole), whole)
    assert json.loads((whole / "run.json").read_text())["versions"]["device"].endswith(f"{devices}")
    moments, found = random.Random(devices), collections.Counter()
    while found["killed"] < 20:
        found["started"] += 1
        assert found["started"] < 100, "every kill came too late"
        workdir = tmp_path / str(found["started"])
        lines = -1 if found["started"] % 5 == 0 else moments.randrange(LINES - 10)
        if not kill(search(workdir), workdir, lines, moments.uniform(0, 3 if lines < 0 else 0.04)):
            continue  # it had come to its end
        unfinished = list(workdir.glob("checkpoints/*.orbax-checkpoint-tmp"))
        saved = len(list(workdir.glob("checkpoints/*"))) - len(unfinished)
        found["killed"] += 1
        found["while a checkpoint was written" if unfinished else "elsewhere"] += 1
        found["after a checkpoint" if saved else "before the first checkpoint"] += 1
        assert_finishes(search(workdir), workdir, whole)
    with capfd.disabled():
        print(f"\nall killed searches continued to the same bits, {devices}: {dict(found)}")


@pytest.mark.slow
def test_a_second_process_on_one_directory(search, whole, tmp_path):
    first = search(tmp_path, **signalled(signal.SIGSTOP, 2))
    wait_until_stopped(first)
    try:
        before = logged(tmp_path)
        assert_one_line(
            finish_program(search(tmp_path)), f"--workdir: {tmp_path} is in use by another process"
        )
        assert logged(tmp_path) == before == 3  # the first says what a loss is
    finally:
        first.send_signal(signal.SIGCONT)
    assert_finishes(first, tmp_path, whole)


@pytest.mark.slow
def test_a_loss_that_is_not_finite(search, tmp_path):
    process = finish_program(
        search(tmp_path, "--config.network.learning_rate=1e38", "--config.network.max_norm=0")
    )
    assert_one_line(
        process,
        " is not finite at shared step ",
        "architecture '",
        "last good checkpoint: none in ",
        "=skip",
    )


@pytest.mark.slow
def test_a_disk_that_fills(search, whole, tmp_path):
    with mounted(tmp_path / "disk", 1000):
        workdir = tmp_path / "disk" / "run"
        shutil.copytree(whole, workdir)
        newest = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
        shutil.rmtree(workdir / "checkpoints" / str(newest))
        before = files(workdir / "checkpoints")
        ballast = fill(tmp_path / "disk")
        process = finish_program(search(workdir))
        assert_one_line(process, f"{workdir}", "No space left on device")
        after = files(workdir / "checkpoints")
        assert {name: after.get(name) for name in before} == before
        ballast.unlink()
        assert_finishes(search(workdir), workdir, whole)


@pytest.mark.slow
def test_a_directory_that_cannot_be_written(search, whole, tmp_path):
    with mounted(tmp_path / "disk", 1000) as make_read_only:
        shutil.copytree(whole, tmp_path / "disk" / "run")
        assert make_read_only()
        process = finish_program(search(tmp_path / "disk" / "run"))
        assert_one_line(
            process,
            f"--workdir: cannot write to {tmp_path / 'disk' / 'run'}: Read-only file system",
        )
