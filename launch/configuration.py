"""The configuration of a program: --config=NAME or FILE, and --config.FIELD=VALUE. Imports no
JAX.
"""

import dataclasses
import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Mapping

import ml_collections
from absl import flags
from ml_collections import config_flags

import nas.config
from nas.config import Config
from nas.errors import UserError

FLAGS = flags.FLAGS
FOLDER = pathlib.Path(__file__).resolve().parent / "configs"


def define_flag(default: str) -> None:
    """Defines --config; call it at the top level of a script."""
    parser = ConfigParser(default)
    # No default and no arguments yet: they would be parsed here, where errors are not caught.
    config_flags.DEFINE_config_file(
        "config",
        None,
        f"The configuration: {', '.join(names())}, or a Python file whose get_config() returns one."
        " --config.FIELD=VALUE sets a field of it.",
        sys_argv=parser.arguments,
    )
    FLAGS["config"].parser = parser


def is_defined() -> bool:
    """Whether --config is the flag of `define_flag`; a study may have another --config."""
    return "config" in FLAGS and isinstance(FLAGS["config"].parser, ConfigParser)


def config() -> Config:
    """The configuration that the flags describe; open groups are checked when they are read.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """
    return nas.config.from_dict(FLAGS.config.to_dict())


def config_name() -> str:
    """The name of the configuration that --config chose."""
    return pathlib.Path(FLAGS["config"].config_filename).stem


def chosen(arguments: list[str]) -> str:
    """The last --config=NAME of a command line; the default where there is none."""
    given = [of.partition("=")[2] for of in arguments if re.match("--?config=", of)]
    return given[-1] if given else FLAGS["config"].parser.default


def names() -> list[str]:
    """The configurations that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def config_first(arguments: list[str]) -> list[str]:
    """The arguments with the last --config, or the default, in front: overrides may be anywhere.

    Raises:
      UserError: an override of an unknown field (ml_collections does not say which fields exist).
    """
    parser = FLAGS["config"].parser
    chosen, others, fields, remaining = parser.default, [], [], iter(arguments)
    for argument in remaining:
        if argument == "--":
            others += [argument, *remaining]
        elif match := re.fullmatch(r"--?config(=.*)?", argument, re.DOTALL):
            chosen = match[1][1:] if match[1] else next(remaining, "")
        else:
            if match := re.match(r"--?(?:no)?config\.([^=]*)", argument):
                fields.append(match[1])
            others.append(argument)
    parser.arguments[:] = [f"--config={chosen}", *others]
    try:
        values = parser.parse(chosen).to_dict() if fields else {}
    except UserError:  # parsing the flag explains it
        fields = []
    for name in fields:
        _check_field(name, values)
    return list(parser.arguments)


class ConfigParser(flags.ArgumentParser):
    """Reads a configuration file into a complete ConfigDict, so that every field can be overridden.

    A policy or strategy that is named by an override brings its own settings.
    """

    def __init__(self, default: str):
        self.default = default
        self.arguments = []  # where ml_collections looks for overrides

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        path = _find(argument)
        if path.parent != FOLDER and str(path.parent.resolve()) not in sys.path:
            sys.path.append(str(path.parent.resolve()))  # a user's own task is beside it
        values = dataclasses.asdict(nas.config.from_dict(_read(path)))
        for group in ("policy", "strategy"):
            name = _override(self.arguments, f"{group}.name")
            if name is not None and name != values[group].get("name"):
                values[group] = _choose(group, values[group], name)
        return ml_collections.ConfigDict(values).lock()

    def flag_type(self) -> str:
        return "configuration"


def _override(arguments, field):
    """The value that the command line gives to a field; None: it gives none."""
    found, remaining = None, iter(arguments)
    for argument in remaining:
        if match := re.fullmatch(rf"--?config\.{re.escape(field)}(=.*)?", argument, re.DOTALL):
            found = match[1][1:] if match[1] else next(remaining, "")
    return found


def _choose(group, settings, name):
    from nas.controllers import POLICIES
    from nas.strategies import STRATEGIES

    registry = {"policy": POLICIES, "strategy": STRATEGIES}[group]
    return nas.config.choose(registry, settings, name, group)


def _check_field(name, values):
    group = "the configuration"
    for part in name.split("."):
        if not isinstance(values, Mapping) or part not in values:
            has = ", ".join(values) if isinstance(values, Mapping) else "no parts"
            raise UserError(f"--config.{name}: unknown field; {group} has {has}")
        values, group = values[part], part
    if isinstance(values, Mapping):
        raise UserError(f"--config.{name}: a group of fields; set one of {', '.join(values)}")


def _find(argument):
    if argument in names():
        return FOLDER / f"{argument}.py"
    path = pathlib.Path(argument)
    if path.suffix != ".py" and len(path.parts) <= 1:
        choices = ", ".join(names())
        raise UserError(
            f"unknown configuration; choose one of {choices}, or the path of a Python file"
        )
    if not path.is_file():
        raise UserError("no such file")
    return path


def _read(path):
    """The dictionary that the file's get_config() returns."""
    try:
        scope = runpy.run_path(str(path))
        if not callable(scope.get("get_config")):
            raise UserError("the file defines no function get_config()")
        values = scope["get_config"]()
    except UserError:
        raise
    except Exception as error:  # the user's own code: anything can go wrong in it
        raise UserError(
            f"{_line(error, path)}{type(error).__name__}: {getattr(error, 'msg', error)}"
        ) from None
    if not hasattr(values, "items"):
        raise UserError(
            "get_config() must return a ConfigDict with fields of nas.config.Config, got "
            f"{type(values).__name__}"
        )
    return dict(values.items())


def _line(error, path):
    """`line N: ` of the file in which the error arose."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f"line {lines[-1]}: " if lines else ""
