"""Real processes that are killed, stopped, crowded out or run aground, and the run that goes on afterwards."""

import collections
import random
import shutil
import signal
import time

import pytest

from nas.config import DataConfig
from nas.data import load_corpus
from tests.helpers import (
    TIMEOUT,
    assert_one_line,
    assert_same_run,
    files,
    fill,
    finish_program,
    messages,
    mounted,
    read_metrics,
    start_program,
    tiny,
    write_config,
)

CONFIG = tiny(search={"epochs": 8})  # long enough to be killed at many moments
LINES = 8 * (6 + 1) + 7 * 4  # that it logs


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Flags that search with CONFIG."""
    folder = tmp_path_factory.mktemp("faults")
    write_config(folder / "tiny.py", CONFIG)
    load_corpus(DataConfig(), data_dir=str(folder / "data"))
    return [f"--config={folder / 'tiny.py'}", f"--data_dir={folder / 'data'}"]


@pytest.fixture
def search(arguments, user_environment):
    """Starts a search in a directory."""
    return lambda workdir, *more: start_program(user_environment, "launch.search", *arguments, f"--workdir={workdir}", *more)


@pytest.fixture
def whole(search, tmp_path_factory):
    """The directory of a search that nothing interrupted."""
    workdir = tmp_path_factory.getbasetemp() / "whole-search"
    if not workdir.exists():
        process = finish_program(search(workdir))
        assert process.returncode == 0 and messages(process) == [], process.stderr
    return workdir


def logged(workdir) -> int:
    """Lines of metrics that a running search has written."""
    try:
        return (workdir / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return -1


def wait_for(process, condition):
    """Until the condition holds or the process has ended."""
    end = time.monotonic() + TIMEOUT
    while not condition() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.001)


def kill(process, workdir, lines, delay) -> bool:
    """Kills a search `delay` seconds after it has logged so many lines; whether it was still running."""
    wait_for(process, lambda: logged(workdir) >= lines)
    time.sleep(delay)
    process.kill()
    return finish_program(process).returncode == -signal.SIGKILL


def assert_finishes(process, workdir, whole):
    process = finish_program(process)
    assert process.returncode == 0 and messages(process) == [], process.stderr
    assert process.stdout.startswith("best validated: perplexity ")
    assert_same_run(CONFIG, workdir, whole)


def test_killed_again_and_again(search, whole, tmp_path):
    moments, kills = random.Random(0), 0
    for quarter in range(4):
        lines = moments.randrange(quarter * LINES // 4, (quarter + 1) * LINES // 4)
        kills += kill(search(tmp_path), tmp_path, min(lines, LINES - 11), moments.uniform(0, 0.02))
    assert kills == 4
    assert_finishes(search(tmp_path), tmp_path, whole)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(search, whole, tmp_path, capfd):
    """Every fifth kill comes before anything was logged; of the others most fall into the writing of checkpoints."""
    moments, same, found = random.Random(1), 0, collections.Counter()
    for i in range(20):
        workdir = tmp_path / str(i)
        lines = -1 if i % 5 == 0 else moments.randrange(LINES - 10)
        assert kill(search(workdir), workdir, lines, moments.uniform(0, 3 if lines < 0 else 0.04))
        unfinished = list(workdir.glob("checkpoints/*.orbax-checkpoint-tmp"))
        saved = len(list(workdir.glob("checkpoints/*"))) - len(unfinished)
        found["while a checkpoint was written" if unfinished else "elsewhere"] += 1
        found["after a checkpoint" if saved else "before the first checkpoint"] += 1
        assert_finishes(search(workdir), workdir, whole)
        same += 1
    with capfd.disabled():
        print(f"\n{same} of 20 killed searches continued to the same bits; killed {dict(found)}")


def test_stopped_by_signals(search, whole, tmp_path):
    for number, code, lines in ((signal.SIGTERM, 0, 4), (signal.SIGINT, 130, 40)):
        process = search(tmp_path)
        wait_for(process, lambda lines=lines: logged(tmp_path) >= lines)
        process.send_signal(number)
        process = finish_program(process)
        assert process.returncode == code, process.stderr
        (line,) = messages(process)
        assert line.startswith(f"{number.name}: saved at epoch ") and line.endswith("run the same command again to continue")
        assert process.stdout == ""
        assert len(read_metrics(tmp_path)) < LINES
    assert_finishes(search(tmp_path), tmp_path, whole)


def test_a_second_process_on_one_directory(search, whole, tmp_path):
    first = search(tmp_path)
    wait_for(first, lambda: logged(tmp_path) >= 2)
    first.send_signal(signal.SIGSTOP)
    try:
        before = logged(tmp_path)
        assert_one_line(finish_program(search(tmp_path)), f"--workdir: {tmp_path} is in use by another process")
        assert logged(tmp_path) == before
    finally:
        first.send_signal(signal.SIGCONT)
    assert_finishes(first, tmp_path, whole)


def test_a_loss_that_is_not_finite(search, tmp_path):
    process = finish_program(search(tmp_path, "--config.supernet.learning_rate=1e38", "--config.supernet.max_norm=0"))
    assert_one_line(process, " is not finite at shared step ", "architecture '", "last good checkpoint: none in ", "=skip")


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


def test_a_directory_that_cannot_be_written(search, whole, tmp_path):
    with mounted(tmp_path / "disk", 1000) as make_read_only:
        shutil.copytree(whole, tmp_path / "disk" / "run")
        assert make_read_only()
        process = finish_program(search(tmp_path / "disk" / "run"))
        assert_one_line(process, f"--workdir: cannot write to {tmp_path / 'disk' / 'run'}: Read-only file system")
