"""A run of several processes: how they meet, on which devices, and what watches them. Imports no
JAX at the top.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from absl import flags

from nas.errors import UserError

FLAGS = flags.FLAGS
HEARTBEAT = 30  # seconds after which a silent process of a run counts as lost
SUPERVISED = "NAS_SUPERVISED"  # set for the child of `supervise` to the process id of its parent
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
    # Without `local_device_ids` JAX would take a single device of the node wherever Slurm runs.
    # Processes that are done wait for process 0, which may still have much to evaluate; its loss
    # would be noticed.
    options = {
        "heartbeat_timeout_seconds": HEARTBEAT,
        "initialization_timeout": 60,
        "shutdown_timeout_seconds": 7 * 86400,
        "local_device_ids": local_devices(os.environ),
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
    except (RuntimeError, ValueError) as error:  # there is no cluster, or the others did not come
        raise UserError(
            f"--coordinator={FLAGS.coordinator}: cannot join the run: {str(error).splitlines()[0]}"
        ) from None


def local_devices(environ: Mapping[str, str]) -> list[int]:
    """Numbers of the devices that this process takes, among those that it sees; empty: all.

    It takes all, unless several processes of a node see the same devices: then each takes the one
    with its own number.
    """
    seen = environ.get("CUDA_VISIBLE_DEVICES")
    processes = _processes_of_node(environ)
    if processes == 1 or (seen is not None and len(seen.split(",")) < processes):
        return []
    return [int(environ["SLURM_LOCALID"])]


def check_devices(environ: Mapping[str, str], platform: str, count: int) -> None:
    """Checks that no GPU that Slurm gave to this node stays unused.

    Args:
      platform: platform of this process's devices.
      count: number of this process's devices.

    Raises:
      UserError: some would stay unused; says how many, and what to do.
    """
    given = int(environ.get("SLURM_GPUS_ON_NODE") or 0)
    used = count * _processes_of_node(environ) if platform == "gpu" else 0
    if used < given:
        reason = (
            f"{_processes_of_node(environ)} processes use {used}; start one process a node "
            "(--ntasks-per-node=1), or one a GPU"
            if used
            else f"JAX computes on the {platform}; --platform={platform} if this is intended"
        )
        raise UserError(f"{given - used} of the {given} GPUs of a node stay unused: {reason}")


def stopped_code(environ: Mapping[str, str]) -> int:
    """Exit code of a program that has saved because SIGTERM asked for it: 75 in a job of Slurm,
    for which 0 would mean that all is done, else 0.

    Only the main process returns 75, since srun then ends the others; it may still be saving when
    they are done.
    """
    return 75 if "SLURM_JOB_ID" in environ and environ.get("SLURM_PROCID", "0") == "0" else 0


def announce(parallel: str, rows: int) -> None:
    """Prints on standard error how many processes and devices there are, and which of the `rows`
    rows of a batch each device trains on; prints nothing if there is one device.

    Args:
      parallel: as for `nas.parallel.choose_devices`.
    """
    import jax

    from nas.parallel import choose_devices

    devices, there = choose_devices(parallel), jax.device_count()
    if there == 1 or not devices.is_main:
        return
    count = jax.process_count()
    text = f"{count} process{'es' * (count > 1)}, {there} {jax.default_backend()} devices"
    if devices.total == 1:
        text += f", of which one is used (--parallel={parallel})"
    elif rows % there == 0:  # otherwise the run will be refused
        share = rows // there
        spans = [f"{n} on {_span(n * share, share)}" for n in (0, 1, there - 1)]
        between = ", ..., " if there > 3 else ", "
        text += f" ({devices.local} in each)" * (count > 1) + (
            f": of the {rows} rows of a batch device {spans[0]}, {spans[1]}"
            f"{between + spans[2] if there > 2 else ''}"
        )
    print(text, file=sys.stderr)


def supervise():
    """Runs this command in a child and returns its exit code; explains an abort, which the child
    itself cannot explain.
    """
    child = subprocess.Popen(sys.orig_argv, env=os.environ | {SUPERVISED: str(os.getpid())})
    handlers = {
        n: signal.signal(n, lambda number, _: child.send_signal(number))
        for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    code = child.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    # SIGSEGV if the traceback of an abort meets running threads.
    if code in (-signal.SIGABRT, -signal.SIGSEGV):
        raise UserError(LOST)
    return code if code >= 0 else 128 - code


def _processes_of_node(environ):
    """Number of processes of this Slurm step on this node; 1 elsewhere."""
    counts = []
    for part in filter(None, environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(",")):
        number, nodes = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part).groups()  # 8, or 8(x2)
        counts += [int(number)] * int(nodes or 1)
    return counts[int(environ["SLURM_NODEID"])] if counts else 1


def _span(first, count):
    return f"row {first}" if count == 1 else f"rows {first} to {first + count - 1}"


def _end_with_parent():
    """Ends this process once its parent has been killed: whoever kills the process that they
    started means this one too.
    """
    while os.getppid() == int(os.environ[SUPERVISED]):
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def end(code: int) -> None:
    """Ends this process. One of several ends at once: JAX would first wait for the others, which
    wait for this one.
    """
    if SUPERVISED not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
