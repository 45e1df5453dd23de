"""The guard around every script, seen as its user sees it: a program that is started with good and
bad arguments.
"""

import ast
import dataclasses
import runpy
import shutil
import subprocess
import sys

import pytest

from launch import configuration
from nas.config import Config, from_dict
from tests.forked import run_forked
from tests.helpers import TIMEOUT

SCRIPT = '''"""Prints what it was given."""

import sys
from absl import flags
from launch import common, configuration, device
from nas.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("act", "show", "What to do.")
flags.DEFINE_integer("times", 1, "How often.")


def main():
    if FLAGS.act == "show":
        config = configuration.config()
        assert "jax" not in sys.modules
        print(config.search.epochs, config.seed, config.network["width"], common.workdir())
    elif FLAGS.act == "build":
        from nas import tasks
        tasks.build(configuration.config())
    elif FLAGS.act == "error":
        raise UserError("one\\n  line")
    elif FLAGS.act == "bug":
        raise ValueError("a bug")
    elif FLAGS.act == "interrupt":
        raise KeyboardInterrupt
    elif FLAGS.act == "refused":
        open(__file__ + "/below-a-file", "w")
    elif FLAGS.act == "device":
        devices = device.select_device(FLAGS.platform)
        import jax
        print(devices[0].platform, float(jax.jit(lambda x: x + 1)(1.0)))
    elif FLAGS.act == "product":
        device.select_device(FLAGS.platform)
        import jax
        print(jax.make_jaxpr(jax.numpy.dot)(jax.numpy.ones(2), jax.numpy.ones(2)))


common.define_flags("kjv_quick")

if __name__ == "__main__":
    common.run(main)
'''


@pytest.fixture
def program(tmp_path, user_environment):
    """Starts the script with some arguments in a folder of its own; returns the finished
    process.
    """
    (tmp_path / "script.py").write_text(SCRIPT)

    def start(*arguments, **environment):
        variables = {k: v for k, v in (user_environment | environment).items() if v is not None}
        command = [sys.executable, "script.py", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=TIMEOUT
        )

    return start


