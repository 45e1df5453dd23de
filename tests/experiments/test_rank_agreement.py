"""Rank agreement: the strata, correlations of known ranks, and the program."""

import csv
import functools
import json

import numpy as np
import pytest
import scipy.stats

from experiments.search import ranks
from nas.arrays import load_arrays
from tests.forked import run_forked
from tests.helpers import (
    assert_one_line,
    files,
    finish_program,
    recurrent_task,
    start_program,
    tiny,
    write_config,
)


def test_strata_are_parts_of_one_pool():
    scores = np.array([[5.0, 1, 4, 2, np.nan, 3], [5.0, 2, 4, 1, 0, 3]])
    found = ranks.strata(scores, 2)
    np.testing.assert_array_equal(found["drawn uniformly"], [0, 1])
    # Mean ranks 5.5, 1.5+, ...: cells 1 and 3 share the lowest; the one that is not a number ranks
    # last in its search.
    np.testing.assert_array_equal(found["best tenth under shared weights"], [1, 3])


def test_agreement_is_that_of_single_measurements():
    first, second = np.array([[1.0, 2, 3, 4], [1, 2, 4, 3]]), np.array([[1.0, 2, 3, 4]])
    value = ranks.agreement(first, second, scipy.stats.kendalltau)
    assert value == pytest.approx((1 + 4 / 6) / 2)  # one of six pairs in the other order


def test_the_table(monkeypatch):
    monkeypatch.setattr(ranks, "_interval", functools.partial(ranks._interval, resamples=100))
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    shared, alone = truth + rng.normal(size=(2, 40)), truth + 0.1 * rng.normal(size=(2, 40))
    shared[0, 3] = np.nan
    table = ranks.table({"all": (shared, alone)}, recurrent_task(3).metric, command="")
    against, trainings, searches = (row.cells for row in table.rows)
    assert against[2:4] == [40.0, 1.0] and [row.reference for row in table.rows] == [
        False,
        True,
        True,
    ]
    tau = [float(cells[4].split()[0]) for cells in (against, trainings, searches)]
    assert tau[1] > 0.8 > tau[0] > tau[2]  # of noise in none, one and both
    low, high = map(float, against[4].partition("[")[2].rstrip("]").split(","))
    assert low < tau[0] < high and high - low < 0.6
    assert against[4] in ranks.answer({"all": (shared, alone)})


@pytest.mark.slow
def test_the_program(user_environment, tmp_path):
    config = tiny(
        data={"batch": 64, "steps": 100},
        evaluation={"examples": 400},
        search={"epochs": 1, "warmup_epochs": 0},
        training={"epochs": 1},
    )
    write_config(tmp_path / "tiny.py", config)
    root = tmp_path / "run"
    arguments = [
        f"--config={tmp_path / 'tiny.py'}",
        f"--workdir={root}",
        f"--data_dir={tmp_path / 'data'}",
        "--cells=3",
    ]
    process = finish_program(
        start_program(user_environment, "experiments.rank_agreement", *arguments)
    )
    assert process.returncode == 0, process.stderr
    folder = root / "rank_agreement"
    rows = list(csv.DictReader((folder / "rank_agreement.csv").open()))
    assert [row["number"] for row in rows] == ["3"] * 6
    assert (folder / "rank_agreement.png").is_file() and (
        folder / "report" / "index.html"
    ).is_file()
    scores = load_arrays(folder / "uniform-3-cells.npz")["scores"]
    assert scores.shape == (2, 30) and np.isfinite(scores).all() and not np.array_equal(*scores)
    trained = [
        json.loads((path / "config.json").read_text()) for path in (root / "from_scratch").iterdir()
    ]
    assert {config["seed"] for config in trained} == {0, 1} and 6 <= len(trained) <= 12

    before, printed = files(root), process.stdout
    process = finish_program(
        start_program(user_environment, "experiments.rank_agreement", *arguments)
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, printed, "")
    assert files(root) == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--strategy=telepathy"], ["--strategy", "'telepathy'"]),
        (["--seeds=0"], ["--seeds", "two different"]),
        (["--cells=2"], ["--cells"]),
    ],
)
def test_what_it_is_asked_for(arguments, parts, user_environment, tmp_path):
    process = run_forked(
        user_environment, "experiments.rank_agreement", f"--workdir={tmp_path / 'run'}", *arguments
    )
    assert_one_line(process, *parts)
    assert not (tmp_path / "run").exists()
