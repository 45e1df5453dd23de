"""The programs end to end on a search of seconds: the table and report they write, and one line for
what the user can mend.
"""

import csv
import dataclasses
import json
import math
import os
import re
import socket

import pytest

from nas.config import Config
from tests.forked import run_forked
from tests.helpers import assert_one_line, files, finish_program, start_program, tiny, write_config


def run(environment, module, *arguments):
    return finish_program(start_program(environment, module, *arguments))


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    write_config(
        path, tiny(search={"epochs": 2, "warmup_epochs": 0}, strategy={"supervised_weight": 30.0})
    )
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of the prepared corpus."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def searched(config_file, quick_environment, data, tmp_path_factory):
    """The directory of one search."""
    workdir = tmp_path_factory.mktemp("searched")
    arguments = [f"--config={config_file}", f"--workdir={workdir}", f"--data_dir={data}"]
    process = run_forked(quick_environment, "launch.search", *arguments)
    assert process.returncode == 0, process.stderr
    return workdir


@pytest.fixture(scope="module")
def study(config_file, user_environment, data, tmp_path_factory):
    """Output and folder of the study with two seeds."""
    folder = tmp_path_factory.mktemp("study")
    arguments = [
        f"--config={config_file}",
        f"--workdir={folder}",
        f"--data_dir={data}",
        "--arms=pg,memory,uniform",
        "--seeds=0,1",
        "--jobs=1",
    ]
    process = run(user_environment, "experiments.table_correlations", *arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout, folder, arguments


@pytest.mark.slow
def test_the_study_prints_what_it_found_and_writes_its_tables(study):
    printed, folder, _ = study
    *lines, last = printed.splitlines()
    assert last == f"report: {folder / 'report' / 'index.html'}"
    assert len(lines) < 30 and max(map(len, lines)) <= 100
    assert re.fullmatch(
        r"Searched, .* in all: PG only; PG \+ memory; uniform policy "
        r"\(2 epochs, kjv, seeds 0, 1\)\.",
        lines[0],
    )
    text = " ".join(printed.split())
    for shown in ("untrained", "-0.404", "+0.163", "2 seeds are", "unigram", "than the bigram"):
        assert shown in text
    page = (folder / "report" / "index.html").read_text()
    assert page.count("<img") >= 23 and "--seeds=0,1" in page and page.count("<article>") == 5
    summary = list(csv.DictReader((folder / "report" / "summary.csv").open()))
    assert [row["paper"] for row in summary] == ["-0.404", "+0.163", "-", "-", "-", "-"]
    assert all(row["PG + memory"] in printed for row in summary)
    table = list(csv.DictReader((folder / "report" / "correlations_own.csv").open()))
    assert [row["arm"] for row in table] == [
        "untrained",
        "PG only",
        "PG + memory",
        "uniform policy",
        "paper (PG + memory)",
    ]
    assert {"edit distance", "edit distance, free, labels ignored"} <= set(table[0])
    for row in table[:3]:
        assert "not measured" not in row.values()
    performance = list(csv.DictReader((folder / "report" / "performance_uniform.csv").open()))
    own, common = (
        [row for row in performance if row["weights"] == weights] for weights in ("own", "common")
    )
    # Under common weights all arms see the same performances, and the uniform policy's own weights
    # are the common ones.
    assert len({row["diverged cells"] for row in common}) == 1
    assert own[-1] | {"weights": "common"} == common[-1]
    assert own[1]["total overlap"] != common[1]["total overlap"] == common[2]["total overlap"]


@pytest.mark.slow
def test_finished_searches_are_kept(study, user_environment):
    printed, folder, arguments = study
    before = files(folder / "memory-seed1" / "checkpoints")
    process = run(user_environment, "experiments.table_correlations", *arguments)
    assert (process.returncode, process.stdout) == (0, printed)
    assert "searching" not in process.stderr
    assert files(folder / "memory-seed1" / "checkpoints") == before


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_side_by_side_comes_to_the_same(study, user_environment, tmp_path):
    """Of products this small, on one core or two, not a bit differs."""
    printed, folder, arguments = study
    here = [argument.replace(str(folder), str(tmp_path)) for argument in arguments[:-1]]
    process = run(user_environment, "experiments.table_correlations", *here, "--jobs=2")
    assert process.returncode == 0, process.stderr
    assert "of 12 done" in process.stderr and "searching" not in process.stderr

    def numbers(text):
        return [
            line for line in text.splitlines() if not line.startswith(("Searched, ", "report: "))
        ]

    assert numbers(process.stdout) == numbers(printed)


@pytest.mark.slow
def test_evaluate_needs_only_the_run_directory(searched, quick_environment):
    process = run_forked(quick_environment, "launch.evaluate", f"--workdir={searched}", "--verbose")
    assert process.returncode == 0, process.stderr
    written = list((searched / "report").glob("*.csv"))
    assert "PG + 30 x memory" in process.stdout and (searched / "report" / "index.html").exists()
    tables, answer = process.stdout.split("Searched, ")  # all tables are printed before the answer
    assert tables.count("Made by: ") == len(written) and "Made by: " not in answer
    assert "random projection" in tables and "edit distance, first approximation" in tables


def test_deriving_a_cell(searched, quick_environment):
    workdir, own = searched, "0 0 3 0 2"
    process = run_forked(
        quick_environment,
        "launch.derive",
        f"--workdir={workdir}",
        "--architectures=40",
        f"--decisions={own}",
    )
    assert process.returncode == 0, process.stderr
    with (workdir / "derived.csv").open() as file:
        header, *rows = csv.reader(file)
    derived = json.loads((workdir / "derived.json").read_text())
    assert rows[0][header.index("decisions")] == derived["decisions"]
    assert [own] == [row[1] for row in rows if row[1] == own] and own in process.stdout
    held_out = math.exp(derived["held_out_loss"])
    assert rows[0][-1] == f"{held_out:.1f}" and f"best: perplexity {held_out:.1f}" in process.stdout
    process = run_forked(
        quick_environment, "launch.derive", f"--workdir={workdir}", "--decisions=0 0 3 7 2"
    )
    assert_one_line(process, "--decisions: ", "position 3")


@pytest.mark.slow
def test_the_isomorph_test(searched, quick_environment):
    process = run_forked(
        quick_environment,
        "experiments.isomorphs",
        f"--workdir={searched}",
        "--cells=20",
        "--copies=2",
    )
    assert process.returncode == 0, process.stderr
    rows = (searched / "isomorphs.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows][
        0
    ] == "uniform cells" and "own cells" in process.stdout
    assert all(re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", row) for row in rows)


def test_a_finished_search_says_so_and_the_configuration_is_saved(
    searched, quick_environment, config_file, data
):
    saved = json.loads((searched / "config.json").read_text())
    assert set(saved) == {field.name for field in dataclasses.fields(Config)}
    arguments = [f"--config={config_file}", f"--workdir={searched}", f"--data_dir={data}"]
    process = run_forked(
        quick_environment, "launch.search", *arguments, "--config.strategy.supervised_weight=30.0"
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("best validated: perplexity ")


def test_another_configuration_in_the_directory(searched, quick_environment, config_file, data):
    before = files(searched)
    arguments = [
        f"--config={config_file}",
        f"--workdir={searched}",
        f"--data_dir={data}",
        "--config.seed=7",
    ]
    assert_one_line(
        run_forked(quick_environment, "launch.search", *arguments), str(searched), "seed: 0 -> 7"
    )
    assert files(searched) == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--arms=pg,telepathy"], ["--arms", "'telepathy'", "pg, memory"]),
        (["--seeds=0,x"], ["--seeds", "0,x"]),
        (["--platform=gpu"], ["--platform=gpu", "no such device"]),
    ],
)
def test_what_a_study_is_asked_for(arguments, parts, quick_environment, config_file, tmp_path):
    process = run_forked(
        quick_environment,
        "experiments.table_correlations",
        f"--config={config_file}",
        f"--workdir={tmp_path / 'run'}",
        *arguments,
    )
    assert_one_line(process, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["nothing", "no_run"])
def test_evaluating_what_is_no_run(name, quick_environment, tmp_path):
    (tmp_path / "no_run").mkdir()
    assert_one_line(
        run_forked(quick_environment, "launch.evaluate", f"--workdir={tmp_path / name}"),
        "--workdir",
        "not a run directory",
    )


def test_evaluating_a_run_without_a_checkpoint(quick_environment, searched, tmp_path):
    for name in ("config.json", "run.json"):
        (tmp_path / name).write_text((searched / name).read_text())
    assert_one_line(
        run_forked(quick_environment, "launch.evaluate", f"--workdir={tmp_path}"),
        "--workdir",
        "no checkpoint",
    )


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["ptb.train.txt", "missing"]),
        (b"", ["ptb.train.txt", "empty"]),
        (b"a \xff b\n", ["ptb.train.txt", "UTF-8"]),
        (b"cut short\n", ["ptb.train.txt", "checksum"]),
    ],
)
def test_a_corpus_folder_that_cannot_be_used(
    content, parts, quick_environment, config_file, tmp_path
):
    for name in ("ptb.valid.txt", "ptb.test.txt"):
        (tmp_path / name).write_bytes(b"words of a corpus\n")
    if content is not None:
        (tmp_path / "ptb.train.txt").write_bytes(content)
    process = run_forked(
        quick_environment,
        "launch.search",
        f"--config={config_file}",
        "--config.data.corpus=ptb",
        f"--raw_dir={tmp_path}",
        f"--data_dir={tmp_path / 'data'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_one_line(process, *parts)
    assert not (tmp_path / "run").exists()


def test_ptb_without_network(quick_environment, config_file, tmp_path):
    """A proxy that does not answer stands for a machine without network."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = run_forked(
            quick_environment | dict.fromkeys(("http_proxy", "https_proxy"), proxy),
            "launch.search",
            f"--config={config_file}",
            "--config.data.corpus=ptb",
            f"--data_dir={tmp_path / 'data'}",
            f"--workdir={tmp_path / 'run'}",
        )
    assert_one_line(process, "ptb.train.txt", "ptb.valid.txt", "ptb.test.txt", "--raw_dir")


@pytest.mark.slow
def test_training_from_scratch(quick_environment, config_file, data, tmp_path):
    short = ["--config.training.epochs=1", "--config.data.batch=64", "--config.data.steps=100"]
    arguments = [f"--config={config_file}", f"--data_dir={data}", f"--workdir={tmp_path}", *short]
    process = run_forked(
        quick_environment, "launch.train_from_scratch", *arguments, "--decisions=0 0 3 0 2"
    )
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert f"{result['parameters']:,} parameters" in process.stdout
    assert f"test perplexity {math.exp(result['test_loss']):.1f}" in process.stdout
    other = run_forked(
        quick_environment, "launch.train_from_scratch", *arguments, "--baseline=lstm"
    )
    assert_one_line(other, str(tmp_path), "training.architecture: '0 0 3 0 2' -> 'lstm'")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--decisions", "--baseline=lstm"]),
        (["--decisions=0 0 1 0 2", "--baseline=lstm"], ["--decisions", "one of the two"]),
        (["--decisions=0 0 1 2 2"], ["--decisions: ", "position 3"]),
        (["--baseline=gru"], ["--baseline", "lstm", "highway"]),
        (["--baseline=lstm", "--config.training.clip=0"], ["training.clip", "positive"]),
    ],
)
def test_what_training_is_asked_for(arguments, parts, quick_environment, config_file, tmp_path):
    process = run_forked(
        quick_environment,
        "launch.train_from_scratch",
        f"--config={config_file}",
        f"--workdir={tmp_path / 'run'}",
        *arguments,
    )
    assert_one_line(process, *parts)
    assert not (tmp_path / "run").exists()
