"""What every script shares: its flags, the guard around it, the device. Imports no JAX at the top, so that --help is quick.

A script calls `define_flags` at its top level and ends with `if __name__ == "__main__": common.run(main)`. Its `main()` takes
nothing, reads `FLAGS` and `config()`, and calls `select_device(FLAGS.platform)` before it computes.
"""

import ast
import dataclasses
import errno
import os
import pathlib
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import ml_collections
from absl import app, flags
from ml_collections import config_flags

import nas.config
from launch import display
from nas.errors import Interrupted, UserError
from nas.user_cache import user_cache

FLAGS = flags.FLAGS
CONFIGS = pathlib.Path(__file__).resolve().parent / "configs"
PLATFORMS = ("cpu", "gpu", "tpu")
HEARTBEAT = 30  # seconds after which a silent process of a run is lost

_SUPERVISED = "NAS_SUPERVISED"  # set for the child of _supervise: number of its parent
_LOST = (
    "another process of this run was lost or never came, and this one ended with it; start all again with the same "
    "--workdir: the run continues from its last checkpoint"
)
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_HELP = {"--help": False, "-help": False, "-h": False, "-?": False, "--helpshort": False, "--helpfull": True}
# What the system refuses is for the user to mend; any other OSError is a bug until shown otherwise.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR)


def define_flags(default_config: str | None = None) -> None:
    """Defines the flags that scripts share; call it once, at the top level of a script.

    --workdir and --platform; and, where `default_config` names one, --corpus_dir, --data_dir and --config=NAME (a file of
    `launch/configs`) or --config=FILE, with any field settable as --config.FIELD=VALUE. A run knows where its data is.
    """
    if default_config is not None:
        parser = _ConfigParser(default_config)
        # Neither default nor arguments yet: they would be parsed here, overrides and all, where no guard is.
        config_flags.DEFINE_config_file(
            "config",
            None,
            f"The configuration: {', '.join(_names())}, or a Python file whose get_config() returns one. "
            "--config.FIELD=VALUE sets a field of it.",
            sys_argv=parser.arguments,
        )
        FLAGS["config"].parser = parser
    flags.DEFINE_string(
        "workdir",
        "",
        "Folder of the run: its configuration, checkpoints, metrics and architectures."
        + ("" if default_config is None else " Empty: runs/NAME, after the configuration."),
    )
    flags.DEFINE_enum(
        "platform", "", ("", *PLATFORMS), "Device to compute on, an error if not there. Empty: the best there is."
    )
    if default_config is not None:
        flags.DEFINE_string("corpus_dir", "", "Folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt. Empty: downloaded.")
        flags.DEFINE_string("data_dir", "", "Folder of prepared corpora (TFDS). Empty: that of TFDS, ~/tensorflow_datasets.")


def define_device_flags() -> None:
    """Defines the flags of scripts that train: on how many devices, of how many processes.

    --parallel, and --coordinator, --num_processes and --process_id for runs of several processes.
    """
    flags.DEFINE_enum(
        "parallel", "", ("", "jit", "pmap"), "jit: one device; pmap: all devices. Empty: pmap where there are several."
    )
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of process 0, the same for all processes; auto: ask the cluster (Slurm, Open MPI, ...)."
    )
    flags.DEFINE_integer("num_processes", 1, "Processes that train one run together, each with its own devices.", lower_bound=1)
    flags.DEFINE_integer(
        "process_id", 0, "Number of this process, 0 to num_processes - 1. Process 0 writes the run directory.", lower_bound=0
    )


def define_verbose_flag() -> None:
    """Defines --verbose, of scripts that print an answer and write a report."""
    flags.DEFINE_bool("verbose", False, "Print all tables of the report before the answer.")


def run_options() -> dict[str, Any]:
    """What `nas.runs.start` takes from the flags, besides the configuration and the directory."""
    return {"corpus_dir": FLAGS.corpus_dir, "data_dir": FLAGS.data_dir, "parallel": FLAGS.parallel}


def config() -> nas.config.Config:
    """The configuration that the flags describe.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """
    return nas.config.from_dict(FLAGS.config.to_dict())


