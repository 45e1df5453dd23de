"""The search study: tables say what was measured, scores cross as they should, and the program
keeps every piece.
"""

import csv
import dataclasses
import json
import math
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.arms import ARMS, STRATEGIES, training_steps
from experiments.search import pieces, tables, without_sharing
from experiments.search.pieces import Cells
from nas import config as configs
from nas import derivation, logs, runs, steps
from nas.arrays import load_arrays
from nas.data.table import SPACE
from nas.data.tokens import Tokens
from nas.spaces.recurrent import RecurrentSpace
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

TASK = recurrent_task(3)
METRIC = TASK.metric


def test_evolution_is_a_strategy_and_no_arm():
    base = tiny()
    config = STRATEGIES["evolution"].configure(base, 3)
    assert set(STRATEGIES) - set(ARMS) == {"evolution", "weights"} and config.seed == 3
    told = configs.difference(base, config)
    assert {line.partition(":")[0].partition(".")[0] for line in told} == {"seed", "strategy"}
    sizes = {"population": 100, "tournament": 25, "archive": 0, "candidates": 8}
    assert config.strategy == {"name": "evolution"} | sizes
    assert hasattr(steps.components(config).strategy.init(None), "population")


def test_the_arithmetic_of_rewards_goes_into_weights():
    base = tiny()
    plan = dataclasses.replace(
        base.search,
        epochs=10,
        warmup_epochs=4,
        shared_steps=100,
        controller_steps=50,
        architectures=8,
        chunk=10,
    )
    found = STRATEGIES["weights"].configure(dataclasses.replace(base, search=plan), 2)
    # Six phases of 50 updates with 8 rewards are 2,400 rewards, 800 steps: 80 in each of ten
    # epochs, and no phase is left.
    assert found.search == dataclasses.replace(plan, shared_steps=180, warmup_epochs=10)
    assert found.policy["name"] == "uniform" and found.seed == 2


def line(phase, seconds, step=0, **values):
    return {"phase": phase, "epoch": 0, "step": step, "seconds": seconds} | values


def test_the_lowest_perplexity_so_far():
    lines = [line("shared", 2.0), line("shared", 1.0), line("valid", 0.5, loss_best=math.log(9))]
    lines += [line("shared", 1.0), line("controller", 3.0), line("valid", 0.5, 1, loss_best="inf")]
    lines += [line("shared", 1.0), line("valid", 0.25, 3, loss_best=math.log(7))]
    np.testing.assert_allclose(
        pieces.best_so_far(lines, METRIC, 4),
        [[2, 4, np.nan, 5], [3.5, 8.0, np.nan, 9.25], [9.0, 9.0, np.nan, 7.0]],
    )


def test_the_random_cell_is_the_seeds_alone():
    space = RecurrentSpace(num_nodes=12)
    drawn = [pieces.random_cell(space, seed) for seed in range(40)]
    space.validate(np.stack(drawn))
    np.testing.assert_array_equal(drawn[3], pieces.random_cell(space, 3))
    assert len(np.unique(drawn, axis=0)) == 40
    # Each choice of the last parent is as likely: eleven of them, 40 draws.
    assert len({cell[-2] for cell in drawn}) >= 7


@pytest.fixture
def searched(tmp_path):
    """Two searches whose scores are known: the number of the weights, times the first decision of
    the cell.
    """
    found = {}
    for weights, name in enumerate("ab", 1):
        (tmp_path / name).mkdir()

        def evaluate(state, decisions, windows):
            return jnp.float32(state) * decisions[:, 0].astype(jnp.float32)

        reward = types.SimpleNamespace(evaluate=evaluate)
        state = types.SimpleNamespace(reward=float(weights))
        run = runs.Run(tmp_path / name, tiny(seed=5), {}, SPACE, None, reward, state, {})
        windows = Tokens(np.zeros((1, 2, 3), np.int32), np.zeros((1, 2), bool))
        object.__setattr__(run, "valid_batches", lambda windows=windows: windows)
        found[name] = run
    return found


def cells(first, own):
    """Cells of these first decisions, of which only that is of interest."""
    decisions = np.zeros((len(first), SPACE.num_decisions), np.int32)
    decisions[:, 0] = first
    return Cells(decisions, own * np.array(first, np.float32), np.float64(0))


