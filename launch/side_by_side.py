"""Pieces of a study side by side: in processes of this machine (launch.workers), or as jobs of a
cluster (launch.cluster).

A piece is a function that leaves its result in files; whoever reads them does what is missing.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags

from launch.display import Display
from nas import progress
from nas.errors import Interrupted, UserError

FLAGS = flags.FLAGS


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


def define_flags() -> None:
    """Defines --jobs, --engine and how jobs of a cluster are asked for; call it at the top level of
    a script that has pieces.
    """
    from launch import workers

    flags.DEFINE_integer(
        "jobs",
        0,
        "Searches, trainings and evaluations side by side on this machine, each in a process with "
        "a share of the cores and, where there are GPUs, one GPU or a share of its memory. 0: on a "
        f"CPU one for each core, {workers.MOST} at most; devices of another kind, or several, work "
        "together on one at a time.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "engine",
        "local",
        ("local", "slurm"),
        "Where searches, trainings and evaluations run. local: on this machine; slurm: each as a "
        "job that sbatch submits, from folders that all machines see. What --partition, --gpus, "
        "--cpus and --time do not say, sbatch reads from its environment (SBATCH_ACCOUNT, ...).",
    )
    flags.DEFINE_string("partition", "", "Of Slurm's jobs. Empty: Slurm's default.")
    flags.DEFINE_integer(
        "gpus",
        0,
        "GPUs of each of Slurm's jobs; several train one search together.",
        lower_bound=0,
    )
    flags.DEFINE_integer("cpus", 2, "CPU cores of each of Slurm's jobs.", lower_bound=1)
    flags.DEFINE_integer(
        "time",
        24 * 60,
        "Minutes after which one of Slurm's jobs saves, makes room and queues again.",
        lower_bound=1,
    )


class Ledger:
    """What becomes of the pieces of a call: which may begin, and which failed."""

    def __init__(self, pieces: Sequence[Piece]):
        self.waiting = list(pieces)
        self._count = len(pieces)
        self._unmade = {piece.name for piece in pieces}
        self._failed: dict[str, str] = {}
        self._dropped: list[str] = []

    def next(self) -> Piece | None:
        """Takes the first piece that waits for no other."""
        ready = (one for one in self.waiting if self._unmade.isdisjoint(one.after))
        if piece := next(ready, None):
            self.waiting.remove(piece)
        return piece

    def made(self, piece: Piece) -> None:
        """The piece has left its result."""
        self._unmade.remove(piece.name)

    def failed(self, piece: Piece, reason: str) -> None:
        """The piece has left none, so that those that read it cannot begin."""
        self._failed[piece.name] = reason
        lost = {piece.name}
        while dropped := [one for one in self.waiting if not lost.isdisjoint(one.after)]:
            lost |= {one.name for one in dropped}
            self._dropped += [one.name for one in dropped]
            self.waiting = [one for one in self.waiting if one not in dropped]

    def check(self) -> None:
        """Raises what failed, when all are done.

        Raises:
          UserError: names every piece that failed, its reason, and what could not begin.
        """
        if not self._failed:
            return
        parts = [f"{name}: {reason}" for name, reason in self._failed.items()]
        if self._dropped:
            parts.append(f"not begun, since they read what is missing: {', '.join(self._dropped)}")
        raise UserError(
            f"{len(self._failed)} of {self._count} pieces failed: {'; '.join(parts)}; the others "
            "are kept, and the same command makes what is missing"
        )


def run(pieces: Sequence[Piece]) -> None:
    """Makes the pieces as --engine and --jobs say, and shows how far they are, each and all of
    them.

    One that fails ends none but those that read its result; what failed is raised when the others
    are done. A signal reaches all of them: searches save and stop. The processes of one search of
    several end with the first that fails, because the others would wait for it.

    Raises:
      UserError: the engine or --jobs cannot be had, or pieces failed; the message names them.
      Interrupted: SIGTERM or Ctrl-C.
    """
    if not pieces:
        return
    from launch import cluster, workers

    if FLAGS.engine == "slurm":
        make_all = cluster.open_engine()
    elif (jobs := min(workers.count(), len(pieces))) >= 2:
        make_all = workers.open_engine(jobs)
    else:
        make_all = _one_after_the_other
    ledger = Ledger(pieces)
    with Display({piece.name: piece.work for piece in pieces}) as display:
        make_all(ledger, display)
    ledger.check()


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """The numbers of SIGTERM, SIGHUP and Ctrl-C, as they are received while the block runs."""
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def interrupted(received: Sequence[int]) -> Interrupted:
    """What to raise after these signals."""
    return Interrupted(
        130 if signal.SIGINT in received else 0,
        f"{signal.Signals(received[0]).name}: stopped; run the same command again to continue",
    )


def _one_after_the_other(ledger, display):
    import jax

    while piece := ledger.next():
        display.begin(piece.name)
        with progress.listening(lambda status, name=piece.name: display.tell(name, status)):
            try:
                piece.function(*piece.arguments, **piece.options)
            except UserError as error:
                if jax.process_count() > 1:
                    raise
                ledger.failed(piece, str(error))
                display.fail(piece.name)
                continue
        ledger.made(piece)
        display.finish(piece.name)