@pytest.fixture
def forked(tmp_path, user_environment):
    """The same, where what the program imports does not matter."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def run(*arguments, **environment):
        return run_forked(
            user_environment | environment, tmp_path / "script.py", *arguments, cwd=tmp_path
        )

    return run


def assert_one_line(process, *parts):
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1, process.stderr
    for part in parts:
        assert part in process.stderr


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--config=kjb"], ["--config=kjb", "kjv, kjv_quick, "]),
        (["--config="], ["--config=", "kjv, kjv_quick, "]),
        (["--config"], ["--config=", "kjv, kjv_quick, "]),
        (["--config=absent.py"], ["--config=absent.py", "no such file"]),
        (["--config.search.epoch=3"], ["--config.search.epoch", "warmup_epochs"]),
        (["--config.serch.epochs=3"], ["--config.serch.epochs", "search"]),
        (["--config.seed.x=3"], ["--config.seed.x"]),
        (["--config.search=3"], ["--config.search", "warmup_epochs"]),
        (["--config.search.epochs=many"], ["--config.search.epochs", "a whole number", "'many'"]),
        (["--config.search.epochs=1.5"], ["--config.search.epochs", "a whole number", "'1.5'"]),
        (["--config.network.clip=a: b"], ["--config.network.clip", "a number", "'a: b'"]),
        (["--config.seed"], ["config.seed"]),
        (["--config.search.epochs=0"], ["search.epochs", "at least 1", "got 0"]),
        (["--act=build", "--config.data.corpus=bible"], ["data.corpus", "kjv, ptb", "'bible'"]),
        (["--act=build", "--config.network.clip=nan"], ["network.clip", "finite"]),
        (["--confg=kjv"], ["confg", "config"]),
        (["--times=x"], ["--times", "a whole number", "'x'"]),
        (["--platform=cloud"], ["--platform=cloud", "cpu|gpu|tpu"]),
        (["kjv"], ["'kjv'", "--NAME=VALUE"]),
        (["--flagfile=absent"], ["absent"]),
        (["--act=error"], ["one line"]),
        (["--act=refused"], ["below-a-file", "Not a directory"]),
    ],
)
def test_what_the_user_can_mend_is_one_line(forked, arguments, parts):
    assert_one_line(forked(*arguments), *parts)


@pytest.mark.parametrize(
    "text, parts",
    [
        (b"def get_config(:\n", ["line 1", "SyntaxError"]),
        (b"\n\ndef get_config():\n    return absent\n", ["line 4", "absent"]),
        (b"def get_config():\n    return {}['absent']\n", ["line 2", "KeyError"]),
        (b"settings = 3\n", ["get_config()"]),
        (b"def get_config():\n    return 3\n", ["ConfigDict", "int"]),
        (
            b"def get_config():\n    return {'search': {'epoch': 3}}\n",
            ["search.epoch", "warmup_epochs"],
        ),
        (
            b"def get_config():\n    return {'search': {'epochs': None}}\n",
            ["search.epochs", "type int", "None"],
        ),
        (b"\xff\xfe", ["utf-8"]),
    ],
)
def test_broken_config_file(forked, tmp_path, text, parts):
    (tmp_path / "mine.py").write_bytes(text)
    assert_one_line(forked("--config=mine.py"), "--config=mine.py", *parts)


@pytest.mark.parametrize(
    "arguments, shown",
    [
        ([], "14 0 96 runs/kjv_quick"),
        (["--config=kjv", "--config.search.epochs=3", "--config.seed=0"], "3 0 200 runs/kjv"),
        (["--config.seed", "4", "--config", "kjv", "--workdir=runs/x"], "20 4 200 runs/x"),
        (
            ["--config=kjv", "--config.seed=1", "--config=mine.py", "--config.seed=2"],
            "7 2 200 runs/mine",
        ),
        (["--flagfile=flags.txt"], "14 5 96 runs/kjv_quick"),
    ],
)
def test_overrides_arrive_and_the_last_one_counts(program, tmp_path, arguments, shown):
    (tmp_path / "mine.py").write_text(
        "from launch.configs import kjv\n"
        "def get_config():\n"
        "    config = kjv.get_config()\n"
        "    config.search.epochs = 7\n"
        "    return config\n"
    )
    (tmp_path / "flags.txt").write_text("--config.seed=5\n")
    process = program(*arguments)
    assert (process.returncode, process.stdout.strip(), process.stderr) == (0, shown, "")


def test_bugs_keep_their_traceback_and_interrupts_their_code(program):
    process = program("--act=bug")
    assert process.returncode == 1
    assert "Traceback" in process.stderr and "ValueError: a bug" in process.stderr
    process = program("--act=interrupt")
    assert (process.returncode, process.stderr) == (130, "interrupted\n")


def test_help_is_complete_and_imports_nothing_large(program):
    process = program("--help", "--config=nonsense", PYTHONPROFILEIMPORTTIME="1")
    lines = process.stderr.splitlines()
    assert process.returncode == 0 and all(line.startswith("import time:") for line in lines)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "ml_collections" in imported
    assert not imported & {"jax", "jaxlib", "numpy", "scipy", "flax", "matplotlib", "networkx"}
    for part in (
        "Prints what it was given.",
        "kjv_quick: ",
        "ptb_paper: ",
        "--workdir=",
        "--times=1",
        "Example:",
    ):
        assert part in process.stdout
    for field in (
        "--config.seed=0",
        "--config.search.epochs=14",
        "--config.strategy.memory.source=old",
    ):
        assert field in process.stdout
    assert "--verbosity" in program("--helpfull").stdout
    assert "--config.space.layers=12" in program("--help", "--config=mnist_macro").stdout


def test_products_are_not_rounded_on_accelerators(forked):
    assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in forked("--act=product").stdout


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_missing_device(forked, platform):
    if platform == "gpu" and shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU")
    assert_one_line(
        forked("--act=device", f"--platform={platform}"), f"--platform={platform}", "only", "cpu"
    )


def test_missing_device_of_the_environment(program):
    assert_one_line(
        program("--act=device", JAX_PLATFORMS="cloud"), "JAX_PLATFORMS=cloud", "--platform=cpu"
    )


def test_compiled_programs_are_kept(program, tmp_path):
    process = program(
        "--act=device",
        "--platform=cpu",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        JAX_PLATFORMS="cloud",
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "cpu 2.0\n", "")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_does_not_matter(forked, tmp_path):
    (tmp_path / "file").write_text("")
    process = forked("--act=device", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert (process.returncode, process.stdout, process.stderr) == (0, "cpu 2.0\n", "")


def test_warns_of_a_gpu_that_jax_does_not_see(program, tmp_path, user_environment):
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    process = program(
        "--act=device", PATH=f"{tmp_path}:{user_environment['PATH']}", JAX_PLATFORMS=None
    )
    assert process.returncode == 0
    assert process.stderr.startswith("warning: ") and process.stderr.count("\n") == 1
    assert "'.[cuda13]'" in process.stderr


@pytest.mark.parametrize(
    "path", sorted(configuration.FOLDER.glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_presets(path):
    config = from_dict(runpy.run_path(str(path))["get_config"]().to_dict())
    assert set(dataclasses.asdict(config)) == {field.name for field in dataclasses.fields(Config)}
    assert f"--config={path.stem}" in ast.get_docstring(ast.parse(path.read_text()))


def test_what_needs_neither_jax_nor_pyplot_imports_none(user_environment):
    code = """
import pkgutil, sys
import launch.common, nas.config, nas.report, nas.spaces
names = ["nas.report." + module.name for module in pkgutil.iter_modules(nas.report.__path__)]
for name in names:
    __import__(name)
    assert not {"jax", "matplotlib.pyplot"} & set(sys.modules), name
print(len(names))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        command, env=user_environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) >= 8