def test_rows_propose_and_columns_score(searched, monkeypatch):
    derived = {"a": cells([1, 2, 3], own=1), "b": cells([3, 3], own=2)}
    expected = [[2, 4], [3, 6]]  # means 2 and 3, times 1 and 2
    np.testing.assert_allclose(pieces.cross(searched, derived), expected)
    monkeypatch.setattr(runs.Run, "losses", None)  # what is kept is not scored again
    np.testing.assert_allclose(pieces.cross(searched, derived), expected)


def test_scores_of_other_cells_are_not_taken_for_these(searched):
    derived = {"a": cells([1, 2, 3], own=1), "b": cells([4, 4], own=2)}
    pieces.cross(searched, derived)
    derived["b"] = cells([3, 3], own=2)
    np.testing.assert_allclose(pieces.cross(searched, derived), [[2, 4], [3, 6]])


def test_crossed_cells_are_not_chosen_by_rank(searched):
    """Of cells in the order of their perplexity, the twenty are no twenty in a row."""
    derived = {"a": cells(np.arange(100), own=1), "b": cells([4, 4], own=2)}
    pieces.cross(searched, derived)
    chosen = np.sort(load_arrays(searched["b"].workdir / "crossed-a.npz")["decisions"][:, 0])
    assert len(np.unique(chosen)) == pieces.CROSSED and np.ptp(chosen) > 50


