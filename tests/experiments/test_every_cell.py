"""Every cell trained alone: training against a plain loop, blocks that survive a kill, the gate and
facts on planted numbers, the program.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import kept
from experiments.cells import facts, network, report, study, training
from experiments.cells.recipe import Recipe
from nas.data import cell_table
from nas.data.cell_table import MEASURES, CellTable
from nas.errors import UserError
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import shared
from nas.supernets.recurrent.softmax import cross_entropy
from tests.experiments.characters import TEXT, TYPES
from tests.forked import run_forked
from tests.helpers import (
    assert_one_line,
    assert_same_bits,
    finish_program,
    start_program,
    start_python,
)

MODULE = "experiments.every_cell"
SPACE = RecurrentSpace(num_nodes=3)
RECIPE = Recipe(width=4, batch=4, window=3, sequence=2, steps=16, held_out=3, max_norm=1.0)
TINY = ["--width=4", "--batch=4", "--window=3", "--sequence=2", "--steps=8", "--held_out=3"]


def text_arrays():
    return training.Text(**{name: jnp.asarray(split) for name, split in TEXT.splits.items()})


# Training.


def plain_training(decisions, seed):
    """Adam by hand around automatic differentiation of plainly unrolled time; one row reads after
    the other.
    """
    cell, key = shared.read_cell(SPACE, jnp.asarray(decisions)), jax.random.key(seed)
    params = shared.gather(
        network.init(SPACE, RECIPE, len(TYPES), jax.random.fold_in(key, 1)), cell
    )
    train = TEXT.splits["train"].astype(np.int32)
    shift = int(jax.random.randint(jax.random.fold_in(key, 2), (), 0, len(train)))

    @jax.jit
    def loss(params, hidden, tokens):
        inputs = shared.LoopInputs(
            cell,
            params["recurrent"],
            (params["embedding"][tokens[:, :-1].T] @ params["input"]),
            jnp.ones_like(hidden),
            hidden,
        )
        states = shared.time_loop.plain_states(RECIPE.max_norm, "float32", inputs)
        softmax = {"embedding": params["softmax"], "bias": params["bias"]}
        return cross_entropy(softmax, states, tokens[:, 1:]), states[-1]

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    first, second = (jax.tree.map(lambda leaf: np.zeros(leaf.shape), params) for _ in range(2))
    hidden, online, rise = np.zeros((4, 4), np.float32), [], 1  # round(.05 * 16)
    for t in range(RECIPE.steps):
        tokens = np.zeros((4, 4), np.int32)
        for row, column in itertools.product(range(4), range(4)):
            tokens[row, column] = train[(shift + row * 15 + t * 3 + column) % 61]
            if (t + row) % 2 == 0:
                hidden = np.array(hidden)
                hidden[row] = 0
        (value, hidden), gradient = slope(params, hidden, tokens)
        online.append(value)
        norm = math.sqrt(sum(float(np.sum(np.square(g))) for g in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g, n=norm: np.array(g) * min(1, 0.25 / n), gradient)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, second, gradient)
        done = (t - rise) / (RECIPE.steps - rise)
        rate = RECIPE.learning_rate * (0 if t < rise else (1 + math.cos(math.pi * done)) / 2)
        corrections = 1 - 0.9 ** (t + 1), 1 - 0.99 ** (t + 1)
        params = jax.tree.map(
            lambda p, m, v, rate=rate, c=corrections: np.asarray(
                p - rate * (m / c[0]) / (np.sqrt(v / c[1]) + 1e-8), np.float32
            ),
            params,
            first,
            second,
        )
    held_out = []
    for name, length in (("validation", 29), ("test", 23)):
        split = TEXT.splits[name].astype(np.int32)
        rows = [[split[(r * (length // 3) + i) % length] for i in range(7)] for r in range(3)]
        held_out.append(float(loss(params, jnp.zeros((3, 4)), jnp.array(rows))[0]))
    return np.reshape(online, (8, 2)).mean(axis=1) / math.log(2), np.array(held_out) / math.log(2)


@pytest.mark.parametrize("cell", ["1 0 2 1 3", "0 0 1 0 2"])
def test_a_training_is_that_of_a_plain_loop(cell):
    decisions, text = SPACE.parse(cell), text_arrays()
    found = jax.jit(
        lambda decisions, seed: training.train(SPACE, RECIPE, len(TYPES), decisions, seed, text)
    )(decisions, np.uint32(5))
    online, held_out = plain_training(decisions, 5)
    np.testing.assert_allclose(found.online, online, rtol=2e-5)
    np.testing.assert_allclose([found.validation, found.test], held_out, rtol=2e-5)
    assert found.skipped == 0
    assert found.online[-1] < found.online[0]  # it learned


def test_weights_that_are_not_finite_are_told():
    """With weights of that size the first loss is not finite, and no update is made."""
    recipe = Recipe(**vars(RECIPE) | {"init_scale": 3e38})
    text = text_arrays()
    found = jax.jit(
        lambda decisions: (
            training.train(SPACE, recipe, len(TYPES), decisions, np.uint32(0), text).skipped
        )
    )(np.zeros(5, np.int32))
    assert found == recipe.steps


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 0), ("steps", 7), ("warmup", 1.0), ("learning_rate", 0.0), ("max_norm", -1.0)],
)
def test_a_recipe_that_cannot_be(field, value):
    with pytest.raises(UserError, match=field):
        Recipe(**{field: value})


# Cells and blocks.


def test_all_cells_are_one_of_each_class():
    cells = study.cells(SPACE, 0, 5)
    assert len(cells) == 104 + 5
    np.testing.assert_array_equal(cells[:104], cell_table.canonical_cells(SPACE))
    copies, canonical = cells[104:], SPACE.canonical(cells[104:])
    assert np.all(np.any(copies != canonical, axis=1))
    assert len(np.unique(canonical, axis=0)) == 5
    # Two different children of node 0 are numbered in two ways, and nothing else of three nodes is.
    assert len(study.cells(SPACE, 0, 1000)) == 104 + 4 * 6


def test_a_sample_is_of_different_cells_and_the_same_each_time():
    sample = study.cells(SPACE, 20, 3)
    assert len(sample) == 23
    assert len({*map(tuple, sample[:20].tolist())}) == 20
    np.testing.assert_array_equal(SPACE.canonical(sample[:20]), sample[:20])
    np.testing.assert_array_equal(study.cells(SPACE, 20, 3), sample)


CELLS, SEEDS = study.cells(SPACE, 10, 2), [3, 4, 8]  # 36 trainings, three blocks


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The results of a study that nothing interrupted, and its folder."""
    folder = tmp_path_factory.mktemp("blocks")
    return study.train(SPACE, RECIPE, TEXT, CELLS, SEEDS, folder), folder