def workdir() -> pathlib.Path:
    """The folder of the run: --workdir, or runs/NAME after the configuration.

    Raises:
      UserError: neither is given.
    """
    if FLAGS.workdir:
        return pathlib.Path(FLAGS.workdir)
    if "config" not in FLAGS:
        raise UserError("--workdir: must name the folder of a run")
    return pathlib.Path("runs", config_name())


def decisions(space: Any) -> Any:
    """The decisions [T] that --decisions, a flag of the script, gives for a search space; None where it is empty.

    Raises:
      UserError: they are not of the space.
    """
    try:
        return space.parse(FLAGS.decisions) if FLAGS.decisions else None
    except UserError as error:
        raise UserError(f"--decisions: {error}") from None


def seeds() -> list[int]:
    """The whole numbers of --seeds, a flag of the script, each once.

    Raises:
      UserError: there are none, or others.
    """
    if not FLAGS.seeds or not all(seed.isdigit() for seed in FLAGS.seeds):
        raise UserError(f"--seeds: whole numbers separated by commas, at least one; got {','.join(FLAGS.seeds)!r}")
    return list(dict.fromkeys(map(int, FLAGS.seeds)))


def config_name() -> str:
    """The name of the configuration that --config chose."""
    return pathlib.Path(FLAGS["config"].config_filename).stem


def run(main: Callable[[], int | None]) -> NoReturn:
    """Parses the flags, checks the configuration, calls `main()` and exits with what it returns.

    What the user can mend ends with one line on standard error and exit code 2, Ctrl-C with 130, a pipe that nobody reads any
    more with 141, and `Interrupted` with its line and code; a bug keeps its traceback.
    A process of several is watched by a parent of its own, which says what became of it when it cannot.
    """
    try:
        try:
            _run(main)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be told from a bug
    except BrokenPipeError:
        if not (closed := [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]):
            raise
        for stream in closed:  # or the interpreter would try once more, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        _exit(128 + signal.SIGPIPE)


def select_device(platform: str) -> list[Any]:
    """Selects and returns JAX's devices; call it before anything else uses JAX.

    Compiled programs are kept in the user's cache folder, so that a second start is quick.

    Args:
      platform: one of PLATFORMS, or empty for JAX's own choice.

    Raises:
      UserError: no such device; names what there is.
    """
    import jax

    if _is_one_of_many():
        _join_processes()
    if platform:
        # Not "gpu": JAX then also demands the devices of other makers. None is its own choice, which is checked below.
        jax.config.update("jax_platforms", "cpu" if platform == "cpu" else None)
    if not jax.config.jax_compilation_cache_dir and (folder := user_cache("jax")):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second where JAX_PLATFORMS names nothing that is there
        asked = jax.config.jax_platforms
        reason = f"JAX_PLATFORMS={asked}: there is no such device here" if asked else f"JAX cannot use the device here: {error}"
        raise UserError(f"{reason}; --platform=cpu computes on the CPU") from None
    found = devices[0].platform
    if platform and found != platform:
        extra = {"gpu": "cuda", "tpu": "tpu"}.get(platform)
        hint = f" (JAX for it comes with pip install -e '.[{extra}]')" if extra else ""
        there = ", ".join(dict.fromkeys((found, "cpu")))
        raise UserError(f"--platform={platform}: there is no such device here, only {there}{hint}")
    if not jax.config.jax_platforms and found == "cpu" and _nvidia_answers():
        print(
            "warning: there is an NVIDIA GPU, but JAX computes on the CPU: pip install -e '.[cuda]', "
            "or --platform=cpu if that is meant",
            file=sys.stderr,
        )
    return devices


def _run(main):
    try:
        app.run(lambda _: _call(main), flags_parser=_parse)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _exit(130)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        _exit(stop.code)
    except Exception as error:
        if message := _message(error):
            _fail(message)
        if _SUPERVISED not in os.environ:
            raise
        traceback.print_exc()
        _exit(1)


def _call(main):
    if _is_one_of_many() and _SUPERVISED not in os.environ:
        return _supervise()
    with display.shown():
        return main()


