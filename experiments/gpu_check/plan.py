"""The stages of the check, the most important first, and how they are run. Imports no JAX: the GPU
belongs to the stages.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

PASSED, FAILED, CUT_OFF, NOT_RUN = "passed", "failed", "cut off", "not run"
_LEAST = 15  # seconds; in less no stage finds anything
_SAID = 40  # last lines that are kept of what a stage printed

# Operations of which XLA makes graphs on a GPU, so that their kernels are launched together.
_KINDS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
_OF_LOOPS = f"--xla_gpu_enable_command_buffer={_KINDS} --xla_gpu_graph_min_graph_size=1"


class Stage(NamedTuple):
    """One question to the GPU."""

    name: str
    call: tuple[str, ...]  # a function of `stages`, and its arguments
    cap: int  # seconds after which it is cut off
    xla_flags: str = ""


STAGES = (
    Stage("environment", ("environment",), 60),
    Stage("step-tf32", ("step", "tf32"), 90),
    Stage("rewards-tf32", ("rewards", "tf32"), 90),
    Stage("controller", ("controller",), 60),
    Stage("search", ("search",), 110),
    Stage("equality", ("equality",), 110),
    Stage("step-bfloat16", ("step", "bfloat16"), 80),
    Stage("step-float32", ("step", "float32"), 80),
    Stage("checkpoint", ("checkpoint",), 60),
    Stage("profile", ("profile",), 60),
    Stage("step-tf32-graphs", ("variant", "tf32"), 60, _OF_LOOPS),
    Stage(
        "step-tf32-unrolled",
        ("variant", "tf32"),
        60,
        f"{_OF_LOOPS} --xla_gpu_command_buffer_unroll_loops=true",
    ),
    Stage("step-tf32-no-graphs", ("variant", "tf32"), 60, "--xla_gpu_enable_command_buffer="),
    Stage("mnist_macro", ("images", "mnist_macro"), 70),
    Stage("cifar10_macro", ("images", "cifar10_macro"), 70),
    Stage("rewards-bfloat16", ("rewards", "bfloat16"), 60),
    Stage("resume", ("resume",), 120),
    Stage("tests", ("tests",), 120),
    Stage("quick", ("quick",), 240),
)


class Result(NamedTuple):
    """What became of a stage."""

    name: str
    status: str
    seconds: float
    code: int | None  # exit code of its process; None: it was cut off, or not run
    found: Mapping[str, Any]  # what it reported, as far as it got
    said: Sequence[str]  # the last lines that it printed


class Command(Protocol):
    """The command that starts a stage, which writes what it finds to a file, as JSON."""

    def __call__(self, stage: Stage, file: pathlib.Path) -> Sequence[str]:
        """Arguments of the process, the program among them."""


def run(
    stages: Sequence[Stage],
    command: Command,
    log: pathlib.Path,
    *,
    seconds: float,
    environment: Mapping[str, str],
) -> Iterator[Result]:
    """Runs one stage after the other, whatever became of those before, and yields each result.

    A stage that reaches its cap, or the end of the time, is killed with all that it has started;
    what it had reported until then is kept.

    Args:
      log: file to which everything that stages print is appended.
      seconds: for all of them together; a stage for which too few are left is not run.
      environment: variables of every stage.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            left = end - time.monotonic()
            if left < min(_LEAST, stage.cap):
                yield Result(stage.name, NOT_RUN, 0.0, None, {}, ())
                continue
            file = pathlib.Path(folder, f"{stage.name}.json")
            flags = " ".join(filter(None, (environment.get("XLA_FLAGS"), stage.xla_flags)))
            started = time.monotonic()
            status, code, said = _run(
                command(stage, file),
                log,
                limit=min(stage.cap, left),
                environment={**environment, "XLA_FLAGS": flags},
                heading=stage.name,
            )
            found = json.loads(file.read_text()) if file.exists() else {}
            yield Result(stage.name, status, time.monotonic() - started, code, found, said)


def _run(arguments, log, *, limit, environment, heading):
    """Status, exit code and last lines of one process, which has then ended with all that it has
    started.
    """
    with log.open("a+b") as output:
        output.write(f"== {heading}\n".encode())
        output.flush()
        begin = output.tell()
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=limit)
            status = FAILED if code else PASSED
        except subprocess.TimeoutExpired:
            code, status = None, CUT_OFF
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of them may have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(begin)
        text = output.read().decode(errors="replace")
        if not text.endswith("\n"):
            output.write(b"\n")
    return status, code, text.splitlines()[-_SAID:]