def test_results_are_in_the_places_of_their_cells_and_seeds(trained):
    results, _ = trained
    assert results.online.shape == (12, 3, 8) and results.validation.shape == (12, 3)
    text = text_arrays()
    alone = jax.jit(
        lambda decisions, seed: training.train(SPACE, RECIPE, len(TYPES), decisions, seed, text)
    )
    for row, seed in ((0, 0), (11, 0), (4, 1), (11, 2)):
        found = alone(CELLS[row], np.uint32(SEEDS[seed]))
        np.testing.assert_allclose(results.online[row, seed], found.online, rtol=1e-5)
        np.testing.assert_allclose(results.validation[row, seed], found.validation, rtol=1e-5)
        np.testing.assert_allclose(results.test[row, seed], found.test, rtol=1e-5)


def test_finished_blocks_are_kept_and_damaged_ones_computed_again(trained, tmp_path, monkeypatch):
    results, folder = trained
    blocks = sorted(folder.iterdir())
    assert [path.name for path in blocks] == ["0000.npz", "0001.npz", "0002.npz"]
    for path in blocks[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "0001.npz").write_bytes(blocks[1].read_bytes()[:200])
    saved, save = [], kept.save_arrays
    monkeypatch.setattr(
        kept, "save_arrays", lambda path, arrays: (saved.append(path.name), save(path, arrays))
    )
    again = study.train(SPACE, RECIPE, TEXT, CELLS, SEEDS, tmp_path)
    assert_same_bits(again._asdict(), results._asdict())
    assert saved == ["0001.npz", "0002.npz"]


def test_blocks_of_another_recipe_are_not_used(trained, tmp_path):
    results, folder = trained
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = Recipe(**vars(RECIPE) | {"learning_rate": 1e-4})
    found = study.train(SPACE, other, TEXT, CELLS, SEEDS, tmp_path)
    assert np.all(found.online[:, :, -1] != results.online[:, :, -1])


