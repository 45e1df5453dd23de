"""A task outside the package, in one file, through the ordinary programs; and what holds the house
open for it.
"""

import csv
import json
import pathlib
import re
import signal

import numpy as np
import pytest

from nas import logs
from tests.forked import run_forked
from tests.helpers import SIGNALLED, assert_one_line, scored, signalled

ROOT = pathlib.Path(__file__).resolve().parents[1]
OWN = ROOT / "tests" / "own_task.py"
# What knows no task: everything in nas/ but the tasks' own files and their registry.
GENERAL = [
    path
    for path in sorted((ROOT / "nas").rglob("*.py"))
    if path.relative_to(ROOT / "nas").parts[0] not in ("data", "supernets")
    and path.name not in ("recurrent.py", "nasbench201.py", "tasks.py", "__init__.py")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the file of the task is; a program that reads it can send itself a signal."""
    folder = tmp_path_factory.mktemp("own")
    (folder / OWN.name).write_text(OWN.read_text() + SIGNALLED)
    return folder


@pytest.fixture(scope="module")
def program(folder, quick_environment):
    """Runs a program elsewhere than where the task is."""

    def run(name, *arguments, **environment):
        return run_forked(quick_environment | environment, f"launch.{name}", *arguments)

    return run


def done(process):
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def searched(folder, program):
    workdir = folder / "run"
    arguments = f"--config={folder / OWN.name}", "--config.strategy.supervised_weight=10"
    said = done(program("search", *arguments, f"--workdir={workdir}"))
    assert re.match(r"best validated: error 0\.\d{3}, decisions ([012] ?){4}\n", said)
    return workdir, arguments


def test_a_search_of_it_is_logged_and_says_what_its_losses_are(searched):
    workdir, _ = searched
    first = json.loads((workdir / logs.FILE).read_text().partition("\n")[0])
    assert first == {"loss": "squared error, a point", "reward": "1 - squared error"}
    losses = logs.curves(logs.read(workdir), "shared")["loss"][1]
    assert len(losses) == 3 * 50 and losses[-50:].mean() < 0.95 * losses[:50].mean()
    decisions = scored(workdir)["decisions"]
    assert decisions.shape == (2 * 25 * 4, 4) and decisions.max() == 2
    assert json.loads((workdir / "run.json").read_text())["task_folder"] == str(workdir.parent)


def test_it_continues_to_the_same_numbers(searched, program, folder):
    workdir, arguments = searched
    again = folder / "again"
    arguments = *arguments, f"--workdir={again}"
    stopped = program("search", *arguments, **signalled(signal.SIGINT, 90))
    assert stopped.returncode == 130, stopped.stderr
    assert len(logs.read(again)) < len(logs.read(workdir))
    done(program("search", *arguments))
    ours, theirs = (
        [{name: of for name, of in line.items() if name != "seconds"} for line in logs.read(path)]
        for path in (again, workdir)
    )
    assert ours == theirs


def test_its_evaluation_and_report(searched, program):
    workdir, _ = searched
    said = done(program("evaluate", f"--workdir={workdir}"))
    assert "common activations" in said and "Best cell's error: " in said and "constant" in said
    assert "perplex" not in said and "paper  " not in said
    page = (workdir / "report" / "index.html").read_text()
    assert "The paper did not search this space." in page and "perplex" not in page
    rows = list(csv.reader((workdir / "report" / "best.csv").open(newline="")))
    assert ["model", "error"] in rows and any(row[0] == "constant" for row in rows if row)


def test_its_derivation(searched, program):
    workdir, _ = searched
    said = done(program("derive", f"--workdir={workdir}", "--architectures=30"))
    assert re.search(r"best: error 0\.\d{3} on the half of the validation split", said)
    found = json.loads((workdir / "derived.json").read_text())
    assert np.isfinite([found["loss"], found["held_out_loss"]]).all()


def test_one_of_it_from_scratch(folder, program):
    arguments = f"--config={folder / OWN.name}", "--decisions=0 0 1 2"
    said = done(program("train_from_scratch", *arguments, f"--workdir={folder / 'alone'}"))
    assert re.search(r"validation error 0\.\d{3} \(best epoch", said)
    # A matrix for each layer and activation, in and out: 2 x 16 + 4 x 3 x 16 x 16 + 16.
    assert "0 0 1 2: 3,120 parameters, width 16" in said


def test_a_task_that_is_not_there(folder, program):
    arguments = f"--config={folder / OWN.name}", "--config.task=no_such:TASK"
    process = program("search", *arguments, f"--workdir={folder / 'none'}")
    assert_one_line(process, "config field task: no_such:TASK", "PYTHONPATH")
    assert not (folder / "none").exists()


def test_it_is_one_file_below_120_lines_but_for_its_configuration():
    text, end = OWN.read_text(), "\n\n\ndef get_config"
    assert end in text and text[: text.index(end)].count("\n") < 120


@pytest.mark.parametrize("path", GENERAL, ids=lambda path: str(path.relative_to(ROOT)))
def test_general_rooms_do_not_speak_of_a_task(path):
    assert not re.findall(r"perplexit|vocabular|corpus|corpora", path.read_text())
