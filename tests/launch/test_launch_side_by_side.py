"""Pieces side by side: they are made on cores of their own, and what ends one of them, or the program, ends all in order."""

import contextlib
import json
import os
import signal

import pytest

from tests.helpers import assert_one_line, finish_program, messages, start_program, wait_until

PROGRAM = """
import json, os, pathlib, signal, sys

from absl import flags

from launch import common, side_by_side
from nas.errors import UserError

common.define_flags()
side_by_side.define_flag()
flags.DEFINE_list("does", [], "What each piece does.")
FLAGS = flags.FLAGS


def piece(folder, number, does):
    import jax

    def sleep():
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            (folder / f"began{number}").write_text(str(os.getpid()))
            open(folder / "turn", "w")  # waits for one that reads
            while True:
                signal.pause()
        finally:
            (folder / f"ended{number}").touch()

    if does == "sleep":
        sleep()
    if does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "refuse":
        open(folder / "turn")  # waits for one that sleeps
        raise UserError("no")
    print("unseen", file=sys.stderr)
    told = [sorted(os.sched_getaffinity(0)), jax.default_backend(), FLAGS.does]
    (folder / f"made{number}").write_text(json.dumps(told))


def main():
    folder = pathlib.Path(FLAGS.workdir)
    pieces = [side_by_side.Piece(piece, (folder, number), {"does": does}) for number, does in enumerate(FLAGS.does)]
    common.select_device(FLAGS.platform)
    side_by_side.run(pieces, "piece")
    print("after")


if __name__ == "__main__":
    common.run(main)
"""
two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")


@pytest.fixture
def start(user_environment, tmp_path):
    (tmp_path / "pieces.py").write_text(PROGRAM)
    os.mkfifo(tmp_path / "turn")
    paths = os.pathsep.join(filter(None, (str(tmp_path), user_environment.get("PYTHONPATH"))))
    environment = user_environment | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}

    def start(*does, jobs=2):
        return start_program(environment, "pieces", f"--workdir={tmp_path}", f"--does={','.join(does)}", f"--jobs={jobs}")

    yield start
    for path in tmp_path.glob("began*"):  # where a test failed, a piece would sleep for ever
        if not (tmp_path / path.name.replace("began", "ended")).exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)


def exist(*paths):
    return lambda: all(path.exists() for path in paths)


@two_cores
def test_every_piece_is_made_on_cores_of_its_own(start, tmp_path):
    process = finish_program(start("make", "make", "make"))
    assert (process.returncode, process.stdout) == (0, "after\n"), process.stderr
    told = [json.loads((tmp_path / f"made{number}").read_text()) for number in range(3)]
    assert not set(told[0][0]) & set(told[1][0]) and set(told[0][0]) | set(told[1][0]) == os.sched_getaffinity(0)
    assert all(backend == "cpu" and flag == ["make"] * 3 for _, backend, flag in told)
    assert messages(process) == [] and "3/3" in process.stderr


def test_one_at_a_time_leaves_them_to_the_reader(start, tmp_path):
    process = finish_program(start("die", "die", jobs=1))
    assert (process.returncode, process.stdout) == (0, "after\n")


def test_the_first_that_fails_ends_the_others(start, tmp_path):
    process = finish_program(start("sleep", "refuse", "make"))
    assert process.returncode == 2 and messages(process) == ["error: no"]
    assert (tmp_path / "ended0").exists() and not (tmp_path / "made2").exists()


@pytest.mark.slow
def test_a_piece_that_the_system_kills(start):
    assert_one_line(finish_program(start("die", "die")), "--jobs", "signal 9")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_all_of_them(start, tmp_path, number, code):
    process = start("sleep", "sleep", "make")
    wait_until(exist(tmp_path / "began0", tmp_path / "began1"), process)
    process.send_signal(number)
    process = finish_program(process)
    assert process.returncode == code and signal.Signals(number).name in messages(process)[-1]
    assert (tmp_path / "ended0").exists() and (tmp_path / "ended1").exists() and not (tmp_path / "made2").exists()


@pytest.mark.slow
def test_a_killed_program_takes_its_pieces_along(start, tmp_path):
    process = start("sleep", "sleep")
    wait_until(exist(tmp_path / "began0", tmp_path / "began1"), process)
    process.kill()
    process.communicate()
    wait_until(exist(tmp_path / "ended0", tmp_path / "ended1"))