def test_specialisation_is_what_rows_and_columns_do_not_explain():
    rows, columns = (
        np.array([[1.0, 2.0, 4.0], [0.0, 1.0, 5.0]]),
        np.array([[3.0, -1.0, 0.0], [2.0, 2.0, 7.0]]),
    )
    additive = rows[:, :, None] + columns[:, None, :]
    np.testing.assert_allclose(tables.specialisation(additive), 0, atol=1e-12)
    own = additive - np.array([0.3, 0.5])[:, None, None] * np.eye(3)
    np.testing.assert_allclose(tables.specialisation(own), [-0.3, -0.5])
    table = tables.crossed_table(METRIC, ["x", "y", "z"], own[:1], cells=20, command="")
    assert [row.cells[0] for row in table.rows] == ["x", "y", "z"]
    np.testing.assert_allclose([row.cells[1] for row in table.rows], rows[0] + 3.0 - [0.3, 0, 0])
    np.testing.assert_allclose([row.cells[-1] for row in table.rows], -0.3 * 2 / 3)
    assert "-0.400 ± 1.271" in tables.crossed_answer(
        METRIC, own
    )  # t of one degree of freedom, 12.706, times .1


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Arguments and folder of a study of seconds."""
    folder = tmp_path_factory.mktemp("study")
    config = tiny(
        data={"batch": 64, "steps": 100},
        evaluation={"examples": 400},
        search={"epochs": 2, "warmup_epochs": 0},
        training={"epochs": 1},
    )
    write_config(folder / "tiny.py", config)
    workdir = folder / "run"
    arguments = [
        f"--config={folder / 'tiny.py'}",
        f"--workdir={workdir}",
        f"--data_dir={folder / 'data'}",
    ]
    return [
        *arguments,
        "--strategies=evolution,uniform",
        "--seeds=1",
        "--derived=12",
        "--halved=2",
        "--jobs=1",
    ], workdir


@pytest.mark.slow
def test_the_program(study, user_environment):
    arguments, folder = study
    process = finish_program(
        start_program(user_environment, "experiments.table_search", *arguments)
    )
    assert process.returncode == 0, process.stderr
    printed = process.stdout
    for shown in (
        "regularised evolution",
        "uniform policy",
        "a cell drawn at random",
        "LSTM",
        "1 epoch,",
        "weights of",
        "55.8",
    ):
        assert shown in printed
    page = (folder / "report" / "index.html").read_text()
    assert page.count("<img") == 2 and all(
        (folder / f"curves_{name}.png").is_file() for name in ("steps", "time")
    )
    rows = list(csv.DictReader((folder / "search.csv").open()))
    assert [row["strategy"] for row in rows] == [
        "regularised evolution",
        "uniform policy",
        "a cell drawn at random, not searched",
        "the same cell, another seed of training",
        "random search, no sharing (best of 1)",
        "successive halving, no sharing (of 2)",
        "LSTM, as many parameters",
    ]
    space = RecurrentSpace(num_nodes=3)
    derived = [
        load_arrays(folder / f"{name}-seed1" / "derived-12.npz")
        for name in ("evolution", "uniform")
    ]
    best = [of["decisions"][0] for of in derived]
    drawn = space.format(pieces.random_cell(space, 1))
    halved = load_arrays(folder / "halving" / "seed1-2-cells.npz")
    run = runs.open_run(folder / "uniform-seed1")
    (alone,) = without_sharing.random_cells(run.config, run.splits.train.length)
    others = [
        (1, drawn),
        (1001, drawn),
        (1, alone),
        (1, space.format(halved["decisions"][0])),
        (1, "lstm"),
    ]
    every = [*((1, space.format(decisions)) for decisions in best), *others]
    for row, (seed, text) in zip(rows, every, strict=True):
        trained = folder / "from_scratch" / f"seed{seed}-1-epochs-{text.replace(' ', '-')}"
        config, result = (
            json.loads((trained / name).read_text()) for name in ("config.json", "result.json")
        )
        assert (
            config["seed"],
            config["training"]["architecture"],
            config["training"]["epochs"],
        ) == (seed, text, 1)
        assert (
            config["strategy"]["name"] == "reinforce"
        )  # the recipe is the base's, whoever found the cell
        assert row["best, from scratch, validation"] == f"{math.exp(result['loss']):.1f}"
        assert row["best, from scratch, test"] == f"{math.exp(result['test_loss']):.1f}"
    for row, of, name in zip(rows, derived, ("evolution", "uniform"), strict=False):
        assert row["different cells of 12 samples"] == str(len(of["decisions"]))
        assert row["best derived cell, shared weights"] == f"{math.exp(of['held_out']):.1f}"
        seconds = sum(entry["seconds"] for entry in logs.read(folder / f"{name}-seed1"))
        assert row["search (s)"] == (f"{seconds:.0f}" if seconds >= 0.5 else "<1")
    unit = without_sharing.first_rung(2, int(training_steps(run.config.search)))
    np.testing.assert_array_equal(halved["steps"], [4 * unit, unit])
    expected = derivation.derive(run, 12, seed=1)
    np.testing.assert_array_equal(derived[1]["decisions"], expected.decisions)
    scores = np.asarray(
        run.reward.evaluate(
            run.state.reward, jnp.asarray(derived[1]["decisions"]), run.valid_batches()
        )
    )
    mean = math.exp(scores.astype(float).mean())
    assert rows[1]["mean of derived cells, shared weights"] == f"{mean:.1f}"
    crossed = [row[1:3] for row in csv.reader((folder / "crossed.csv").open())][1:]
    assert (
        crossed[1][1] == f"{scores.astype(float).mean():.3f}"
    )  # fewer than twenty cells: all of them

    before = files(folder)
    process = finish_program(
        start_program(user_environment, "experiments.table_search", *arguments)
    )
    assert (process.returncode, process.stdout) == (0, printed), process.stderr
    assert process.stderr == ""  # no piece is made again
    assert files(folder) == before


@pytest.mark.slow
def test_another_recipe_keeps_the_searches(study, user_environment):
    arguments, folder = study
    assert (
        finish_program(
            start_program(user_environment, "experiments.table_search", *arguments)
        ).returncode
        == 0
    )
    process = finish_program(
        start_program(
            user_environment, "experiments.table_search", *arguments, "--config.training.epochs=2"
        )
    )
    assert process.returncode == 0 and "2 epochs," in process.stdout, process.stderr
    shown = [line.partition(":")[0] for line in process.stderr.splitlines()]
    assert any(label.startswith("seed1-2-epochs-") for label in shown)
    assert not {"searching", "evolution-seed1", "uniform-seed1"} & set(shown)
    assert (folder / "from_scratch.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--strategies=pg,telepathy"], ["--strategies", "'telepathy'", "evolution"]),
        (["--strategies=pg"], ["--strategies", "at least two", "'pg'"]),
        (["--seeds=0,x"], ["--seeds", "0,x"]),
        (["--derived=0"], ["--derived"]),
    ],
)
def test_what_the_study_is_asked_for(arguments, parts, user_environment, tmp_path):
    process = run_forked(
        user_environment, "experiments.table_search", f"--workdir={tmp_path / 'run'}", *arguments
    )
    assert_one_line(process, *parts)
    assert not (tmp_path / "run").exists()
