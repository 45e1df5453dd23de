"""Pieces as jobs, on this machine in place of a cluster: what is submitted, again and not again."""

import importlib.util
import os
import shutil
import signal
import types

import pytest

from launch import cluster, side_by_side
from launch.display import Display
from nas.errors import Interrupted, UserError
from tests.helpers import finish_program, start_program

PIECES = """
import json, os, pathlib, signal, sys

from nas.errors import UserError
from nas.progress import track


def piece(folder, number, does):
    with (folder / f"tries{number}").open("a") as tries:
        tries.write("x")
    if does == "stumble" and (folder / f"tries{number}").read_text() == "x":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "refuse":
        raise UserError("no")
    if does == "crash":
        raise RuntimeError("a bug")
    with track("making", total=1, unit="thing") as advance:
        advance(1)
    main = sys.modules["__main__"].__spec__.name
    (folder / f"made{number}").write_text(json.dumps([main, sys.argv[1]]))
"""
PROGRAM = """
import pathlib

import submitit
from absl import flags

import pieces
from launch import cluster, common, device, side_by_side

common.define_flags()
side_by_side.define_flags()
flags.DEFINE_list("does", [], "What each piece does.")
FLAGS = flags.FLAGS


def engine():
    executor, jobs = submitit.LocalExecutor(pathlib.Path(FLAGS.workdir, "jobs", "%j")), {}
    executor.update_parameters(timeout_min=10)

    class Recorded:
        def submit(self, call):
            job = executor.submit(call)
            jobs[job.job_id] = job
            return job

    def states(numbers):
        return {number: "COMPLETED" if jobs[number].done() else "RUNNING" for number in numbers}

    return lambda ledger, display: cluster.make_all(
        ledger, display, Recorded(), states, poll=0.05, late=5
    )


def main():
    folder = pathlib.Path(FLAGS.workdir)
    device.select_device(FLAGS.platform)
    cluster.open_engine = engine
    side_by_side.run(
        [
            side_by_side.Piece(
                f"piece{n}",
                pieces.piece,
                (folder, n, does),
                after=(f"piece{n - 1}",) if does == "after" else (),
            )
            for n, does in enumerate(FLAGS.does)
        ]
    )
    print("all made")


if __name__ == "__main__":
    common.run(main)
"""


@pytest.fixture
def make(user_environment, tmp_path):
    pytest.importorskip("submitit")
    (tmp_path / "pieces.py").write_text(PIECES)
    (tmp_path / "study.py").write_text(PROGRAM)
    paths = os.pathsep.join(filter(None, (str(tmp_path), user_environment.get("PYTHONPATH"))))

    def make(*does):
        return finish_program(
            start_program(
                user_environment | {"PYTHONPATH": paths},
                "study",
                f"--workdir={tmp_path}",
                "--engine=slurm",
                f"--does={','.join(does)}",
            )
        )

    return make


def test_a_job_makes_its_piece_as_the_program_would(make, tmp_path):
    process = make("make", "after")
    assert (process.returncode, process.stdout) == (0, "all made\n"), process.stderr
    for number in range(2):
        told = (tmp_path / f"made{number}").read_text()
        assert told == f'["study", "--workdir={tmp_path}"]'
        assert (tmp_path / f"tries{number}").read_text() == "x"


@pytest.mark.slow
def test_a_piece_that_fails_or_is_killed_is_submitted_once_more(make, tmp_path):
    process = make("stumble", "refuse", "crash", "after", "make")
    assert process.returncode == 2 and process.stdout == ""
    line = process.stderr.splitlines()[-1]
    assert "error: 2 of 5 pieces failed: piece" in line
    assert "piece1: no (" in line and "piece2: its process ended with exit code 1" in line
    assert "not begun, since they read what is missing: piece3" in line
    tries = [(tmp_path / f"tries{number}") for number in range(5)]
    counted = [path.read_text() if path.exists() else "" for path in tries]
    assert counted == ["xx", "xx", "xx", "", "x"]
    assert (tmp_path / "made0").exists() and (tmp_path / "made4").exists()


class Executor:
    """Submits nothing: a job of a piece goes as `fates` says, one word a try."""

    def __init__(self, folder, fates):
        self._folder, self._fates = folder, {name: list(of) for name, of in fates.items()}
        self.submitted, self._states, self.cancelled = [], {}, []

    def submit(self, call):
        self.submitted.append(call.piece.name)
        number, fate = str(len(self.submitted)), self._fates[call.piece.name].pop(0)
        folder = self._folder / number
        folder.mkdir()
        if fate in ("made", "refused"):
            (folder / "result").touch()
        self._states[number] = {"cancelled": "CANCELLED", "runs": "RUNNING"}.get(fate)
        return types.SimpleNamespace(
            job_id=number,
            paths=types.SimpleNamespace(folder=folder, result_pickle=folder / "result"),
            result=lambda: {"made": "", "refused": "no"}[fate],
            exception=lambda: None,
            cancel=lambda check: self.cancelled.append(number),
        )

    def states(self, numbers):
        return {number: state for number in numbers if (state := self._states[number])}


def make_all(tmp_path, fates, after=None):
    executor = Executor(tmp_path, fates)
    ledger = side_by_side.Ledger(
        [side_by_side.Piece(name, print, after=(after or {}).get(name, ())) for name in fates]
    )
    with Display(dict.fromkeys(fates, 1.0)) as display:
        cluster.make_all(ledger, display, executor, executor.states, poll=0, late=0)
    return executor, ledger


def test_one_more_try_makes_a_piece(tmp_path):
    fates = {"refused": ["refused", "made"], "lost": ["lost", "made"], "next": ["made"]}
    executor, ledger = make_all(tmp_path, fates, {"next": ("lost",)})
    ledger.check()
    assert sorted(executor.submitted[:4]) == ["lost", "lost", "refused", "refused"]
    assert executor.submitted[4:] == ["next"] and not executor.cancelled


def test_the_second_failure_of_a_piece_is_told_and_a_cancelled_job_stays_so(tmp_path):
    fates = {"refused": ["refused"] * 2, "cancelled": ["cancelled"], "made": ["made"], "next": []}
    executor, ledger = make_all(tmp_path, fates, {"next": ("refused",)})
    assert sorted(executor.submitted) == ["cancelled", "made", "refused", "refused"]
    with pytest.raises(UserError) as told:
        ledger.check()
    for part in (
        "2 of 4 pieces failed",
        f"refused: no ({tmp_path}",
        "cancelled: its job ended as CANCELLED",
        "read what is missing: next",
    ):
        assert part in str(told.value)


def test_a_signal_cancels_all_jobs(tmp_path):
    def send(numbers):
        signal.raise_signal(signal.SIGTERM)
        return dict.fromkeys(numbers, "RUNNING")

    executor = Executor(tmp_path, {"a": ["runs"], "b": ["runs"]})
    ledger = side_by_side.Ledger([side_by_side.Piece(name, print) for name in "ab"])
    with Display({"a": 1.0, "b": 1.0}) as display, pytest.raises(Interrupted, match="SIGTERM"):
        cluster.make_all(ledger, display, executor, send, poll=0, late=0)
    assert sorted(executor.cancelled) == ["1", "2"]


def test_what_is_missing_for_a_cluster_is_named(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"submitit is not installed; .*\[slurm\]"):
            cluster.open_engine()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "srun" else name)
    with pytest.raises(UserError, match="--engine=slurm: there is no srun here"):
        cluster.open_engine()
