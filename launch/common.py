"""What every script shares: its flags, and the guard around it. Imports no JAX at the top.

A script calls `define_flags` at its top level and ends with `if __name__ == "__main__":
common.run(main)`. Its `main()` takes nothing, reads `FLAGS` and `configuration.config()`, and calls
`device.select_device(FLAGS.platform)` before it computes.
"""

import errno
import os
import pathlib
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags

from launch import configuration, device, display, processes
from launch.help import print_help
from launch.paths import define_path
from nas.errors import Interrupted, UserError

FLAGS = flags.FLAGS

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_HELP = {
    **dict.fromkeys(("--help", "-help", "-h", "-?", "--helpshort"), False),
    "--helpfull": True,
}
# Refusals of the system, which the user can fix; any other OSError is a bug until shown otherwise.
_REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
)


def define_flags(
    default_config: str | None = None, *, folder: str | None = "runs/NAME, after the configuration"
) -> None:
    """Defines the flags that scripts share; call it once, at the top level of a script.

    --workdir and --platform; and, if `default_config` names one, --raw_dir, --data_dir and
    --config=NAME (a file of `launch/configs`) or --config=FILE, with any field settable as
    --config.FIELD=VALUE. Scripts without a configuration open a run, which knows where its data is.

    Args:
      folder: what an empty --workdir stands for, for its help; None: it must be given.
    """
    has_config = default_config is not None
    if has_config:
        configuration.define_flag(default_config)
    define_path(
        "workdir",
        "Folder of the run. Must be given."
        if folder is None
        else f"Folder of all that is kept; the same command continues it. Empty: {folder}.",
        folder=True,
    )
    device.define_flag()
    if has_config:
        define_path(
            "raw_dir",
            "Folder with the raw files of the data set, such as train.txt, validation.txt and "
            "test.txt of a text; or a file, such as an .npz of images. Empty: downloaded, or "
            "installed.",
            absolute=True,
        )
        define_path(
            "data_dir",
            "Folder of prepared data (TFDS). Empty: ~/tensorflow_datasets.",
            absolute=True,
        )


def define_device_flags() -> None:
    """Defines the flags of scripts that train: how many devices and processes they use."""
    device.define_parallel_flag()
    processes.define_flags()


def define_verbose_flag() -> None:
    """Defines --verbose, for scripts that print an answer and write a report."""
    flags.DEFINE_bool("verbose", False, "Print all tables of the report before the answer.")


def data_options() -> dict[str, Any]:
    """Where data is, as `nas.tasks.Data.load` takes it."""
    return {"raw_dir": FLAGS.raw_dir, "data_dir": FLAGS.data_dir}


def run_options() -> dict[str, Any]:
    """What `nas.runs.start` takes, besides the configuration and the directory."""
    return data_options() | {"parallel": FLAGS.parallel}


def workdir() -> pathlib.Path:
    """The folder of the run: --workdir, or runs/NAME after the configuration.

    Raises:
      UserError: neither is given.
    """
    if FLAGS.workdir:
        return pathlib.Path(FLAGS.workdir)
    if "config" not in FLAGS:
        raise UserError("--workdir: must name the folder of a run")
    return pathlib.Path("runs", configuration.config_name())


def decisions(space: Any) -> Any:
    """The decisions [T] that the script's flag --decisions gives for a search space; None if the
    flag is empty.

    Raises:
      UserError: they are not decisions of the space.
    """
    try:
        return space.parse(FLAGS.decisions) if FLAGS.decisions else None
    except UserError as error:
        raise UserError(f"--decisions: {error}") from None


def seeds() -> list[int]:
    """The whole numbers of the script's flag --seeds, each once.

    Raises:
      UserError: there are none, or one is no whole number.
    """
    if not FLAGS.seeds or not all(seed.isascii() and seed.isdigit() for seed in FLAGS.seeds):
        raise UserError(
            "--seeds: whole numbers separated by commas, at least one; got "
            f"{','.join(FLAGS.seeds)!r}"
        )
    return list(dict.fromkeys(map(int, FLAGS.seeds)))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Parses the flags, checks the configuration, calls `main()` and exits with what it returns.

    Errors that the user can fix end with one line on standard error and exit code 2, Ctrl-C ends
    with code 130, a pipe that nobody reads any more with 141, and `Interrupted` with its message
    and code (in a job of Slurm with 75 for 0, which would count as completed). A bug keeps its
    traceback. In a run of several processes each is watched by a parent of its own, which explains
    an end that the process itself cannot explain.
    """
    try:
        try:
            _run(main)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be told from a bug
    except BrokenPipeError:
        if not (closed := [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]):
            raise
        for stream in closed:  # else the interpreter would try to write once more, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        processes.end(128 + signal.SIGPIPE)


def _run(main):
    try:
        app.run(lambda _: _call(main), flags_parser=_parse)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        processes.end(130)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        processes.end(stop.code or processes.stopped_code(os.environ))
    except Exception as error:
        if message := _message(error):
            _fail(message)
        if processes.SUPERVISED not in os.environ:
            raise
        traceback.print_exc()
        processes.end(1)


def _call(main):
    if processes.is_one_of_many() and processes.SUPERVISED not in os.environ:
        return processes.supervise()
    with display.shown():
        return main()


def _is_closed(stream):
    """Whether the reader of a pipe has left."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def _parse(argv):
    """Parses the command line; `app.run` calls it. Everything wrong with it is a UserError."""
    if wanted := [_HELP[arg] for arg in argv[1:] if arg in _HELP]:
        print_help(full=any(wanted))
        sys.exit(0)
    try:
        arguments = FLAGS.read_flags_from_files(argv[1:], force_gnu=False)
        if configuration.is_defined():
            arguments = configuration.config_first(arguments)
        rest = FLAGS([argv[0], *arguments])
    except flags.Error as error:
        raise UserError(_explain(str(error))) from None
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}: settings are flags, --NAME=VALUE")
    if configuration.is_defined():
        configuration.config()
    if FLAGS["verbosity"].using_default_value:
        # Warnings only: absl's default lets libraries write over the progress bar.
        FLAGS.verbosity = -1
    return rest


def _explain(message):
    """absl's message, with what would be right if absl only quotes the conversion that failed."""
    if match := re.match(
        r"flag --([\w.]+)=(.*?): (invalid literal|could not convert|\('Non-boolean)",
        message,
        re.DOTALL,
    ):
        return f"--{match[1]}: must be {_KINDS[FLAGS[match[1]].flag_type()]}, got {match[2]!r}"
    return message.replace("<|", "<").removeprefix("flag ").removeprefix("ERROR:: ")


def _message(error):
    """What the user can do about an error; None if it is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return f"{error.filename or 'the system'}: {error.strerror}"
    # gloo and NCCL connect the processes of a run.
    if processes.SUPERVISED in os.environ and re.search("gloo|nccl", str(error), re.IGNORECASE):
        return processes.LOST
    return None


def _fail(message):
    print("error:", " ".join(message.split()), file=sys.stderr)
    processes.end(2)