def _is_closed(stream):
    """Whether the reader of a pipe has left."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def _is_one_of_many():
    return "num_processes" in FLAGS and (FLAGS.num_processes > 1 or FLAGS.process_id > 0 or bool(FLAGS.coordinator))


def _join_processes():
    """Meets the other processes of the run; a lost one is noticed within HEARTBEAT seconds, and this one then aborts."""
    import jax

    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Those that are done wait for process 0, which may have much to evaluate still; it is missed if it is lost.
    options = {"heartbeat_timeout_seconds": HEARTBEAT, "initialization_timeout": 60, "shutdown_timeout_seconds": 7 * 86400}
    if FLAGS.coordinator != "auto":
        if not re.fullmatch(r"[^:]+:\d+", FLAGS.coordinator):
            raise UserError(f"--coordinator: must be HOST:PORT of process 0, or auto, got {FLAGS.coordinator!r}")
        if not 0 <= FLAGS.process_id < FLAGS.num_processes:
            raise UserError(f"--process_id: must be in 0..{FLAGS.num_processes - 1}, got {FLAGS.process_id}")
        options |= {
            "coordinator_address": FLAGS.coordinator,
            "num_processes": FLAGS.num_processes,
            "process_id": FLAGS.process_id,
        }
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:  # no cluster to detect, or the others did not come
        raise UserError(f"--coordinator={FLAGS.coordinator}: cannot join the run: {str(error).splitlines()[0]}") from None


def _supervise():
    """Runs this command in a child and returns its exit code; explains an abort, of which the child cannot speak."""
    child = subprocess.Popen(sys.orig_argv, env=os.environ | {_SUPERVISED: str(os.getpid())})
    handlers = {n: signal.signal(n, lambda number, _: child.send_signal(number)) for n in (signal.SIGTERM, signal.SIGINT)}
    code = child.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if code in (-signal.SIGABRT, -signal.SIGSEGV):  # the second where the traceback of the first meets running threads
        raise UserError(_LOST)
    return code if code >= 0 else 128 - code


def _end_with_parent():
    """Ends this process once its parent was killed: whoever kills the one that they started means this one."""
    while os.getppid() == int(os.environ[_SUPERVISED]):
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


class _ConfigParser(flags.ArgumentParser):
    """Reads a configuration file into a complete, checked ConfigDict, so that every field can be overridden."""

    def __init__(self, default):
        self.default = default
        self.arguments = []  # where ml_collections looks for overrides

    def parse(self, argument):
        values = nas.config.from_dict(_read_config(_find_config(argument)))
        return ml_collections.ConfigDict(dataclasses.asdict(values)).lock()

    def flag_type(self):
        return "configuration"


def _is_configured():
    """Whether --config is the flag of `define_flags`; a study of its own settings may have one of its own."""
    return "config" in FLAGS and isinstance(FLAGS["config"].parser, _ConfigParser)


def _names():
    return sorted(path.stem for path in CONFIGS.glob("[!_]*.py"))


def _find_config(argument):
    if argument in _names():
        return CONFIGS / f"{argument}.py"
    path = pathlib.Path(argument)
    if path.suffix != ".py" and len(path.parts) <= 1:
        raise UserError(f"unknown configuration; choose one of {', '.join(_names())}, or the path of a Python file")
    if not path.is_file():
        raise UserError("no such file")
    return path


def _read_config(path):
    """The dictionary that the file's get_config() returns."""
    try:
        scope = runpy.run_path(str(path))
        if not callable(scope.get("get_config")):
            raise UserError("the file defines no function get_config()")
        values = scope["get_config"]()
    except UserError:
        raise
    except Exception as error:  # the user's own code: anything can go wrong in it
        raise UserError(f"{_line(error, path)}{type(error).__name__}: {getattr(error, 'msg', error)}") from None
    if not hasattr(values, "items"):
        raise UserError(f"get_config() must return a ConfigDict with fields of nas.config.Config, got {type(values).__name__}")
    return dict(values.items())


