"""Pieces side by side: they are made on cores of their own, one that fails ends no other, and what
ends the program ends all in order.
"""

import json
import os
import signal

import pytest

from launch import side_by_side, workers
from nas.errors import UserError
from tests.helpers import assert_one_line, finish_program, messages, start_program, wait_until

PROGRAM = """
import json, os, pathlib, signal, sys

from absl import flags

from launch import common, device, side_by_side
from nas.errors import UserError

common.define_flags()
side_by_side.define_flags()
flags.DEFINE_list("does", [], "What each piece does.")
FLAGS = flags.FLAGS


def piece(folder, number, does):
    import jax

    from nas.progress import track

    if does == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            (folder / f"began{number}").touch()
            while True:
                signal.pause()
        finally:
            (folder / f"ended{number}").touch()
    if does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "refuse":
        raise UserError("no")
    if does == "after" and not (folder / "made0").exists():
        raise UserError("piece 0 is not made")
    print("unseen", file=sys.stderr)
    with track("making", total=1, unit="thing") as advance:
        advance(1)
    told = [sorted(os.sched_getaffinity(0)), jax.default_backend(), FLAGS.does, os.getpid()]
    (folder / f"made{number}").write_text(json.dumps(told))


def main():
    folder = pathlib.Path(FLAGS.workdir)
    pieces = [
        side_by_side.Piece(
            f"piece{n}",
            piece,
            (folder, n),
            {"does": does},
            after=("piece0", "elsewhere") if n and does == "after" else (),
        )
        for n, does in enumerate(FLAGS.does)
    ]
    device.select_device(FLAGS.platform)
    side_by_side.run(pieces)
    print("after", os.getpid())


if __name__ == "__main__":
    common.run(main)
"""
two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")


@pytest.fixture
def start(user_environment, tmp_path):
    (tmp_path / "pieces.py").write_text(PROGRAM)
    paths = os.pathsep.join(filter(None, (str(tmp_path), user_environment.get("PYTHONPATH"))))
    environment = user_environment | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}

    def start(*does, jobs=2):
        return start_program(
            environment,
            "pieces",
            f"--workdir={tmp_path}",
            f"--does={','.join(does)}",
            f"--jobs={jobs}",
        )

    return start


def told(folder, number):
    """What a piece that was made has told: its cores, the platform, the flag, its process."""
    return json.loads((folder / f"made{number}").read_text())


def exist(*paths):
    return lambda: all(path.exists() for path in paths)


def test_processes_share_cores_and_gpus():
    """Each has a GPU of its own, or its part of nine tenths of the memory of one."""

    def told(share):
        fraction = share.environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
        return share.cores, share.environment.get("CUDA_VISIBLE_DEVICES"), fraction

    assert workers.shares(2, [4, 5, 6], []) == [([4, 6], {}), ([5], {})]
    alone = [told(share) for share in workers.shares(2, range(4), ["3", "5"])]
    assert alone == [([0, 2], "3", "0.9"), ([1, 3], "5", "0.9")]
    shared = [told(share) for share in workers.shares(3, range(3), ["0"])]
    assert shared == [([0], "0", "0.3"), ([1], "0", "0.3"), ([2], "0", "0.3")]
    uneven = [told(share)[1:] for share in workers.shares(3, range(3), ["0", "1"])]
    assert uneven == [("0", "0.45"), ("1", "0.9"), ("0", "0.45")]
    few = [share.cores for share in workers.shares(3, [0, 1], ["0", "1", "2"])]
    assert few == [[0], [1], []]  # the last is bound to none, and so to all


def test_what_reads_a_failed_piece_is_left_out_with_what_reads_that():
    def piece(name, *after):
        return side_by_side.Piece(name, print, after=after)

    ledger = side_by_side.Ledger(
        [piece("a"), piece("b", "a"), piece("c", "b"), piece("d"), piece("e", "d", "elsewhere")]
    )
    first, second = ledger.next(), ledger.next()
    assert (first.name, second.name, ledger.next()) == ("a", "d", None)
    ledger.failed(first, "why")
    ledger.made(second)
    assert ledger.next().name == "e" and not ledger.waiting
    with pytest.raises(UserError, match="1 of 5 pieces failed: a: why; not begun, .*: b, c;"):
        ledger.check()


@two_cores
def test_every_piece_is_made_on_cores_of_its_own(start, tmp_path):
    process = finish_program(start("make", "make", "make"))
    assert process.returncode == 0 and process.stdout.startswith("after "), process.stderr
    first, second, third = (told(tmp_path, number) for number in range(3))
    assert not set(first[0]) & set(second[0]) and set(first[0]) | set(
        second[0]
    ) == os.sched_getaffinity(0)
    assert all(
        backend == "cpu" and flag == ["make"] * 3 for _, backend, flag, _ in (first, second, third)
    )
    assert (
        messages(process) == [] and "piece0: 0 %" in process.stderr and "all: 0 %" in process.stderr
    )


@two_cores
def test_a_piece_begins_after_those_whose_results_it_reads(start, tmp_path):
    process = finish_program(start("make", "after", "after", jobs=2))
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "made1").exists() and (tmp_path / "made2").exists()


def test_one_at_a_time_they_are_made_here(start, tmp_path):
    process = finish_program(start("make", "after", jobs=1))
    assert process.returncode == 0, process.stderr
    assert {told(tmp_path, number)[3] for number in range(2)} == {int(process.stdout.split()[1])}
    assert messages(process) == ["unseen", "unseen"]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=two_cores)])
def test_one_that_fails_ends_only_those_that_read_its_result(start, tmp_path, jobs):
    process = finish_program(start("refuse", "make", "after", "make", jobs=jobs))
    assert process.returncode == 2 and process.stdout == ""
    assert messages(process)[-1] == (
        "error: 1 of 4 pieces failed: piece0: no; not begun, since they read what is missing: "
        "piece2; finished pieces are kept, and the same command makes the missing ones"
    )
    made = [(tmp_path / f"made{number}").exists() for number in range(4)]
    assert made == [False, True, False, True]


@pytest.mark.slow
def test_a_piece_that_the_system_kills(start, tmp_path):
    process = finish_program(start("die", "make", "die"))
    assert_one_line(process, "2 of 3 pieces failed", "piece0", "piece2", "--jobs", "signal 9")
    assert (tmp_path / "made1").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_all_of_them(start, tmp_path, number, code):
    process = start("wait", "wait", "make")
    wait_until(exist(tmp_path / "began0", tmp_path / "began1"), process)
    process.send_signal(number)
    process = finish_program(process)
    assert process.returncode == code and signal.Signals(number).name in messages(process)[-1]
    assert (
        (tmp_path / "ended0").exists()
        and (tmp_path / "ended1").exists()
        and not (tmp_path / "made2").exists()
    )


@pytest.mark.slow
def test_a_killed_program_takes_its_pieces_along(start, tmp_path):
    process = start("wait", "wait")
    wait_until(exist(tmp_path / "began0", tmp_path / "began1"), process)
    process.kill()
    process.communicate()
    wait_until(exist(tmp_path / "ended0", tmp_path / "ended1"))
