"""Makes pieces of a study side by side: in processes of this machine (launch.workers), or as jobs
of a cluster (launch.cluster).

launch.pieces says what a piece is.
"""

from collections.abc import Sequence

from absl import flags

from launch import cluster, workers
from launch.display import Display
from launch.pieces import Ledger, Piece
from nas import progress
from nas.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines --jobs, --engine and the flags of a cluster's jobs; call it at the top level of a
    script that has pieces.
    """
    flags.DEFINE_integer(
        "jobs",
        0,
        "Searches, trainings and evaluations side by side on this machine, each in a process with "
        "a share of the cores and, where there are GPUs, one GPU or a share of its memory. 0: on a "
        f"CPU one for each core, {workers.MOST} at most; with another kind of device, or several "
        "devices, one at a time on all of them.",
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
    flags.DEFINE_string("partition", "", "Partition of the Slurm jobs. Empty: Slurm's default.")
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


def run(pieces: Sequence[Piece]) -> None:
    """Makes the pieces as --engine and --jobs say, and shows how far each and all of them are.

    A piece that fails ends only those that read its result; its failure is raised when the others
    are done. A signal reaches all pieces: searches save and stop. If several processes run one
    search, all end with the first that fails, because the others would wait for it.

    Raises:
      UserError: the engine or --jobs is not possible here, or pieces failed; the message names
        them.
      Interrupted: SIGTERM or Ctrl-C.
    """
    if not pieces:
        return
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
