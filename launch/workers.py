"""Makes pieces of a study in processes of this machine, each with a share of its cores and GPUs.

The products of a small model are too short to occupy several cores: two searches on one core each
end sooner than one after the other on both. A `Worker` is a process that makes one piece, here or
in a job of a cluster.
"""

import contextlib
import io
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from launch import common, device
from launch.display import Display
from launch.pieces import Ledger, Piece, interrupted
from nas import progress
from nas.errors import Interrupted, UserError
from nas.progress import Status
from nas.signals import received_signals

FLAGS = flags.FLAGS
MOST = 4  # pieces at a time, unless more are asked for: each holds data and weights of its own
_OFTEN = 0.2  # seconds between two messages of a process about its progress
# share of a GPU's memory for the pieces on it; the rest is for the program that started them
_GPU_MEMORY = 0.9
_STOPPED = 128 + signal.SIGTERM  # exit code of a piece that a signal has stopped


class Share(NamedTuple):
    """What one of several processes may use of a machine."""

    cores: list[int]  # empty: those of the program that starts it
    environment: dict[str, str]  # variables, set before JAX looks for devices


def shares(jobs: int, cores: Sequence[int], gpus: Sequence[str]) -> list[Share]:
    """Divides cores and GPUs among `jobs` processes: each gets a GPU or, if there are fewer, a part
    of the memory of one.

    Args:
      gpus: as CUDA_VISIBLE_DEVICES names them; empty on a CPU.
    """
    found = []
    for number in range(jobs):
        environment = {}
        if gpus:
            own = number % len(gpus)
            together = len(range(own, jobs, len(gpus)))
            environment = {
                "CUDA_VISIBLE_DEVICES": gpus[own],
                "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
                "XLA_PYTHON_CLIENT_MEM_FRACTION": str(
                    math.floor(1000 * _GPU_MEMORY / together) / 1000
                ),
                "SLURM_GPUS_ON_NODE": "",  # all of them are used, but not by each process
            }
        found.append(Share(list(cores[number::jobs]), environment))
    return found


def count() -> int:
    """How many pieces this machine makes at a time, from --jobs.

    Raises:
      UserError: that many are not possible here.
    """
    import jax

    kind = jax.default_backend()
    alone = jax.process_count() == 1 and (jax.device_count() == 1 or kind == "gpu")
    if FLAGS.jobs > 1 and not (alone and kind in ("cpu", "gpu")):
        raise UserError(
            "--jobs: more than 1 only on GPUs, or on a CPU that is one device, in one process"
        )
    return FLAGS.jobs or (min(MOST, len(_cores())) if alone and kind == "cpu" else 1)


def open_engine(jobs: int) -> Callable[[Ledger, Display], None]:
    """The function that makes pieces in `jobs` processes; it raises Interrupted if a signal ended
    it.
    """

    def make_all(ledger, display):
        with received_signals() as received:
            _make_all(ledger, display, shares(jobs, _cores(), _gpus()), received)
        if received:
            raise interrupted(received)

    return make_all


class Worker:
    """A process that makes one piece."""

    def __init__(self, piece: Piece, share: Share):
        spawn = multiprocessing.get_context("spawn")
        self.piece, self.share = piece, share
        self.messages, sender = spawn.Pipe(duplex=False)  # a Status, or the text of a UserError
        self.process = spawn.Process(target=_begin, args=(share, piece, sender))
        self._complaint = ""
        self.process.start()
        sender.close()

    def read(self, tell: Callable[[Status], None]) -> bool:
        """Takes one message; returns whether there may be more."""
        try:
            message = self.messages.recv()
        except EOFError:
            return False
        if isinstance(message, str):
            self._complaint = message
        else:
            tell(message)
        return True

    def read_all(self, tell: Callable[[Status], None]) -> None:
        """Takes all messages that a process has left when it ended."""
        while not self.messages.closed and self.messages.poll() and self.read(tell):
            pass

    @property
    def was_stopped(self) -> bool:
        """Whether the process was ended by a signal that asks it to stop."""
        return self.process.exitcode in (_STOPPED, -signal.SIGTERM)

    def reason(self) -> str:
        """Why a process that has ended has not made its piece; empty if it has."""
        code = self.process.exitcode
        if self._complaint or not code:
            return self._complaint
        if self.was_stopped:
            return "it was stopped"
        if code < 0:
            return f"its process was killed by signal {-code} (often: out of memory; lower --jobs)"
        return f"its process ended with exit code {code}; see its own message"


def _make_all(ledger, display, free, received):
    running: dict[Any, Worker] = {}  # end of its process, and its messages -> worker
    stopping = False
    while running or (ledger.waiting and not stopping):
        while not stopping and free and (piece := ledger.next()):
            one = Worker(piece, free.pop())
            running |= {one.process.sentinel: one, one.messages: one}
            display.begin(piece.name)
        for event in multiprocessing.connection.wait(list(running), timeout=0.5):
            one = running[event]
            tell = _tell(display, one.piece)
            if event is one.messages:
                if not one.read(tell):
                    del running[event]
                continue
            if one.messages in running:
                one.read_all(tell)
                del running[one.messages]
            del running[event]
            one.process.join()
            free.append(one.share)
            if reason := one.reason():
                ledger.failed(one.piece, reason)
                display.fail(one.piece.name)
            else:
                ledger.made(one.piece)
                display.finish(one.piece.name)
            break  # other events may be of the same piece
        if received and not stopping:
            stopping = True
            for process in {one.process for one in running.values()}:
                process.terminate()


def _tell(display, piece):
    return lambda status: display.tell(piece.name, status)


def _cores():
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def _gpus():
    import jax

    if jax.default_backend() != "gpu":
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(jax.device_count())]


def _begin(share, piece, messages):
    """What a process does. It has read the same command line as its parent, and ends as a program
    does.
    """
    os.environ.update(share.environment)
    # The parent receives it too, and tells this process what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if share.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share.cores)
    common.run(lambda: _make(piece, messages))


def _make(piece, messages):
    with contextlib.redirect_stderr(io.StringIO()), progress.listening(_teller(messages)):
        try:
            device.select_device(FLAGS.platform)
            piece.function(*piece.arguments, **piece.options)
        except Interrupted:
            return _STOPPED  # whatever the error's own code: the piece is not made
        except UserError as error:  # the parent prints it, on a line of its own
            messages.send(str(error))
            return 2
    return 0


def _teller(messages):
    """Sends reports on work, but not every step of fast work."""
    last = 0.0

    def tell(status):
        nonlocal last
        if time.monotonic() >= last + _OFTEN or not status.running or status.done == 0:
            last = time.monotonic()
            messages.send(status)

    return tell


def _end_with_parent():
    """Ends this process with its parent: whoever kills the program means its processes too."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
