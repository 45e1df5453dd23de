"""Searches of two processes on this machine, two devices each: the numbers of one process, and what
a lost one leads to.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess

import numpy as np
import pytest

from launch import processes as joined
from nas.data.text import load_corpus
from nas.errors import UserError
from nas.parallel import choose_devices
from tests.forked import run_forked
from tests.helpers import (
    TIMEOUT,
    assert_one_line,
    expected_lines,
    finish_program,
    read_metrics,
    restore,
    scored,
    start_program,
    tiny,
    wait_until,
)

DATA = {"data": {"vocabulary": 30, "batch": 8, "eval_batch": 8}, "evaluation": {"examples": 80}}
SHORT = tiny(**DATA, network={"learning_rate": 0.3}, search={"epochs": 6})
LONG = tiny(**DATA, search={"epochs": 60, "keep": 2})  # long enough to be killed on its way
LOST = "another process of this run was lost or never came"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Configuration -> flags that search with it."""
    folder = tmp_path_factory.mktemp("processes")
    load_corpus("kjv", 4000, data_dir=str(folder / "data"))

    def flags(config):
        path = folder / f"{'short' if config is SHORT else 'long'}.py"
        path.write_text(f"def get_config():\n    return {dataclasses.asdict(config)!r}\n")
        return [f"--config={path}", f"--data_dir={folder / 'data'}"]

    return flags


@pytest.fixture(scope="module")
def environment():
    """Number of devices -> environment of a program that has them."""
    root = str(pathlib.Path(__file__).resolve().parents[2])

    def variables(devices):
        xla = {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "NPROC": str(4 * devices),
        }
        return dict(os.environ) | xla | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": root}

    return variables


