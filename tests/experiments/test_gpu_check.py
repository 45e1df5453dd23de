"""The check of a GPU: how stages are run, with stand-ins for them, what is said of results, and the
whole at toy size.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from experiments.gpu_check import page, plan
from launch import configuration
from tests.forked import run_forked
from tests.helpers import assert_one_line, start_program

PROGRAMS = {
    "finds": "import json, pathlib, sys; print('at work'); "
    "pathlib.Path(sys.argv[1]).write_text(json.dumps({'step_ms': 2.5}))",
    "fails": "import sys; print('no such thing'); sys.exit(3)",
    "hangs": "import json, pathlib, subprocess, sys, time; "
    "pathlib.Path(sys.argv[1]).write_text(json.dumps({'half': 1})); "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print(child.pid, flush=True); time.sleep(600)",
    "flags": "import json, os, pathlib, sys; "
    "pathlib.Path(sys.argv[1]).write_text(json.dumps({'flags': os.environ['XLA_FLAGS']}))",
}


def command(stage, file):
    return [sys.executable, "-c", PROGRAMS[stage.call[0]], str(file)]


def stages(*calls, cap=60, xla_flags=""):
    return [plan.Stage(f"{n}-{call}", (call,), cap, xla_flags) for n, call in enumerate(calls)]


@pytest.fixture
def run(tmp_path):
    def run(chosen, seconds=300.0, environment=os.environ):
        log = tmp_path / "log.txt"
        return plan.run(chosen, command, log, seconds=seconds, environment=environment)

    return run


def test_a_failing_stage_ends_no_other(run, tmp_path):
    first, second, third = run(stages("finds", "fails", "finds"))
    assert (first.status, first.code, first.found) == (plan.PASSED, 0, {"step_ms": 2.5})
    assert (second.status, second.code, second.found) == (plan.FAILED, 3, {})
    assert list(second.said) == ["no such thing"]
    assert third.status == plan.PASSED and third.name == "2-finds"
    printed = (tmp_path / "log.txt").read_text()
    assert printed == "== 0-finds\nat work\n== 1-fails\nno such thing\n== 2-finds\nat work\n"


def test_a_stage_that_hangs_is_cut_off_and_ends_no_other(run):
    hung, after = run(stages("hangs", cap=1) + stages("finds"))
    assert (hung.status, hung.code, after.status) == (plan.CUT_OFF, None, plan.PASSED)


@pytest.mark.slow  # until the cap, within which the stage must have told something
def test_a_stage_at_its_cap_is_killed_with_its_children_and_keeps_what_it_told(run):
    hung, after = run(stages("hangs", cap=60) + stages("finds"))
    assert (hung.status, hung.code, hung.found) == (plan.CUT_OFF, None, {"half": 1})
    assert after.status == plan.PASSED
    with pytest.raises(ProcessLookupError):
        _signal_unless_dead(int(hung.said[0]))


def _signal_unless_dead(process):
    """Raises ProcessLookupError where a process has ended, even if nobody has asked for its code
    yet.
    """
    os.kill(process, 0)
    with open(f"/proc/{process}/stat") as file:
        if file.read().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError


def test_no_stage_is_started_without_time_for_it(run):
    results = list(run(stages("finds", "finds"), seconds=5))
    assert [result.status for result in results] == [plan.NOT_RUN] * 2
    assert [result.name for result in results] == ["0-finds", "1-finds"]


def test_results_come_one_by_one(run, tmp_path):
    running = run(stages("finds", "fails"))
    assert next(running).status == plan.PASSED
    assert "fails" not in (tmp_path / "log.txt").read_text()
    assert next(running).status == plan.FAILED


@pytest.mark.parametrize(("given", "wanted"), [({}, "--of=stage"), ({"XLA_FLAGS": "-a"}, None)])
def test_flags_of_a_stage_are_added_to_those_of_the_environment(run, given, wanted):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    (result,) = run(stages("flags", xla_flags="--of=stage"), environment=environment | given)
    assert result.found == {"flags": wanted or "-a --of=stage"}


def test_every_stage_has_a_name_of_its_own_and_all_caps_are_kept_by_the_time_of_a_machine():
    names = [stage.name for stage in plan.STAGES]
    assert len(set(names)) == len(names) and names[0] == "environment"
    assert all(plan._LEAST < stage.cap <= 240 for stage in plan.STAGES)


def result(name, found=None, status=plan.PASSED, said=()):
    return {"name": name, "status": status, "seconds": 1.0, "found": found or {}, "said": said}


RESULTS = {
    "command": "bash launch/gpu_check.sh",
    "device": "some card",
    "stages": [
        result("environment", {"teraflops": {"tf32": 350.0}, "jax": "0.11.2"}),
        result("step-tf32", {"step_ms": 14.2, "bound_ms": 1.4, "loop_ms": 9.0}),
        result("step-float32", {"matmul": "float32"}, plan.CUT_OFF, ["compiling <it>"]),
        result("rewards-tf32", status=plan.NOT_RUN),
        result(
            "rewards-bfloat16",
            {
                "rewards": {
                    "10": {
                        "reward_ms": 15.0,
                        "compile_seconds": 3.0,
                        "planned_mebibytes": 9.0,
                        "gigaflops": 1.0,
                    }
                }
            },
        ),
        result(
            "equality",
            {
                "compared": {
                    "float32 loss": {"difference": 3e-6, "allowed": 3e-5},
                    "bfloat16 loss": {"difference": 6e-3, "allowed": 3e-3},
                }
            },
            plan.FAILED,
        ),
        result("search", {"epochs": 150, "hours": 1.5, "step_ms": {"shared": 16.0}}),
        result("resume", {"ends": {"whole": {"loss": 1.0}, "killed": {"loss": 1.0}}}),
    ],
}


def test_what_a_stage_says():
    said = {of["name"]: page.headline(of) for of in RESULTS["stages"]}
    assert said["step-tf32"] == "14.2 ms a step, arithmetic 1.4"
    assert said["rewards-bfloat16"] == "ms an architecture: 1.5 of 10"
    assert said["equality"] == "differs by 2 times what is allowed, at most"
    assert said["search"] == "150 epochs of ptb_paper: 1.5 h"
    assert said["resume"] == "the same numbers"
    assert said["step-float32"] == said["rewards-tf32"] == ""  # they told nothing of it
    assert "some card" in page.stage_table(RESULTS).text()


def test_the_page_shows_whatever_was_found(tmp_path):
    for count in range(len(RESULTS["stages"]) + 1):
        stages = RESULTS["stages"][:count]
        text = page.write_page(tmp_path / "page.html", RESULTS | {"stages": stages}).read_text()
    assert "compiling &lt;it&gt;" in text and "some card" in text and "0.11.2" in text
    assert text.count("<img") == 1 and "Bars of the time of a shared step" in text
    for title in ("Rewards", "A search", "Relative to the processor", "The shared step of ptb"):
        assert title in text


def test_without_a_gpu_it_ends_in_one_line(tmp_path, user_environment):
    process = run_forked(user_environment, "experiments.check_gpu", f"--out={tmp_path}")
    assert_one_line(process, "no such device here, only cpu", "--small")
    (stage,) = json.loads((tmp_path / "gpu_check.json").read_text())["stages"]
    assert (stage["name"], stage["status"]) == ("environment", plan.FAILED)


STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *version_info*) echo 3.12 ;;
    "-m pip install"*) while [ "$1" != --target ]; do shift; done; mkdir "$2/tests" "$2/found" ;;
    "- "*) cat >/dev/null ;;
    "-m experiments"*)
        printf '<%s>' "$@"
        IFS=:; for folder in $PYTHONPATH; do ls "$folder"; done ;;
esac
"""


