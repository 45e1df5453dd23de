"""Searches and studies under a real Slurm of two nodes, which these tests start on this machine.

Whatever takes a job its nodes, it queues again and comes to the numbers of one that was left alone.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile

import pytest

from nas.data.text import load_corpus
from tests.helpers import expected_lines, finish_program, read_metrics, start_program, tiny
from tests.launch import slurm_here

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_here.missing()), reason=slurm_here.missing()),
]
ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = {"data": {"vocabulary": 30, "batch": 8, "eval_batch": 8}, "evaluation": {"examples": 80}}
SHORT = tiny(**DATA, strategy={"supervised_weight": 30.0})
LONG = tiny(**DATA, search={"epochs": 30, "keep": 2})  # long enough to be interrupted on its way


@pytest.fixture(scope="module")
def cluster():
    with (
        tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as folder,  # a short path
        slurm_here.slurm(pathlib.Path(folder)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Configuration -> flags that search with it."""
    folder = tmp_path_factory.mktemp("data")
    load_corpus("kjv", 4000, data_dir=str(folder))

    def flags(config):
        path = folder / f"{'short' if config is SHORT else 'long'}.py"
        path.write_text(f"def get_config():\n    return {dataclasses.asdict(config)!r}\n")
        return [f"--config={path}", f"--data_dir={folder}", "--platform=cpu"]

    return flags


@pytest.fixture(scope="module")
def submit(cluster, arguments, quick_environment, tmp_path_factory):
    """Submits launch/slurm.sh; its environment is this one, and not installed anew."""
    checkout = tmp_path_factory.mktemp("checkout")
    (checkout / "launch").mkdir()
    shutil.copy(ROOT / "launch" / "slurm.sh", checkout / "launch")
    (checkout / "launch" / "environment.sh").write_text(
        f"set -euo pipefail\npython={sys.executable}\n"
    )
    flags = "--xla_force_host_platform_device_count=2 " + quick_environment["XLA_FLAGS"]
    environment = quick_environment | cluster.variables | {"XLA_FLAGS": flags, "NPROC": "8"}

    def submit(workdir, *more):
        return cluster.submit(
            "--nodes=2",
            f"--gpus-per-node={slurm_here.GPUS}",
            f"--output={workdir}.out",
            "launch/slurm.sh",
            *(more or arguments(LONG)),
            f"--workdir={workdir}",
            cwd=checkout,
            env=environment,
        )

    return submit


