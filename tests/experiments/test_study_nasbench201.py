"""The study from end to end on generated tables, shrunk: what it writes and keeps, and how it ends
when it cannot start.
"""

import csv
import dataclasses
import gzip
import pathlib
import pickle

import numpy as np
import pytest

from experiments.tabular import program, seeds, settings
from experiments.tabular.study import Study
from nas.data import table as tables
from tests.forked import run_forked
from tests.helpers import assert_one_line, finish_program, start_program

MODULE = "experiments.study_nasbench201"
TINY = settings.Size(seeds=8, updates=4, data_sets=("cifar100",), piece=4, epoch=2)
STRATEGIES = (settings.RANDOM, settings.EVOLUTION, settings.FACTORISED, settings.PG, "memory")


@pytest.fixture
def shrunk(small_arms, monkeypatch):
    monkeypatch.setattr(settings, "STRATEGIES", STRATEGIES)
    monkeypatch.setattr(settings, "CONTROLLERS", (settings.PG, "memory"))
    monkeypatch.setattr(settings, "WITH_MEMORY", ("memory",))
    monkeypatch.setattr(settings, "UNIFORM_SAMPLE", 40)
    monkeypatch.setattr(settings, "OWN_SAMPLES", 12)
    monkeypatch.setattr(
        "experiments.tabular.drawn.LEARNED", (settings.FACTORISED, settings.PG, "memory")
    )
    monkeypatch.setitem(settings.SIZES, "quick", TINY)
    monkeypatch.setattr(settings, "SWEEP", dataclasses.replace(TINY, seeds=2))
    monkeypatch.setattr(settings, "STRENGTHS", (0.0, 1.0))


@pytest.mark.slow
def test_the_study_on_a_generated_table(shrunk, tmp_path, capsys, monkeypatch):
    table = tables.synthetic_table(0, 0.5)
    program.study(table, "quick", tmp_path)
    printed = capsys.readouterr().out
    for name in ("regret", "top", "comparisons", "conditioning", "embeddings"):
        assert len((tmp_path / f"cifar100_{name}.csv").read_text().splitlines()) > 2
    for name in (
        "regret",
        "top",
        "differences",
        "entropy",
        "gibbs",
        "conditioning_regret",
        "prediction",
    ):
        assert (tmp_path / f"cifar100_{name}.png").stat().st_size > 5000
    page = (tmp_path / "report" / "index.html").read_text()
    for question in ("Does L_Sup cost", "Does conditioning predict", "Does the embedding predict"):
        assert question in page and question in printed
    assert page.count("data:image/") == 7 and str(program.runs.command()) in printed
    # What is finished is kept: nothing runs again, and the numbers are the same.
    monkeypatch.setattr(seeds, "run", None)
    program.study(table, "quick", tmp_path)
    again = capsys.readouterr().out
    assert again == printed


def test_pieces_are_what_was_asked_for(shrunk, tmp_path, monkeypatch):
    strategies = (settings.RANDOM, settings.EVOLUTION, settings.PG)
    monkeypatch.setattr(settings, "STRATEGIES", strategies)
    monkeypatch.setattr(settings, "WITH_MEMORY", ())
    table, steps = tables.synthetic_table(0, 0.5), []
    study = Study(table, TINY, tmp_path)
    (data,) = study.run(steps.append)
    assert sum(steps) == study.epochs == 3 * 2 * 2  # strategies, pieces, epochs
    assert 0 < study.estimate() < 60  # all is compiled by now
    for name in strategies:
        arm = data.arms[name]
        assert arm.queries.shape == (8, 16) and arm.entropy.shape == (8, 4)
        assert len({row.tobytes() for row in arm.queries}) == 8
    np.testing.assert_allclose(
        data.arms[settings.RANDOM].numbers["entropy"], 6 * np.log(5), rtol=1e-5
    )
    np.testing.assert_allclose(
        data.arms[settings.RANDOM].numbers["total correlation"], 0, atol=1e-5
    )
    assert data.untrained["ridge"].shape == (8,) and set(data.references) == {
        "one-hot decisions",
        "random projection",
    }
    monkeypatch.setattr(settings, "STRATEGIES", (settings.EVOLUTION, settings.PG))
    whole = Study(table, dataclasses.replace(TINY, piece=8), tmp_path / "whole")
    (other,) = whole.run(lambda epochs: None)
    for name in settings.STRATEGIES:
        np.testing.assert_array_equal(other.arms[name].queries, data.arms[name].queries)


