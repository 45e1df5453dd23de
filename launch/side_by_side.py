"""Pieces of a study side by side, each in a process of its own with a share of the processor's
cores.

The products of a small model are too short to occupy several cores: two searches on one core each
end sooner than one after the other on both. A piece is a function that leaves its result in files;
whoever reads them does what is missing.
"""

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from launch import common, device
from launch.display import Display
from nas import progress
from nas.errors import Interrupted, UserError

FLAGS = flags.FLAGS
_MOST = 4  # pieces at a time, unless more are asked for: each holds data and weights of its own
_OFTEN = 0.2  # seconds between two messages of a process about its progress


class Piece(NamedTuple):
    """A call whose result is kept in files."""

    name: str  # shown while it runs; no two pieces of a call of `run` have the same
    function: Callable[..., Any]  # of a module, so that another process finds it
    arguments: tuple = ()
    options: dict[str, Any] = {}
    work: float = (
        1.0  # beside that of the other pieces, in any unit: how much of the time left is its
    )
    after: tuple[
        str, ...
    ] = ()  # names of pieces whose results it reads: those that are made stand before it


def define_flag() -> None:
    """Defines --jobs; call it at the top level of a script that has pieces."""
    flags.DEFINE_integer(
        "jobs",
        0,
        "Searches, trainings and evaluations side by side on a CPU, each in a process with a "
        "share of the cores. 0: one for "
        f"each core, {_MOST} at most; devices of another kind, or several, work together on one "
        "at a time.",
        lower_bound=0,
    )


def run(pieces: Sequence[Piece]) -> None:
    """Makes the pieces as --jobs says and shows how far they are, each and all of them.

    A signal reaches all of them: searches save and stop. The first that fails ends the others in
    the same way, and the program.

    Raises:
      UserError: --jobs cannot be had, a process was killed, or what a piece raises.
      Interrupted: SIGTERM or Ctrl-C.
    """
    jobs = min(_jobs(), len(pieces))
    with Display({piece.name: piece.work for piece in pieces} or None) as display:
        if jobs >= 2:
            _in_processes(pieces, jobs, display)
            return
        for piece in pieces:
            display.begin(piece.name)
            with progress.listening(lambda status, name=piece.name: display.tell(name, status)):
                piece.function(*piece.arguments, **piece.options)
            display.finish(piece.name)


class _Running(NamedTuple):
    """A process and what belongs to it."""

    piece: Piece
    process: Any
    cores: list[int]
    messages: multiprocessing.connection.Connection  # a Status, or the text of a UserError
    complaints: list[str]

    def read(self, display: Display) -> bool:
        """Takes one message; whether there may be more."""
        try:
            message = self.messages.recv()
        except EOFError:
            return False
        if isinstance(message, str):
            self.complaints.append(message)
        else:
            display.tell(self.piece.name, message)
        return True


def _in_processes(pieces, jobs, display):
    cores, spawn = _cores(), multiprocessing.get_context("spawn")
    free, waiting, awaited = (
        [cores[i::jobs] for i in range(jobs)],
        list(pieces),
        {piece.name for piece in pieces},
    )
    running: dict[Any, _Running] = {}  # by what tells of its process: its end, its messages
    received, failure, stopping = [], None, False
    handlers = {
        n: signal.signal(n, lambda n, _: received.append(n))
        for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        while running or (waiting and not stopping):
            while (
                not stopping
                and free
                and (piece := next((one for one in waiting if awaited.isdisjoint(one.after)), None))
            ):
                waiting.remove(piece)
                messages, sender = spawn.Pipe(duplex=False)
                process = spawn.Process(target=_begin, args=(free[-1], piece, sender))
                process.start()
                sender.close()
                one = _Running(piece, process, free.pop(), messages, [])
                running |= {process.sentinel: one, messages: one}
                display.begin(piece.name)
            for event in multiprocessing.connection.wait(list(running), timeout=0.5):
                one = running[event]
                if event is one.messages:
                    if not one.read(display):
                        del running[event]
                    continue
                while one.messages in running and one.messages.poll() and one.read(display):
                    pass
                running.pop(one.messages, None)
                del running[event]
                one.process.join()
                free.append(one.cores)
                if one.process.exitcode:
                    failure = failure or one
                else:
                    awaited.remove(one.piece.name)
                    display.finish(one.piece.name)
                break  # what else has happened may be of this piece
            if not stopping and (received or failure):
                stopping = True
                for process in {one.process for one in running.values()}:
                    process.terminate()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        code = 130 if signal.SIGINT in received else 0
        raise Interrupted(
            code,
            f"{signal.Signals(received[0]).name}: stopped; run the same command again to continue",
        )
    if failure:
        if failure.complaints:
            raise UserError(failure.complaints[0])
        code = failure.process.exitcode
        if code < 0:
            raise UserError(
                f"--jobs: one of {jobs} processes was ended by signal {-code}, as the system does "
                "where memory is short; "
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
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def _begin(cores, piece, messages):
    """What a process does; it has read the same command line as its parent, and ends as a program
    does.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the parent, which receives it too, tells this process what to do
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    common.run(lambda: _make(piece, messages))


def _make(piece, messages):
    with contextlib.redirect_stderr(io.StringIO()), progress.listening(_teller(messages)):
        device.select_device(FLAGS.platform)
        try:
            piece.function(*piece.arguments, **piece.options)
        except Interrupted as stop:
            return stop.code
        except UserError as error:  # on a line of its own, which only the parent can begin
            messages.send(str(error))
            return 2
    return 0


def _teller(messages):
    """Sends what work tells of itself, but not every step of what is fast."""
    last = 0.0

    def tell(status):
        nonlocal last
        if time.monotonic() >= last + _OFTEN or not status.running or status.done == 0:
            last = time.monotonic()
            messages.send(status)

    return tell


def _end_with_parent():
    """Whoever kills the program that they started means its processes as well."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