@pytest.fixture(scope="module")
def start(arguments, environment):
    """Starts one process, and ends it with the module if it is still there."""
    with contextlib.ExitStack() as stack:

        def start_one(config, workdir, *more, devices=2):
            process = start_program(
                environment(devices),
                "launch.search",
                *arguments(config),
                f"--workdir={workdir}",
                *more,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start_one


@pytest.fixture(scope="module")
def start_two(start):
    """Starts two processes of one search; `second` are flags of the second alone."""

    def start_both(config, workdir, *more, second=()):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            shared = [
                f"--coordinator=localhost:{free.getsockname()[1]}",
                "--num_processes=2",
                *more,
            ]
        return [
            start(config, workdir, *shared, f"--process_id={i}", *own)
            for i, own in enumerate([(), second])
        ]

    return start_both


@pytest.fixture(scope="module")
def whole(start_two, tmp_path_factory):
    """The directory of a search by two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    processes = start_two(SHORT, folder / "run", second=[f"--workdir={folder / 'other'}"])
    for process in map(finish_program, processes):
        assert process.returncode == 0, process.stderr
    assert [path.name for path in folder.iterdir()] == ["run"]  # the second process wrote nothing
    return folder / "run"


def has_checkpoint(workdir):
    return lambda: any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))


def assert_same_trajectory(ours, theirs):
    """Metrics but for times, architectures, and all that the last checkpoints hold, to 1e-5."""
    lines, others = read_metrics(ours), read_metrics(theirs)
    assert len(lines) == len(others) > 0
    for line, other in zip(lines, others, strict=True):
        assert line.pop("phase") == other.pop("phase")
        assert line == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE)
    assert_close(scored(ours), scored(theirs))
    (state, progress), (other_state, other_progress) = restore(SHORT, ours), restore(SHORT, theirs)
    assert progress == other_progress and progress["epoch"] == SHORT.search.epochs
    assert_close(state, other_state)


def assert_close(ours, theirs):
    import jax

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE), ours, theirs
    )


def own_errors(process):
    """What a finished process itself, not a library of it, says is wrong."""
    return [
        line
        for line in process.stderr.replace("\r", "\n").splitlines()
        if line.startswith("error:")
    ]


def assert_ends_as_lost(process):
    assert process.returncode == 2
    (line,) = own_errors(process)
    assert LOST in line and "continues from its last checkpoint" in line


def children(process):
    return [
        int(pid)
        for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        .read_text()
        .split()
    ]


def is_running(pid):
    """A process that has ended may stay in the table of processes until someone asks for its exit
    code.
    """
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


ONE_A_NODE = {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "1", "SLURM_LOCALID": "0"}
EIGHT_A_NODE = {
    "SLURM_STEP_TASKS_PER_NODE": "2,8(x3)",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "5",
}


@pytest.mark.parametrize(
    "environ, own",
    [
        ({}, []),
        (ONE_A_NODE, []),
        (ONE_A_NODE | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, []),
        (EIGHT_A_NODE | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, [5]),
        (EIGHT_A_NODE, [5]),
        (EIGHT_A_NODE | {"CUDA_VISIBLE_DEVICES": "5"}, []),  # Slurm has bound it
    ],
)
def test_a_process_takes_all_devices_or_the_one_of_its_number(environ, own):
    assert joined.local_devices(environ) == own


@pytest.mark.parametrize(
    "environ, platform, count, parts",
    [
        ({}, "cpu", 1, ()),
        (ONE_A_NODE | {"SLURM_GPUS_ON_NODE": "8"}, "gpu", 8, ()),
        (EIGHT_A_NODE | {"SLURM_GPUS_ON_NODE": "8"}, "gpu", 1, ()),
        (ONE_A_NODE | {"SLURM_GPUS_ON_NODE": "8"}, "gpu", 1, ("7 of the 8", "--ntasks-per-node=1")),
        (EIGHT_A_NODE | {"SLURM_GPUS_ON_NODE": "16"}, "gpu", 1, ("8 of the 16", "8 processes")),
        (ONE_A_NODE | {"SLURM_GPUS_ON_NODE": "8"}, "cpu", 4, ("8 of the 8", "--platform=cpu")),
    ],
)
def test_devices_that_would_stay_unused_are_refused(environ, platform, count, parts):
    if not parts:
        joined.check_devices(environ, platform, count)
        return
    with pytest.raises(UserError) as refused:
        joined.check_devices(environ, platform, count)
    assert all(part in str(refused.value) for part in parts)


def test_in_an_allocation_of_slurm_jax_is_kept_from_one_device_of_a_node(tmp_path, environment):
    """With the coordinator that Slurm names, and with one that is given."""
    (tmp_path / "program.py").write_text(
        "from launch import common, device\n"
        "common.define_flags()\n"
        "common.define_device_flags()\n"
        "def main():\n"
        "    import jax\n"
        "    device.select_device('cpu')\n"
        "    print(jax.config.values['jax_cuda_visible_devices'], jax.local_device_count())\n"
        "common.run(main)\n"
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "1"}
    slurm |= ONE_A_NODE | {"SLURM_PROCID": "0", "JAX_COORDINATOR_PORT": port}
    for flags in (["--coordinator=auto"], [f"--coordinator=localhost:{port}"]):
        process = run_forked(environment(2) | slurm, tmp_path / "program.py", *flags)
        assert process.stdout == "all 2\n", process.stderr


def test_a_stopped_job_does_not_count_as_completed():
    job = {"SLURM_JOB_ID": "7"}
    assert joined.stopped_code({}) == 0
    assert joined.stopped_code(job) == joined.stopped_code(job | {"SLURM_PROCID": "0"}) == 75
    assert joined.stopped_code(job | {"SLURM_PROCID": "1"}) == 0


def test_rows_are_told_once(capsys):
    joined.announce("pmap", 32)
    told = capsys.readouterr().err
    assert told == (
        "1 process, 8 cpu devices: of the 32 rows of a batch device 0 on rows 0 to 3, 1 on rows 4 "
        "to 7, ..., 7 on rows 28 to 31\n"
    )
    share = choose_devices("pmap").split(np.arange(32)[:, None])
    assert np.asarray(share)[7].ravel().tolist() == [28, 29, 30, 31]  # as it is done
    joined.announce("jit", 32)
    assert "8 cpu devices, of which one is used (--parallel=jit)" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_of_two_devices_compute_what_one_process_of_four_does(whole, start, tmp_path):
    process = finish_program(start(SHORT, tmp_path, devices=4))
    assert process.returncode == 0, process.stderr
    names = [(line["phase"], line["step"]) for line in read_metrics(whole)]
    assert len(names) == len(set(names)) and set(names) == expected_lines(SHORT)
    assert_same_trajectory(whole, tmp_path)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_one_process_goes_on(
    whole, start, start_two, tmp_path
):
    processes = start_two(SHORT, tmp_path)
    wait_until(lambda: (tmp_path / "metrics.jsonl").exists() and read_metrics(tmp_path), *processes)
    processes[1].send_signal(signal.SIGTERM)
    for process in map(finish_program, processes):
        assert process.returncode == 0, process.stderr
        assert "SIGTERM: saved at" in process.stderr
    assert restore(SHORT, tmp_path)[1]["epoch"] < SHORT.search.epochs
    process = finish_program(start(SHORT, tmp_path, devices=4))
    assert process.returncode == 0, process.stderr
    assert_same_trajectory(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_and_one_process_goes_on(start, start_two, tmp_path, lost):
    """The process that its user started is killed, of which the one that computes is a child."""
    processes = start_two(LONG, tmp_path)
    wait_until(has_checkpoint(tmp_path), *processes)
    (orphan,) = children(processes[lost])
    processes[lost].send_signal(signal.SIGKILL)
    assert_ends_as_lost(finish_program(processes[1 - lost]))
    assert not is_running(orphan)

    done = restore(LONG, tmp_path)[1]
    steps = (
        max(0, done["epoch"] - LONG.search.warmup_epochs) * LONG.search.controller_steps
        + done["controller"]
    )
    assert done["epoch"] < LONG.search.epochs
    process = finish_program(start(LONG, tmp_path, devices=1))
    assert process.returncode == 0, process.stderr
    names = [(line["phase"], line["step"]) for line in read_metrics(tmp_path)]
    assert len(names) == len(set(names)) and set(names) == expected_lines(LONG)
    assert restore(LONG, tmp_path)[1]["epoch"] == LONG.search.epochs
    rewards = scored(tmp_path)["rewards"]
    total = (LONG.search.epochs - LONG.search.warmup_epochs) * LONG.search.controller_steps
    assert len(rewards) == LONG.search.architectures * (4 * steps + (total - steps))


@pytest.mark.slow
def test_a_process_that_is_killed_by_the_system_ends_the_other(start_two, tmp_path):
    """The one that computes, which also holds the meeting point of all."""
    processes = start_two(LONG, tmp_path)
    wait_until(has_checkpoint(tmp_path), *processes)
    (worker,) = children(processes[0])
    os.kill(worker, signal.SIGKILL)
    assert finish_program(processes[0]).returncode == 128 + signal.SIGKILL
    assert_ends_as_lost(finish_program(processes[1]))
    assert restore(LONG, tmp_path)[1]["epoch"] < LONG.search.epochs


@pytest.mark.slow
def test_where_only_one_process_can_know_what_is_wrong_it_says_so_and_none_waits(
    start_two, tmp_path
):
    """The first process alone writes. What hinders it must not leave the others waiting."""
    processes = start_two(LONG, tmp_path)
    wait_until(has_checkpoint(tmp_path), *processes)
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    (tmp_path / "checkpoints").touch()
    first, second = map(finish_program, processes)
    assert first.returncode == 2
    (line,) = own_errors(first)
    assert line.startswith("error: cannot save checkpoint ")
    assert_ends_as_lost(second)

    other = start_two(LONG, tmp_path, "--config.seed=1")
    first, second = map(finish_program, other)
    assert first.returncode == 2
    (line,) = own_errors(first)
    assert "holds a run of another configuration: seed: 0 -> 1" in line
    assert_ends_as_lost(second)


@pytest.mark.slow
def test_jit_is_for_one_process(start_two, tmp_path):
    first, second = map(finish_program, start_two(SHORT, tmp_path / "run", "--parallel=jit"))
    assert first.returncode == second.returncode == 2
    assert own_errors(first) == [
        "error: --parallel=jit uses one device, but there are several processes; use pmap"
    ]
    assert len(own_errors(second)) == 1  # the same, or that the first is gone
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_stays_alone_gives_up(start, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        start(
            SHORT,
            tmp_path / "run",
            f"--coordinator={address}",
            "--num_processes=3",
            f"--process_id={i}",
        )
        for i in (0, 2)
    ]
    for process in map(finish_program, processes):
        assert_ends_as_lost(process)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--num_processes=2"], ["--coordinator", "HOST:PORT of process 0, or auto", "''"]),
        (["--process_id=1"], ["--coordinator", "HOST:PORT"]),
        (
            ["--num_processes=2", "--coordinator=localhost:port"],
            ["--coordinator", "HOST:PORT", "'localhost:port'"],
        ),
        (
            ["--num_processes=2", "--coordinator=localhost:1234", "--process_id=2"],
            ["--process_id", "0..1", "got 2"],
        ),
        (
            ["--num_processes=2", "--coordinator=localhost:1234", "--process_id=-1"],
            ["--process_id", "-1"],
        ),
        (["--num_processes=0"], ["--num_processes", "0"]),
        (["--num_processes=two"], ["--num_processes", "whole number", "'two'"]),
        (["--parallel=both"], ["--parallel", "jit", "pmap"]),
        (["--coordinator=auto"], ["--coordinator=auto: cannot join the run"]),
    ],
)
def test_flags_that_cannot_be_meant(environment, tmp_path, flags, parts):
    process = run_forked(environment(1), "launch.search", f"--workdir={tmp_path / 'run'}", *flags)
    assert_one_line(process, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_script_for_several_hosts_runs_on_two_processes(arguments, environment, tmp_path):
    root = pathlib.Path(__file__).resolve().parents[2]
    script = ["bash", str(root / "launch" / "multi_host.sh")]
    flags = [
        *arguments(SHORT),
        f"--workdir={tmp_path / 'study'}",
        "--config.search.epochs=2",
        "--seeds=0",
        "--arms=pg,memory",
    ]
    process = subprocess.run(
        [*script, *flags], env=environment(1), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert process.returncode == 0, process.stderr
    printed = process.stdout
    for shown in (
        "untrained",
        "PG only",
        "PG + memory",
        f"report: {tmp_path / 'study' / 'report' / 'index.html'}",
    ):
        assert printed.count(shown) >= 1
    assert printed.count("report: ") == 1  # the first process alone reports