def test_pieces_of_another_table_or_damaged_ones_are_run_again(shrunk, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "STRATEGIES", (settings.EVOLUTION, settings.PG))

    def queries(table):
        (data,) = Study(table, TINY, tmp_path).run(lambda epochs: None)
        return data.arms[settings.EVOLUTION].queries, data.judge

    first, _ = queries(tables.synthetic_table(0, 0.5))
    piece = tmp_path / "cifar100-evolution-4.npz"
    piece.write_bytes(piece.read_bytes()[:100])
    np.testing.assert_array_equal(queries(tables.synthetic_table(0, 0.5))[0], first)
    before = piece.read_bytes()
    _, judge = queries(tables.synthetic_table(1, 0.5))
    assert piece.read_bytes() != before
    np.testing.assert_array_equal(
        judge.test, tables.synthetic_table(1, 0.5).scores["cifar100", "test"]
    )


def test_the_study_of_interaction(shrunk, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(settings, "STRATEGIES", STRATEGIES[:-1])
    program.sweep(tmp_path)
    assert "Lowest mean regret: " in capsys.readouterr().out
    for name in ("regret", "conditioning", "gibbs"):
        header, *rows = (tmp_path / f"synthetic_{name}.csv").read_text().splitlines()
        assert header == "strategy,interaction 0,interaction 1"
        assert len(rows) == (4 if name == "regret" else 2)


def test_the_settings_of_a_study_are_complete():
    assert set(settings.TUNED) == {settings.FACTORISED, *settings.CONTROLLERS}
    for size in (*settings.SIZES.values(), settings.SWEEP):
        assert settings.TUNING_SET not in size.data_sets
        assert max(size.seeds, size.piece) <= min(settings.TUNING_SEEDS)
        for name in settings.STRATEGIES:
            assert (
                settings.configure(name, size, tables.SPACE).search.controller_steps == size.epoch
                and size.updates % size.epoch == 0
            )


# The program.


def run(environment, *arguments):
    return finish_program(start_program(environment, MODULE, *arguments))


def test_help_is_quick_and_lists_the_flags(user_environment):
    shown = run(user_environment | {"PYTHONPROFILEIMPORTTIME": "1"}, "--help")
    assert shown.returncode == 0 and " jax\n" not in shown.stderr
    for flag in ("--table=", "--config=quick", "--tune=", "--timing=", "--workdir="):
        assert flag in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--table: must name a CSV file"]),
        (["--table=absent.csv"], ["absent.csv: no such file; a table is a CSV file"]),
        (["--table=synthetic:2"], ["--table: synthetic:STRENGTH needs a number in 0..1, got '2'"]),
        (["--table=synthetic", "--config=huge"], ["--config=huge", "quick|full"]),
    ],
)
def test_what_the_user_can_mend_is_one_line(user_environment, tmp_path, arguments, parts):
    assert_one_line(
        run_forked(user_environment, MODULE, f"--workdir={tmp_path}", *arguments), *parts
    )


def test_cells_are_refused(user_environment, cells, tmp_path):
    refused = run_forked(user_environment, MODULE, f"--table={cells}", f"--workdir={tmp_path}")
    assert_one_line(refused, f"--table: {cells} holds cells", "accuracies of NAS-Bench-201")


def test_a_pickle_is_refused(user_environment, tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(pickle.dumps({"accuracy": [1.0]})))
    refused = run_forked(user_environment, MODULE, f"--table={path}", f"--workdir={tmp_path}")
    assert_one_line(refused, str(path), "pickles are never read")


@pytest.mark.slow
def test_the_quick_study_on_the_benchmark(user_environment, tmp_path):
    table = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "nasbench201.csv.gz"
    if not table.exists():
        pytest.skip(f"needs the table of NAS-Bench-201 at {table}")
    found = run(user_environment, f"--table={table}", f"--workdir={tmp_path}")
    assert found.returncode == 0, found.stderr
    with (tmp_path / "cifar100_regret.csv").open() as file:
        final = {
            row["strategy"]: float(row["1000 queries"].split()[0]) for row in csv.DictReader(file)
        }
    chance = final.pop("random search")
    assert (
        len(final) == len(settings.STRATEGIES) - 1 and max(final.values()) < 0.75 * chance
    )  # what learns beats chance