@pytest.fixture(scope="module")
def whole(cluster, submit, tmp_path_factory):
    """The metrics of a search on both nodes that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    job = cluster.finish(submit(workdir))
    said = output(workdir)
    assert job["JobState"] == "COMPLETED" and job["Restarts"] == "0", said
    assert said.count("2 processes, 4 cpu devices (2 in each): of the 8 rows") == 1
    lines = read_metrics(workdir)
    assert {(line["phase"], line["step"]) for line in lines} == expected_lines(LONG)
    return lines


def output(workdir):
    return workdir.with_name(f"{workdir.name}.out").read_text()


def has_epochs(workdir, count):
    """Whether so many epochs are logged; others of the search are still to come."""

    def check():
        with contextlib.suppress(OSError):
            return (workdir / "metrics.jsonl").read_text().count('"valid"') > count
        return False

    return check


def assert_went_on(cluster, number, workdir, whole):
    """The job was queued again and its numbers are those of a search that was left alone."""
    job = cluster.finish(number)
    assert job["JobState"] == "COMPLETED" and int(job["Restarts"]) >= 1, output(workdir)
    assert read_metrics(workdir) == whole


def test_at_the_end_of_its_time_a_job_saves_and_queues_again(cluster, submit, whole, tmp_path):
    workdir = tmp_path / "run"
    number = submit(workdir)
    slurm_here.wait_for(has_epochs(workdir, 2))
    cluster.ask("scancel", "--batch", "--signal=USR1", number)  # what Slurm sends then
    assert_went_on(cluster, number, workdir, whole)
    assert re.search(r"SIGTERM: saved at .*\n(.*\n)*stopped before its end", output(workdir))


def test_a_job_that_loses_a_node_queues_again(cluster, submit, whole, tmp_path):
    workdir = tmp_path / "run"
    number = submit(workdir)
    slurm_here.wait_for(has_epochs(workdir, 2))
    cluster.kill_node(slurm_here.NODES[1])
    slurm_here.wait_for(lambda: cluster.job(number).get("Restarts") == "1")
    cluster.start_node(slurm_here.NODES[1])
    slurm_here.wait_for(cluster.is_idle)
    assert_went_on(cluster, number, workdir, whole)


def test_a_stray_signal_does_not_complete_a_job(cluster, submit, whole, tmp_path):
    workdir = tmp_path / "run"
    number = submit(workdir)
    slurm_here.wait_for(has_epochs(workdir, 2))
    cluster.ask("scancel", "--signal=TERM", number)  # to the search alone
    assert_went_on(cluster, number, workdir, whole)


def test_a_cancelled_job_stays_so(cluster, submit, tmp_path):
    workdir = tmp_path / "run"
    number = submit(workdir)
    slurm_here.wait_for(has_epochs(workdir, 2))
    cluster.ask("scancel", number)
    job = cluster.finish(number)
    assert job["JobState"] == "CANCELLED" and job["Restarts"] == "0"


def test_gpus_that_would_stay_unused_are_refused(cluster, submit, arguments, tmp_path):
    job = cluster.finish(submit(tmp_path / "run", *arguments(SHORT)[:-1]))  # no --platform
    assert job["JobState"] == "FAILED"
    assert f"{slurm_here.GPUS} of the {slurm_here.GPUS} GPUs of a node" in output(tmp_path / "run")


def numbers(text):
    """What a study printed, but for times and paths."""
    return [line for line in text.splitlines() if not line.startswith(("Searched, ", "report: "))]


def test_a_study_of_which_pieces_are_killed_and_must_make_room(
    cluster, arguments, quick_environment, tmp_path
):
    pytest.importorskip("submitit")
    environment = quick_environment | cluster.variables

    def start(folder, *more):
        study = [*arguments(LONG), "--arms=pg,memory", "--seeds=0", f"--workdir={folder}"]
        return start_program(environment, "experiments.table_correlations", *study, *more)

    here = finish_program(start(tmp_path / "here", "--jobs=2"))
    assert here.returncode == 0, here.stderr
    study = start(tmp_path / "there", "--engine=slurm", "--cpus=1", "--time=60")
    runs = [tmp_path / "there" / name for name in ("pg-seed0", "memory-seed0")]
    for run in runs:
        slurm_here.wait_for(has_epochs(run, 2))
    killed, moved = (
        next(job for job in cluster.jobs() if job_makes(job, run.name, tmp_path)) for run in runs
    )
    for pid in cluster.processes_of(killed):
        if "spawn_main" in slurm_here.command(pid):  # the process that makes the piece
            os.kill(pid, signal.SIGKILL)
    cluster.ask("scancel", "--signal=USR2", moved)  # what Slurm sends at the end of its time
    slurm_here.wait_for(lambda: cluster.job(moved).get("Restarts") == "1")
    slurm_here.wait_for(lambda: cluster.hurry() or study.poll() is not None, every=0.5)
    there = finish_program(study)
    assert there.returncode == 0, there.stderr
    assert numbers(there.stdout) == numbers(here.stdout)
    jobs = list((tmp_path / "there" / "slurm").glob("[0-9]*"))
    assert len(jobs) == 5  # four pieces, one of them twice
    for run in runs:
        assert read_metrics(run) == read_metrics(tmp_path / "here" / run.name)


def job_makes(number, name, folder):
    """Whether a job makes the piece of this name, as what was submitted says."""
    path = folder / "there" / "slurm" / number / f"{number}_submitted.pkl"
    return path.exists() and name.encode() in path.read_bytes()
