"""A reader that leaves, as `head` does, ends any program quietly, wherever it prints."""

import os
import subprocess
import sys

import pytest

from tests.helpers import TIMEOUT

PROGRAM = """
import sys

from absl import flags

from launch import common

flags.DEFINE_enum("prints", "results", ("results", "errors", "much", "bug"), "What it prints.")
common.define_flags()


def main():
    match flags.FLAGS.prints:
        case "results":
            print("result")
        case "errors":
            print("warning", file=sys.stderr, flush=True)
        case "much":
            for _ in range(10_000):
                print("a long line", flush=True)
        case "bug":
            raise BrokenPipeError("of something else")


if __name__ == "__main__":
    common.run(main)
"""


@pytest.fixture
def run(user_environment, tmp_path):
    """Runs `python -m MODULE ARGUMENTS` with streams that nobody reads; returns the exit code and
    what it said elsewhere.
    """
    (tmp_path / "prints.py").write_text(PROGRAM)
    paths = os.pathsep.join([str(tmp_path), user_environment["PYTHONPATH"]])

    def start(*arguments, closed=("stdout",)):
        reader, writer = os.pipe()
        os.close(reader)
        streams = {
            name: writer if name in closed else subprocess.PIPE for name in ("stdout", "stderr")
        }
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=user_environment | {"PYTHONPATH": paths},
            text=True,
            **streams,
        )
        os.close(writer)
        out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, "".join(filter(None, (out, err)))

    return start


@pytest.mark.parametrize(
    "module", ["launch.search", "experiments.table_correlations", "launch.diagnose"]
)
def test_help(module, run):
    assert run(module, "--help") == (141, "")


@pytest.mark.parametrize("prints", ["results", "much"])
def test_results(prints, run):
    assert run("prints", f"--prints={prints}") == (141, "")


def test_what_is_said_on_the_other_stream(run):
    assert run("prints", "--prints=errors", closed=("stderr",)) == (141, "")
    assert run("prints", "--prints=results", closed=("stdout", "stderr")) == (141, "")


def test_an_error_that_nobody_reads(run):
    code, said = run("prints", "--unknown", closed=("stderr",))
    assert (code, said) == (141, "")


def test_a_pipe_of_something_else_is_a_bug(run):
    code, said = run("prints", "--prints=bug", closed=())
    assert code == 1 and "BrokenPipeError: of something else" in said
