"""Pieces of a study side by side, each in a process of its own with a share of the processor's cores.

The products of a small model are too short to occupy several cores: two searches on one core each end sooner than one after
the other on both. A piece is a function that leaves its result in files; whoever reads them does what is missing.
"""

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from launch import common
from nas.errors import Interrupted, UserError

FLAGS = flags.FLAGS
_MOST = 4  # pieces at a time, unless more are asked for: each holds data and weights of its own


class Piece(NamedTuple):
    """A call whose result is kept in files."""

    function: Callable[..., Any]  # of a module, so that another process finds it
    arguments: tuple = ()
    options: dict[str, Any] = {}


def define_flag() -> None:
    """Defines --jobs; call it at the top level of a script that has pieces."""
    flags.DEFINE_integer(
        "jobs",
        0,
        "Searches, trainings and evaluations side by side on a CPU, each in a process with a share of the cores. 0: one for "
        f"each core, {_MOST} at most; devices of another kind, or several, work together on one at a time.",
        lower_bound=0,
    )


def run(pieces: Sequence[Piece], unit: str) -> None:
    """Makes the pieces as --jobs says; where that is one at a time, it leaves them to whoever reads their files.

    A signal reaches all of them: searches save and stop. The first that fails ends the others in the same way, and the program.

    Raises:
      UserError: --jobs cannot be had, a process was killed, or what a piece raises.
      Interrupted: SIGTERM or Ctrl-C.
    """
    from tqdm import tqdm

    if len(pieces) < 2 or (jobs := min(_jobs(), len(pieces))) < 2:
        return
    cores, spawn = _cores(), multiprocessing.get_context("spawn")
    free, running, waiting = [cores[i::jobs] for i in range(jobs)], {}, list(pieces)
    received, failure = [], None
    handlers = {n: signal.signal(n, lambda n, _: received.append(n)) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        with tqdm(total=len(pieces), unit=unit) as bar:
            while (waiting or running) and not received and not failure:
                while waiting and free:
                    share = free.pop()
                    complaint, sender = spawn.Pipe(duplex=False)
                    process = spawn.Process(target=_begin, args=(share, waiting.pop(0), sender))
                    process.start()
                    sender.close()
                    running[process.sentinel] = process, share, complaint
                for sentinel in multiprocessing.connection.wait(list(running), timeout=0.5):
                    process, share, complaint = running.pop(sentinel)
                    process.join()
                    free.append(share)
                    if process.exitcode:
                        failure = failure or (process.exitcode, _received(complaint))
                    else:
                        bar.update()
            for process, _, _ in running.values():
                process.terminate()
            for process, _, _ in running.values():
                process.join()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        code = 130 if signal.SIGINT in received else 0
        raise Interrupted(code, f"{signal.Signals(received[0]).name}: stopped; run the same command again to continue")
    if failure:
        code, complaint = failure
        if complaint:
            raise UserError(complaint)
        if code < 0:
            raise UserError(
                f"--jobs: one of {jobs} processes was ended by signal {-code}, as the system does where memory is short; "
                "with fewer the same command continues"
            )
        sys.exit(code)  # it has said why


def _jobs():
    import jax

    alone = jax.process_count() == 1 and jax.device_count() == 1 and jax.default_backend() == "cpu"
    if FLAGS.jobs > 1 and not alone:
        raise UserError("--jobs: more than 1 only on a CPU that is one device, in one process")
    return FLAGS.jobs or (min(_MOST, len(_cores())) if alone else 1)


def _cores():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _begin(cores, piece, complaint):
    """What a process does; it has read the same command line as its parent, and ends as a program does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which receives it too, tells this process what to do
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    common.run(lambda: _make(piece, complaint))


def _make(piece, complaint):
    with contextlib.redirect_stderr(io.StringIO()):  # progress is the parent's to show
        common.select_device(FLAGS.platform)
        try:
            piece.function(*piece.arguments, **piece.options)
        except Interrupted as stop:
            return stop.code
        except UserError as error:  # on a line of its own, which only the parent can begin
            complaint.send(str(error))
            return 2
    return 0


def _received(complaint):
    try:
        return complaint.recv()
    except EOFError:  # it ended without one
        return None


def _end_with_parent():
    """Whoever kills the program that they started means its processes as well."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
