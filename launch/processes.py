"""A run of several processes: how they meet, and what watches them. Imports no JAX at the top."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

from absl import flags

from nas.errors import UserError

FLAGS = flags.FLAGS
HEARTBEAT = 30  # seconds after which a silent process of a run is lost
SUPERVISED = "NAS_SUPERVISED"  # set for the child of `supervise`: number of its parent
LOST = (
    "another process of this run was lost or never came, and this one ended with it; start all "
    "again with the same --workdir: the run continues from its last checkpoint"
)


def define_flags() -> None:
    """Defines --coordinator, --num_processes and --process_id."""
    flags.DEFINE_string(
        "coordinator",
        "",
        "HOST:PORT of process 0, the same for all processes; auto: ask the cluster (Slurm, ...).",
    )
    flags.DEFINE_integer(
        "num_processes",
        1,
        "Processes that train one run together, each with its own devices.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "process_id",
        0,
        "Number of this process, 0 to num_processes - 1. Process 0 writes the run directory.",
        lower_bound=0,
    )


def is_one_of_many():
    return "num_processes" in FLAGS and (
        FLAGS.num_processes > 1 or FLAGS.process_id > 0 or bool(FLAGS.coordinator)
    )


def join():
    """Meets the other processes of the run; a lost one is noticed within HEARTBEAT seconds, and
    this one then aborts.
    """
    import jax

    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Those that are done wait for process 0, which may have much to evaluate still; it is missed if
    # it is lost.
    options = {
        "heartbeat_timeout_seconds": HEARTBEAT,
        "initialization_timeout": 60,
        "shutdown_timeout_seconds": 7 * 86400,
    }
    if FLAGS.coordinator != "auto":
        if not re.fullmatch(r"[^:]+:\d+", FLAGS.coordinator):
            raise UserError(
                f"--coordinator: must be HOST:PORT of process 0, or auto, got {FLAGS.coordinator!r}"
            )
        if not 0 <= FLAGS.process_id < FLAGS.num_processes:
            raise UserError(
                f"--process_id: must be in 0..{FLAGS.num_processes - 1}, got {FLAGS.process_id}"
            )
        options |= {
            "coordinator_address": FLAGS.coordinator,
            "num_processes": FLAGS.num_processes,
            "process_id": FLAGS.process_id,
        }
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:  # no cluster to detect, or the others did not come
        raise UserError(
            f"--coordinator={FLAGS.coordinator}: cannot join the run: {str(error).splitlines()[0]}"
        ) from None


def supervise():
    """Runs this command in a child and returns its exit code; explains an abort, of which the child
    cannot speak.
    """
    child = subprocess.Popen(sys.orig_argv, env=os.environ | {SUPERVISED: str(os.getpid())})
    handlers = {
        n: signal.signal(n, lambda number, _: child.send_signal(number))
        for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    code = child.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if code in (
        -signal.SIGABRT,
        -signal.SIGSEGV,
    ):  # the second where the traceback of the first meets running threads
        raise UserError(LOST)
    return code if code >= 0 else 128 - code


def _end_with_parent():
    """Ends this process once its parent was killed: whoever kills the one that they started means
    this one.
    """
    while os.getppid() == int(os.environ[SUPERVISED]):
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def end(code: int) -> None:
    """Ends; one of many at once, since JAX would first wait for the others, who wait for this
    one.
    """
    if SUPERVISED not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