@pytest.fixture
def prepared(tmp_path):
    """Starts the check in a checkout with what `--prepare` has left, with a Python that only
    pretends to be 3.12.
    """
    folder, python = tmp_path / "my own checkout", tmp_path / "python"
    for name in ("launch", ".gpu_check/wheels"):
        (folder / name).mkdir(parents=True)
    shutil.copy(configuration.FOLDER.parent / "gpu_check.sh", folder / "launch")
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def start(version, *arguments):
        (folder / ".gpu_check" / "python").write_text(f"{version}\n")
        return subprocess.run(
            ["bash", str(folder / "launch" / "gpu_check.sh"), *arguments],
            env=os.environ | {"PYTHON": str(python), "PYTHONPATH": ""},
            cwd="/",
            capture_output=True,
            text=True,
        )

    return folder, start


def test_what_was_prepared_is_used_and_hides_no_package_of_ours(prepared):
    folder, start = prepared
    process = start("3.12", "--small", "--out=two words")
    assert process.returncode == 0, process.stderr
    given = f"<--data_dir={folder}/.gpu_check/data><--small><--out=two words>"
    assert process.stdout == f"<-m><experiments.check_gpu>{given}launch\nfound\n"


def test_what_was_prepared_for_another_python_ends_in_one_line(prepared):
    _, start = prepared
    assert_one_line(start("3.13"), "3.13", "--prepare")


def test_an_unknown_stage_ends_in_one_line(tmp_path, user_environment):
    arguments = f"--out={tmp_path}", "--stages=step-int8"
    process = run_forked(user_environment, "experiments.check_gpu", *arguments)
    assert_one_line(process, "--stages", "'step-int8'", "step-tf32")


@pytest.mark.slow
def test_all_stages_at_toy_size(tmp_path, user_environment):
    arguments = "--small", f"--out={tmp_path}", "--seconds=3000"
    process = start_program(user_environment, "experiments.check_gpu", *arguments)
    printed, _ = process.communicate()  # each stage has its time limit
    assert process.returncode == 0, printed + (tmp_path / "log.txt").read_text()
    results = json.loads((tmp_path / "gpu_check.json").read_text())
    assert [of["name"] for of in results["stages"]] == [of.name for of in plan.STAGES]
    assert {of["status"] for of in results["stages"]} == {plan.PASSED}
    assert all(page.headline(of) for of in results["stages"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "gpu_check.json",
        "gpu_check.html",
        "log.txt",
        "shared_step.xplane.pb.gz",
    }
