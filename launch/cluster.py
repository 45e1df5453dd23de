"""Makes the pieces of a study as jobs of Slurm, which submitit submits.

A job makes its piece in a process of `launch.workers`, as a worker of this machine would. If Slurm
takes its nodes away or its time is over, the piece saves, the job queues again by itself and the
piece continues. A piece that fails is submitted once more. Each job reports its progress in a file
beside its output, in WORKDIR/slurm/JOB.
"""

import importlib.machinery
import importlib.util
import json
import multiprocessing.connection
import pathlib
import shutil
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from launch.display import Display
from launch.pieces import Ledger, Piece, interrupted
from launch.workers import Share, Worker
from nas.errors import UserError, one_line
from nas.files import write_atomic
from nas.progress import Status
from nas.signals import received_signals

FLAGS = flags.FLAGS
_TRIES = 2  # times that a piece is submitted if it fails
_POLL = 3.0  # seconds between two queries to Slurm, each about all jobs
_OFTEN = 2.0  # seconds between two reports of a job on its progress
_WARNING = 120  # seconds before the end of its time at which a job saves ...
_SAVING = 60  # ... and how many of these its process may take
_PATIENCE = 120  # seconds in which Slurm ends a job after stopping its processes
_LATE = 20  # seconds by which a job's file may appear late, after the job is gone
_REQUEUES = 1000  # times that a job may reach the end of its time
_STATUS = "status.json"
_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "TIMEOUT")
_ENDED += ("OUT_OF_MEMORY",)


def open_engine() -> Callable[[Ledger, Display], None]:
    """The function that makes pieces as jobs of Slurm; it raises Interrupted if a signal ended it.

    Raises:
      UserError: something is missing on this machine; names it.
    """
    import jax

    if not importlib.util.find_spec("submitit"):
        raise UserError("--engine=slurm: submitit is not installed; run pip install -e '.[slurm]'")
    for program in ("sbatch", "srun", "squeue", "scancel"):
        if not shutil.which(program):
            raise UserError(
                f"--engine=slurm: there is no {program} here; start this where jobs are submitted"
            )
    if jax.process_count() > 1:
        raise UserError("--engine=slurm: start a single process; it submits the jobs")
    import submitit

    executor = submitit.SlurmExecutor(_folder() / "%j", max_num_timeout=_REQUEUES)
    executor.update_parameters(**_parameters())
    return lambda ledger, display: make_all(ledger, display, executor, _states)


def make_all(
    ledger: Ledger,
    display: Display,
    executor: Any,
    states: Callable[[list[str]], dict[str, str] | None],
    *,
    poll: float = _POLL,
    late: float = _LATE,
) -> None:
    """Submits pieces as soon as the results that they read are there, until all are made or failed.

    Args:
      executor: submitit's.
      states: numbers of jobs -> {number: state} of those that the cluster still knows; None: it did
        not answer.
      poll: seconds between two queries.
      late: seconds to wait for the result of a job that is gone.

    Raises:
      UserError: a job cannot be submitted.
      Interrupted: SIGTERM or Ctrl-C; all jobs are cancelled, so that searches save.
    """
    running: dict[str, _Submitted] = {}  # number of a job -> the job
    with received_signals() as received:
        try:
            while (running or ledger.waiting) and not received:
                while piece := ledger.next():
                    display.begin(piece.name)
                    running |= _submit(executor, piece, 1)
                time.sleep(poll)
                known = states(list(running))
                for number, one in list(running.items()):
                    one.show(display, (known or {}).get(number, ""))
                    outcome = one.outcome(known, late)
                    if outcome is None:
                        continue
                    del running[number]
                    if not outcome:
                        ledger.made(one.piece)
                        display.finish(one.piece.name)
                    elif one.tries < _TRIES and not one.cancelled(known):
                        running |= _submit(executor, one.piece, one.tries + 1)
                    else:
                        ledger.failed(one.piece, f"{outcome} ({one.job.paths.folder})")
                        display.fail(one.piece.name)
        finally:
            for one in running.values():
                one.job.cancel(check=False)
    if received:
        raise interrupted(received)