# The gate and the facts.


def planted(noise=0.0, gap=0.0, cells=96, seeds=3):
    """Online and validation losses of cells that lie .01 apart."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(cells)[:, None] * 0.01 + 2
    online = truth + noise * rng.standard_normal((cells, seeds))
    validation = online.copy()
    validation[5, 1] += gap
    return online, validation


@pytest.mark.parametrize(
    ("noise", "gap", "passed"),
    [(0.01, 0.2, True), (0.01, 0.4, False), (0.05, 0.0, False), (0.4, 0.0, False)],
)
def test_the_gate(noise, gap, passed):
    """Noise of .05 is an intraclass correlation of .97, but more than the best quarter, of a
    standard deviation of .07, can do with.
    """
    online, validation = planted(noise, gap)
    found = report.gate(online, validation)
    assert found.passed == passed
    assert found.gap == pytest.approx(gap)
    text = report.gate_table(found, online, "command").text()
    assert f"The gate is {'passed' if passed else 'not passed'}" in text


def table_of(values, copies=()):
    """A table of 3 nodes whose losses are a function of decisions [R, T]."""
    decisions = np.stack([*cell_table.canonical_cells(SPACE), *copies])
    bits = values(decisions)
    return CellTable(3, tuple(range(bits.shape[1])), {}, decisions, dict.fromkeys(MEASURES, bits))


def test_an_additive_table_needs_no_conditioning_and_has_one_optimum():
    """Activations alone matter, and node 0's more than the others', which count alike."""

    def values(decisions):
        loss = 2 + 0.3 * decisions[:, 0] + 0.1 * (decisions[:, 2] + decisions[:, 4])
        return np.stack([loss, loss], axis=1)

    table = table_of(values)
    tables = report.facts_tables(table, "command")
    facts_of = {row.cells[0]: row.cells[1] for row in tables["facts"].rows}
    assert facts_of["share of variance: single decisions"] == pytest.approx(1)
    assert facts_of["share of variance: single decisions, cross-validated"] == pytest.approx(1)
    assert facts_of["local optima: median bits above the best"] == 0
    # All activations 0, as a chain and as two children of node 0.
    assert facts_of["local optima, of classes"] == "2 of 104"
    conditioning = [v for name, v in facts_of.items() if name.startswith("conditioning")]
    assert len(conditioning) == 4 and max(np.abs(conditioning)) < 1e-6
    best = [row.cells[0] for row in tables["best"].rows]
    assert len(best) == 10 and {*best[:2]} == {"0 0 0 0 0", "0 0 0 1 0"}


def test_conditioning_that_a_table_warrants():
    """Eight cells are good, whose three nodes do the same. No activation or parent is more likely
    by itself, so that total correlation is log 4 for each of three activations and log 2 for a
    parent, less the entropy.
    """

    def values(decisions):
        good = (decisions[:, 0] == decisions[:, 2]) & (decisions[:, 2] == decisions[:, 4])
        return np.where(good, 1.0, 2.0)[:, None]

    table = table_of(values)
    found = facts.warranted_conditioning(table, facts.landscape_of(table, "online").values)
    # No Gibbs policy has less than log 8 = 2.1 nats of entropy.
    assert found == pytest.approx(
        {nats: 3 * math.log(4) + math.log(2) - nats for nats in (3, 4)}, abs=0.01
    )


def test_copies_that_are_the_same_but_for_seeds():
    rng = np.random.default_rng(0)
    seeds = rng.standard_normal((200, 1, 3)) * 0.02
    pairs = rng.standard_normal((200, 1, 1)) + seeds + 0.01 * rng.standard_normal((200, 2, 3))
    found = facts.isomorphs(pairs, permutations=199)
    assert found.p > 0.05
    assert found.between_copies == pytest.approx(0.01 / 3**0.5, rel=0.15)
    assert found.expected == pytest.approx(0.01 / 3**0.5, rel=0.15)
    assert found.between_seeds == pytest.approx(5**0.5 * 0.01 / 3**0.5, rel=0.15)
    pairs[:, 1] += rng.choice((-0.02, 0.02), (200, 1))  # a copy of its own, whatever the seed
    found = facts.isomorphs(pairs, permutations=199)
    assert found.p == 1 / 200
    assert found.between_copies > 1.5 * found.expected


def test_copies_need_pairs_of_seeds():
    with pytest.raises(ValueError, match="a pair of two seeds"):
        facts.isomorphs(np.zeros((4, 2, 1)))


def test_the_best_cells_are_drawn():
    table = table_of(lambda decisions: np.arange(len(decisions))[::-1, None] + 1.0)
    drawn = report.drawings(table)
    assert [name for name, _, _ in drawn] == [f"best_{place:02}" for place in range(1, 11)]
    last = SPACE.format(cell_table.canonical_cells(SPACE)[-1])
    assert drawn[0][2] == f"1. {last}: 1.0000 bits"


# The program.

KILLED = """
import os, runpy, signal, sys
from experiments import kept
save = kept.save_arrays
def killed(path, arrays):
    save(path, arrays)
    if path.name == "0002.npz":
        os.kill(os.getpid(), signal.SIGKILL)