def _line(error, path):
    """`line N: ` of the file in which the error arose."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""


def _parse(argv):
    """Parses the command line; `app.run` calls it. Everything wrong with it is a UserError."""
    if wanted := [_HELP[arg] for arg in argv[1:] if arg in _HELP]:
        _print_help(full=any(wanted))
        sys.exit(0)
    try:
        arguments = FLAGS.read_flags_from_files(argv[1:], force_gnu=False)
        if _is_configured():
            arguments = _config_first(arguments)
            FLAGS["config"].parser.arguments[:] = arguments
        rest = FLAGS([argv[0], *arguments])
    except flags.Error as error:
        raise UserError(_explain(str(error))) from None
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}: settings are flags, --NAME=VALUE")
    if _is_configured():
        config()
    if FLAGS["verbosity"].using_default_value:
        FLAGS.verbosity = -1  # warnings; absl's own choice lets libraries write over the progress bar
    return rest


def _config_first(arguments):
    """The arguments, started by the last --config or the default: overrides may then stand anywhere.

    Raises:
      UserError: an override of a field that does not exist (of which ml_collections would not say what does).
    """
    chosen, others, remaining = FLAGS["config"].parser.default, [], iter(arguments)
    for argument in remaining:
        if argument == "--":
            others += [argument, *remaining]
        elif match := re.fullmatch(r"--?config(=.*)?", argument, re.DOTALL):
            chosen = match[1][1:] if match[1] else next(remaining, "")
        else:
            if match := re.match(r"--?(?:no)?config\.([^=]*)", argument):
                _check_field(match[1])
            others.append(argument)
    return [f"--config={chosen}", *others]


def _check_field(name):
    kind, group = nas.config.Config, "the configuration"
    for part in name.split("."):
        fields = {field.name: field.type for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        if part not in fields:
            raise UserError(f"--config.{name}: unknown field; {group} has {', '.join(fields) or 'no parts'}")
        kind, group = fields[part], part
    if dataclasses.is_dataclass(kind):
        raise UserError(f"--config.{name}: a group of fields; set one of {', '.join(f.name for f in dataclasses.fields(kind))}")


def _explain(message):
    """absl's message, with what would be right where absl only quotes the conversion that failed."""
    if match := re.match(r"flag --([\w.]+)=(.*?): (invalid literal|could not convert|\('Non-boolean)", message, re.DOTALL):
        return f"--{match[1]}: must be {_KINDS[FLAGS[match[1]].flag_type()]}, got {match[2]!r}"
    return message.replace("<|", "<").removeprefix("flag ").removeprefix("ERROR:: ")


def _message(error):
    """What the user can do about it; None if it is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return f"{error.filename or 'the system'}: {error.strerror}"
    if _SUPERVISED in os.environ and re.search("gloo|nccl", str(error), re.IGNORECASE):  # what connects the processes
        return _LOST
    return None


def _fail(message):
    print("error:", " ".join(message.split()), file=sys.stderr)
    _exit(2)


def _exit(code):
    """Ends; one of many at once, since JAX would first wait for the others, who wait for this one."""
    if _SUPERVISED not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _print_help(full):
    script = sys.modules["__main__"]
    spec = getattr(script, "__spec__", None)
    command = f"python -m {spec.name}" if spec else f"python {sys.argv[0]}"
    lines = [(script.__doc__ or "").strip(), "", f"Usage: {command} [--FLAG=VALUE ...]", "", "Flags (with their defaults):"]
    for module, defined in FLAGS.flags_by_module_dict().items():
        if full or not module.startswith("absl"):
            for flag in defined:
                default = flag.parser.default if isinstance(flag.parser, _ConfigParser) else flag.default
                lines += [f"  --{flag.name}={'' if default is None else default}", *_wrap(flag.help.replace("<|", "<"), 6)]
    if _is_configured():
        lines += ["", "Configurations:"]
        for name in _names():
            doc = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text())) or ""
            lines += _wrap(f"{name}: {doc.partition(chr(10))[0]}", 2)
        default = FLAGS["config"].parser.default
        lines += ["", f"Fields, as {default} sets them (nas/config.py explains each):"]
        lines += _fields(_ConfigParser(default).parse(default).to_dict())
        lines += ["", "Example:", f"  {command} --config={default} --config.search.epochs=3 --config.seed=1"]
    lines += [] if full else ["", "--helpfull also lists the flags for logging and debugging."]
    print("\n".join(lines))


def _fields(values, prefix="config"):
    groups = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = _wrap(" ".join(f"--{prefix}.{name}={value}" for name, value in values.items() if name not in groups), 2)
    return lines + [line for name, group in groups.items() for line in _fields(group, f"{prefix}.{name}")]


def _wrap(text, indent):
    margin = " " * indent
    return textwrap.wrap(
        " ".join(text.split()),
        width=110,
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _nvidia_answers():
    if not shutil.which("nvidia-smi"):
        return False
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