class _Submitted:
    """A job, and what is known of it."""

    def __init__(self, piece, job, tries):
        self.piece, self.job, self.tries = piece, job, tries
        self._gone_since = None
        self._shown = None

    def outcome(self, known, late):
        """Why the job has not made its piece, empty if it has made it; None while it is open."""
        if self.job.paths.result_pickle.exists():
            try:
                return self.job.result()
            except Exception as error:  # any kind, raised before the job began its piece
                return one_line(error)
        if known is None or known.get(self.job.job_id, "COMPLETED") not in _ENDED:
            self._gone_since = None
            return None
        self._gone_since = self._gone_since or time.monotonic()
        if time.monotonic() < self._gone_since + late:
            return None
        return f"its job ended as {known.get(self.job.job_id, 'unknown to Slurm')} without a result"

    def cancelled(self, known):
        return (known or {}).get(self.job.job_id) == "CANCELLED"

    def show(self, display, state):
        """Shows what the job has reported of itself, or else its state in the queue."""
        if state and state != "RUNNING":
            display.tell(self.piece.name, Status(-1, "queue", "job", 0, 1, {"job": state}, True))
            self._shown = None
            return
        try:
            text = (self.job.paths.folder / _STATUS).read_text()
        except OSError:  # it has not begun
            return
        if text != self._shown:
            display.tell(self.piece.name, Status(-1, "queue", "job", 0, 1, {}, False))
            display.tell(self.piece.name, Status(*json.loads(text)))
            self._shown = text


class Job(NamedTuple):
    """What a job does; submitit calls it, and `checkpoint` when the job has to make room."""

    piece: Piece
    argv: list[str]  # command line of the program that submitted it; the piece reads its flags
    program: str  # module of that program; empty if it is a file
    worker: list  # the process that makes the piece, while it runs

    def __call__(self) -> str:
        """Makes the piece; returns why it failed, or nothing."""
        import submitit

        sys.argv = self.argv
        sys.modules["__main__"] = _main_module(self.program, self.argv[0])
        try:
            while True:
                worker = Worker(self.piece, Share([], {}))
                self.worker[:] = [worker]
                _follow(worker, submitit.JobEnvironment().paths.folder / _STATUS)
                if not worker.was_stopped:
                    return worker.reason()
                # By Slurm, which ends this job too; or by someone else, and then the piece goes on.
                time.sleep(_PATIENCE)
        except Exception as error:  # also submitit's, when a job may not queue again
            traceback.print_exc()
            return one_line(error)

    def checkpoint(self) -> Any:
        """Lets the piece save; the job that submitit queues again continues it."""
        import submitit

        for worker in self.worker:
            worker.process.terminate()
            worker.process.join(_SAVING)
        return submitit.helpers.DelayedSubmission(self._replace(worker=[]))


def _submit(executor, piece, tries):
    spec = sys.modules["__main__"].__spec__
    try:
        job = executor.submit(Job(piece, sys.argv, spec.name if spec else "", []))
    except Exception as error:  # any kind, with the message of sbatch
        raise UserError(f"--engine=slurm: sbatch refuses {piece.name}: {one_line(error)}") from None
    return {job.job_id: _Submitted(piece, job, tries)}


def _follow(worker, path):
    """Keeps the worker's latest report in a file, until the worker ends."""
    last = 0.0

    def tell(status):
        nonlocal last
        if time.monotonic() >= last + _OFTEN:
            last = time.monotonic()
            write_atomic(path, json.dumps(status))

    open_end = [worker.messages]
    while worker.process.sentinel not in (
        told := multiprocessing.connection.wait([worker.process.sentinel, *open_end])
    ):
        if worker.messages in told and not worker.read(tell):
            open_end = []
    if open_end:
        worker.read_all(tell)
    worker.process.join()


def _main_module(program, path):
    """A stand-in for the program: a process of `multiprocessing` begins by importing it."""
    main = types.ModuleType("__main__")
    main.__file__ = path
    main.__spec__ = importlib.machinery.ModuleSpec(program, None) if program else None
    return main


def _folder():
    return pathlib.Path(FLAGS.workdir or "runs").absolute() / "slurm"


def _parameters():
    parameters = {
        "job_name": "nas-piece",
        "time": FLAGS.time,
        "cpus_per_task": FLAGS.cpus,
        "ntasks_per_node": 1,
        "signal_delay_s": _WARNING,
        "srun_args": [f"--cpus-per-task={FLAGS.cpus}"],  # srun does not take this from sbatch
        "additional_parameters": {"requeue": True},
    }
    parameters |= {"partition": FLAGS.partition} if FLAGS.partition else {}
    return parameters | ({"gpus_per_node": FLAGS.gpus} if FLAGS.gpus else {})


def _states(numbers):
    """Number of a job -> its state, for jobs that Slurm knows; None if it does not answer."""
    command = ["squeue", "-h", "-t", "all", "-o", "%i %T", "-j", ",".join(numbers)]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        return {} if "Invalid job id" in asked.stderr else None
    return dict(line.split() for line in asked.stdout.splitlines())
