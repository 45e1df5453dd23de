"""What --help prints. Imports no JAX."""

import ast
import contextlib
import sys
import textwrap

from absl import flags

from launch import configuration
from nas.errors import UserError

FLAGS = flags.FLAGS


def print_help(full: bool) -> None:
    script = sys.modules["__main__"]
    spec = getattr(script, "__spec__", None)
    command = f"python -m {spec.name}" if spec else f"python {sys.argv[0]}"
    lines = [
        (script.__doc__ or "").strip(),
        "",
        f"Usage: {command} [--FLAG=VALUE ...]",
        "",
        "Flags (with their defaults):",
    ]
    for module, defined in FLAGS.flags_by_module_dict().items():
        if full or not module.startswith("absl"):
            for flag in defined:
                default = (
                    flag.parser.default
                    if isinstance(flag.parser, configuration.ConfigParser)
                    else flag.default
                )
                if isinstance(default, list):  # as it is typed
                    default = ",".join(default)
                lines += [
                    f"  --{flag.name}={'' if default is None else default}",
                    *_wrap(flag.help.replace("<|", "<"), 6),
                ]
    if configuration.is_defined():
        lines += ["", "Configurations:"]
        for name in configuration.names():
            doc = (
                ast.get_docstring(ast.parse((configuration.FOLDER / f"{name}.py").read_text()))
                or ""
            )
            lines += _wrap(f"{name}: {doc.partition(2 * chr(10))[0]}", 2)
        name, fields = _chosen()
        lines += ["", f"Fields, as {name} sets them; --help --config=NAME shows those of another."]
        lines += _wrap(
            "nas/config.py explains search, evaluation and training. The classes that "
            "nas/tasks.py, nas/controllers/__init__.py and nas/strategies/__init__.py name explain "
            "the others.",
            0,
        )
        lines += _fields(fields)
        lines += [
            "",
            "Example:",
            f"  {command} --config={name} --config.search.epochs=3 --config.seed=1",
        ]
    lines += [] if full else ["", "--helpfull also lists the flags for logging and debugging."]
    print("\n".join(lines))


def _chosen():
    """The name and the fields of the configuration of the command line, or of the default where
    that cannot be read.
    """
    default = FLAGS["config"].parser.default
    for name in (configuration.chosen(sys.argv[1:]), default):
        with contextlib.suppress(UserError):
            return name, configuration.ConfigParser(default).parse(name).to_dict()
    raise AssertionError(f"{default}: no configuration")


def _fields(values, prefix="config"):
    groups = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = _wrap(
        " ".join(
            f"--{prefix}.{name}={value}" for name, value in values.items() if name not in groups
        ),
        2,
    )
    return lines + [
        line for name, group in groups.items() for line in _fields(group, f"{prefix}.{name}")
    ]


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
