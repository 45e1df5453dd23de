"""`launch/run.sh` and `launch/test.sh` without network: a stand-in for Python writes down what it
is asked to do.
"""

import os
import shutil
import subprocess

import pytest

from launch import configuration

LAUNCH = configuration.FOLDER.parent
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *version_info*) exit 0 ;;
    *sys.version*) echo 3.11.stand-in ;;
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip"*)
        echo "pip $*" >>asked.txt
        if [ -e broken ]; then echo "no such package"; exit 1; fi ;;
    "-m experiments"*) printf '<%s>' "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout in a folder whose name has spaces, with a Python that only pretends."""
    folder = tmp_path / "my own checkout"
    (folder / "launch").mkdir(parents=True)
    for name in ("environment.sh", "run.sh"):
        shutil.copy(LAUNCH / name, folder / "launch")
    (folder / "setup.py").write_text("first")
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return folder


def start(checkout, *arguments, python=None):
    return subprocess.run(
        ["bash", str(checkout / "launch" / "run.sh"), *arguments],
        env=os.environ | {"PYTHON": str(python or checkout.parent / "python")},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


def installations(checkout):
    return (checkout / "asked.txt").read_text().splitlines()


def test_installs_once_and_passes_arguments_on(checkout):
    first, second = (start(checkout, "--config.seed=1", "two words") for _ in range(2))
    for process in (first, second):
        assert process.returncode == 0, process.stderr
        given = "<--config=kjv_quick><--arms=pg,memory><--seeds=0><--config.seed=1><two words>"
        assert process.stdout == f"<-m><experiments.table_correlations>{given}"
    assert "virtual environment" in first.stderr and "installing" in first.stderr
    assert second.stderr == ""
    assert len(installations(checkout)) == 1
    assert "-e .[test" in installations(checkout)[0]


def test_help_installs_nothing(checkout):
    process = start(checkout, "--config.seed=1", "--help")
    assert process.returncode == 0 and process.stderr == ""
    first, *_, last = process.stdout.splitlines()
    assert first.startswith("The quick study") and last.startswith("Once it is installed")
    assert not (checkout / ".venv").exists() and not (checkout / "asked.txt").exists()


@pytest.mark.parametrize(("says", "extra"), [("12.9", "cuda12"), ("13.1", "cuda13")])
def test_installs_jax_for_the_driver_that_is_there(checkout, monkeypatch, says, extra):
    tool = checkout.parent / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '| Driver Version: 999.1   CUDA Version: {says} |'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(checkout.parent), prepend=os.pathsep)
    assert start(checkout).returncode == 0
    assert f"-e .[test,{extra}]" in installations(checkout)[0]


def test_installs_again_when_what_is_needed_changes(checkout):
    start(checkout)
    (checkout / "setup.py").write_text("second")
    assert "virtual environment" not in start(checkout).stderr
    assert len(installations(checkout)) == 2


def test_a_moved_checkout_gets_a_new_environment(checkout):
    start(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert "virtual environment" in start(moved).stderr
    assert len(installations(moved)) == 2


def test_an_environment_behind_a_link_is_not_cleared(checkout):
    start(checkout)
    other = checkout.parent / "other"
    shutil.copytree(checkout, other)
    shutil.rmtree(other / ".venv")
    (other / ".venv").symlink_to(checkout / ".venv")
    process = start(other)
    assert process.returncode == 2 and "error: .venv is a link" in process.stderr
    assert start(checkout).stderr == "" and len(installations(checkout)) == 1


def test_a_failed_installation_says_why_and_is_done_again(checkout):
    (checkout / "broken").touch()
    process = start(checkout)
    assert process.returncode == 2
    assert "no such package" in process.stderr and "error: pip could not install" in process.stderr
    (checkout / "broken").unlink()
    assert start(checkout).returncode == 0
    assert len(installations(checkout)) == 2


def test_no_python(checkout):
    process = start(checkout, python="/bin/false")
    assert process.returncode == 2
    assert process.stderr == "error: PYTHON=/bin/false is not a Python of version 3.11 or later\n"