kept.save_arrays = killed
sys.argv[0] = "every_cell"
runpy.run_module("experiments.every_cell", run_name="__main__")
"""


def test_a_killed_program_goes_on_to_the_same_table(quick_environment, tmp_path):
    arguments = [*TINY, "--seeds=0,1", "--copies=4"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    found = run_forked(quick_environment, MODULE, *arguments, f"--workdir={whole}")
    assert found.returncode == 0, found.stderr
    killed = finish_program(
        start_python(quick_environment, "-c", KILLED, *arguments, f"--workdir={cut}")
    )
    assert killed.returncode == -9, killed.stderr
    assert not (cut / "table.csv.gz").exists()
    assert len([*(cut / "blocks").glob("*.npz")]) == 3
    again = run_forked(quick_environment, MODULE, *arguments, f"--workdir={cut}")
    assert again.returncode == 0, again.stderr
    assert (cut / "table.csv.gz").read_bytes() == (whole / "table.csv.gz").read_bytes()
    table = cell_table.read_cells(whole / "table.csv.gz")
    assert table.decisions.shape == (108, 5) and table.seeds == (0, 1)
    assert table.settings["recipe"]["width"] == 4
    assert "skipped_updates" in table.settings
    tables = [f"{name}{suffix}" for name in ("gate", "facts", "best") for suffix in (".csv", ".md")]
    for name in (*tables, "best_01.png", "report/index.html"):
        assert (whole / name).stat().st_size > 0
    assert "Do seeds agree? 104 cells, 2 seeds" in found.stdout


def test_a_sample_prints_the_gate_and_makes_no_table(quick_environment, tmp_path):
    sampled = run_forked(
        quick_environment, MODULE, *TINY, "--cells=8", "--copies=0", f"--workdir={tmp_path}"
    )
    assert sampled.returncode == 0, sampled.stderr
    assert "Do seeds agree? 8 cells, 3 seeds" in sampled.stdout
    assert not (tmp_path / "table.csv.gz").exists()


def test_trainings_without_a_loss_are_one_line(quick_environment, tmp_path):
    arguments = [*TINY, "--init_scale=1e38", "--cells=8", "--copies=0", f"--workdir={tmp_path}"]
    refused = run_forked(quick_environment, MODULE, *arguments)
    assert_one_line(refused, "of 24 trainings have a loss that is not finite")


def test_help_is_quick_and_lists_the_flags(user_environment):
    shown = finish_program(
        start_program(user_environment | {"PYTHONPROFILEIMPORTTIME": "1"}, MODULE, "--help")
    )
    assert shown.returncode == 0 and " jax\n" not in shown.stderr
    for flag in ("--config=", "--seeds=", "--cells=", "--learning_rate=", "--max_norm="):
        assert flag in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--cells=3"], "--cells: 0 or at least 8, got 3"),
        (["--seeds=a"], "--seeds: whole numbers"),
        (["--config=huge"], "quick|full"),
        (["--steps=2"], "steps: must be at least 8, got 2"),
    ],
)
def test_what_the_user_can_mend_is_one_line(user_environment, tmp_path, arguments, part):
    refused = run_forked(user_environment, MODULE, *arguments, f"--workdir={tmp_path / 'run'}")
    assert_one_line(refused, part)
    assert not (tmp_path / "run").exists()
