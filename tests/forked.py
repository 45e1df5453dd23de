"""Programs that are forked from a process which has imported what they import: starting one costs
no second.

For programs that are run to their end. What they import, signals from outside, and several
processes at once need a process of its own (`helpers.start_program`).
"""

import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile

_IMPORTED = (
    "launch.common",
    "nas.derivation",
    "nas.estimate",
    "nas.measurements",
    "nas.report.diagnosis",
    "nas.report.arms.tables",
    "nas.report.html",
    "nas.training",
    "experiments.tabular.program",
)
_FORKED = "__forked__"
_TIMEOUT = 300  # seconds that a program may hang

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(list(_IMPORTED))


def run_forked(
    environment: dict[str, str],
    program: str | pathlib.Path,
    *arguments,
    cwd: pathlib.Path | None = None,
) -> subprocess.CompletedProcess:
    """Runs a module (`python -m program`) or a file to its end."""
    command = list(map(str, (program, *arguments)))
    with tempfile.TemporaryDirectory() as folder:
        written = [pathlib.Path(folder, name) for name in ("out", "err")]
        # This file is run by its path: an installed package may be called `tests`, too.
        process = _forking.Process(
            target=runpy.run_path,
            args=(__file__, {"GIVEN": (program, command, environment, cwd, written)}, _FORKED),
        )
        process.start()
        process.join(_TIMEOUT)
        code = process.exitcode
        if code is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, _TIMEOUT)
        return subprocess.CompletedProcess(command, code, *(path.read_text() for path in written))


def _run(program, command, environment, cwd, written):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the process that forks ignores it
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    if cwd is not None:
        os.chdir(cwd)
    for number, path in enumerate(written, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    named = [program] if isinstance(program, pathlib.Path) else ["-m", program]
    sys.argv, sys.orig_argv = command, [sys.executable, *map(str, named), *command[1:]]
    if isinstance(program, pathlib.Path):
        runpy.run_path(str(program), run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == _FORKED:
    _run(*GIVEN)  # noqa: F821
