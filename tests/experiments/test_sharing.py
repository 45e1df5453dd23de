"""Shared weights beside cells trained alone: training against an Adam for each matrix, what is kept
and read from the table, numbers worked out by hand, the program.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.cells import network, sharing, sharing_report, study, supernet, training
from experiments.cells.recipe import Recipe
from experiments.cells.sharing import Ranked
from experiments.cells.sharing_report import Truth
from nas.data import cell_table
from nas.data.cell_table import MEASURES, CellTable
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import shared
from tests.experiments.characters import TEXT, TYPES
from tests.forked import run_forked
from tests.helpers import assert_one_line, assert_same_bits

SPACE = RecurrentSpace(num_nodes=3)
RECIPE = Recipe(width=4, batch=4, window=3, sequence=2, steps=16, held_out=4, max_norm=1.0)
CHAIN, FORK = np.array([0, 0, 1, 1, 3]), np.array([0, 0, 1, 0, 3])  # 0-1-2, and 1 and 2 both read 0


def train(cells):
    """The supernet after a step of each of the cells, what was logged, and what it began with."""
    reward = supernet.reward(SPACE, RECIPE, len(TYPES))
    state = start = reward.init(jax.random.key(0))
    windows = training.reader(RECIPE, training.text_key(1), TEXT.splits["train"])
    carry, step, logged = reward.initial_carry(4), jax.jit(reward.train), []
    for number, cell in enumerate(cells):
        batch = windows(jnp.int32(number))
        state, carry, info = step(state, carry, jnp.asarray(cell), batch, None, None)
        logged.append(info)
    return state, logged, start


def adam_of(cells):
    """The same by optax, with an optimiser of its own for each recurrent matrix that is told only
    of the steps that use it.
    """
    params = network.init(SPACE, RECIPE, len(TYPES), jax.random.key(0))
    recurrent, rest = list(params.pop("recurrent")), params
    windows = training.reader(RECIPE, training.text_key(1), TEXT.splits["train"])
    adam, rate = optax.scale_by_adam(b2=0.99), training.learning_rate(RECIPE)
    clip = optax.clip_by_global_norm(RECIPE.clip)
    state, states = adam.init(rest), [adam.init(matrix) for matrix in recurrent]
    hidden = jnp.zeros((4, 4))

    def loss(used, cell, hidden, tokens):
        return network.loss(used, cell, tokens, hidden, max_norm=RECIPE.max_norm)

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for number, decisions in enumerate(cells):
        cell = shared.read_cell(SPACE, jnp.asarray(decisions))
        tokens, begins = windows(jnp.int32(number))
        used = rest | {"recurrent": tuple(recurrent[edge] for edge in cell.edge)}
        hidden = jnp.where(begins[:, None], 0.0, hidden)
        (_, hidden), gradient = slope(used, cell, hidden, tokens)
        gradient, _ = clip.update(gradient, clip.init(used))
        scale = -rate(jnp.int32(number))
        matrices = gradient.pop("recurrent")
        with jax.numpy_dtype_promotion("standard"):
            updates, state = adam.update(gradient, state)
            rest = optax.apply_updates(rest, jax.tree.map(lambda u, s=scale: s * u, updates))
            for edge, of_matrix in zip(cell.edge, matrices, strict=True):
                update, states[edge] = adam.update(of_matrix, states[edge])
                recurrent[edge] = recurrent[edge] + scale * update
    return rest | {"recurrent": jnp.stack(recurrent)}


def test_each_matrix_has_an_optimiser_of_its_own():
    cells = [CHAIN, FORK, CHAIN, CHAIN, FORK, CHAIN]
    state, logged, _ = train(cells)
    wanted = adam_of(cells)
    for name, leaf in wanted.items():
        np.testing.assert_allclose(state.params[name], leaf, rtol=2e-4, atol=1e-6, err_msg=name)
    # Node 0's, node 1's from 0; from 0 to 2 in the fork, from 1 to 2 in the chain.
    assert state.uses.tolist() == [6, 6, 2, 4] and int(state.updates) == 6
    assert all(info["skipped"] == 0 for info in logged)


def test_matrices_that_no_cell_used_rest():
    state, _, start = train([CHAIN] * 3)
    unused = 2  # node 2's from node 0
    for tree in ("params", "first", "second"):
        np.testing.assert_array_equal(
            getattr(state, tree)["recurrent"][unused], getattr(start, tree)["recurrent"][unused]
        )
    assert np.all(state.params["recurrent"][3] != start.params["recurrent"][3])


def test_losses_of_cells_are_those_of_their_weights():
    state, _, _ = train([CHAIN, FORK])
    reward = supernet.reward(SPACE, RECIPE, len(TYPES))
    tokens = training.sequences(RECIPE, TEXT.splits["validation"])
    decisions = jnp.asarray(np.stack([CHAIN, FORK]))
    bits = reward.evaluate(state, decisions, tokens)
    np.testing.assert_array_equal(reward.score(state, decisions, tokens), -bits)
    for row, found in zip(decisions, bits, strict=True):
        cell = shared.read_cell(SPACE, row)
        used = shared.gather(state.params, cell)
        nats, _ = network.loss(used, cell, tokens, jnp.zeros((4, 4)), max_norm=1.0)
        assert found == pytest.approx(float(nats) / np.log(2), rel=1e-5)


def test_rewards_read_the_beginnings_of_the_validation_sequences():
    recipe = dataclasses.replace(RECIPE, held_out=8, sequence=5)
    read = supernet.reward_batches(recipe, TEXT.splits["validation"])
    whole = training.sequences(recipe, TEXT.splits["validation"])
    assert read.shape == (2, 4, supernet.REWARD_WINDOWS * 3 + 1)
    np.testing.assert_array_equal(read[1, 2], whole[6, :13])


# The study.

SIZE = sharing.Size((3, 4), 16, (8,), 2, 12, 2, 3, 2)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of all cells of 3 nodes, hardly trained."""
    cells, folder = study.cells(SPACE, 0, 0), tmp_path_factory.mktemp("blocks")
    results = study.train(SPACE, RECIPE, TEXT, cells, [0, 1], folder)
    settings = {"recipe": dataclasses.asdict(RECIPE)}
    return study.table(SPACE, results, [0, 1], settings), folder


@pytest.fixture
def shrunk(monkeypatch):
    monkeypatch.setattr(supernet, "EPOCHS", 4)
    monkeypatch.setattr(supernet, "WARMUP", 1)
    monkeypatch.setattr(supernet, "UPDATES", 2)
    monkeypatch.setattr(supernet, "PROPOSALS", 5)
    monkeypatch.setattr(sharing, "QUERIES", (10, 20))
    monkeypatch.setattr(sharing, "SEARCHES", (sharing.UNIFORM, sharing.peers.LOCAL_SEARCH))
    configure = sharing.configure

    def small(name, space):
        config = configure(name, space)
        steps = 20 // config.search.architectures
        return dataclasses.replace(
            config, search=dataclasses.replace(config.search, controller_steps=steps)
        )

    monkeypatch.setattr(sharing, "configure", small)


@pytest.mark.parametrize(("nodes", "count"), [(3, 100), (12, 20)])
def test_a_sample_is_of_different_cells(nodes, count):
    space = RecurrentSpace(num_nodes=nodes)
    cells = sharing.sample(space, count)
    assert len(np.unique(cells, axis=0)) == count
    np.testing.assert_array_equal(space.canonical(cells), cells)
    np.testing.assert_array_equal(sharing.sample(space, count), cells)
    assert np.any(sharing.sample(space, count, seed=1) != cells)


def test_the_study_is_kept(table, shrunk, tmp_path, monkeypatch):
    table, blocks = table
    made = sharing.Study(table, TEXT, SIZE, tmp_path)
    exact, sizes, lengths = made.exact(), dict(made.by_size()), dict(made.by_steps())
    truth = Truth.of(table)
    bits = exact[sharing.UNIFORM].bits
    found = made.searches(-truth.validation, -bits)
    for policy, of in exact.items():
        assert of.bits.shape == (2, 128) and np.all(np.isfinite(of.bits))
        assert of.proposals.shape == (2, 5, 5) and of.online.shape == (2, 4)
        assert np.all(of.bits[0] != of.bits[1]), policy
    assert {n: (r.shared.shape, r.alone.shape) for n, r in sizes.items()} == {
        3: ((2, 12), (2, 12)),
        4: ((2, 12), (2, 12)),
    }
    # The longest training of the largest space is that of the sizes; a shorter one is another.
    assert list(lengths) == [8, 16] and np.all(lengths[8].shared != lengths[16].shared)
    assert_same_bits(lengths[16], sizes[4])
    np.testing.assert_array_equal(lengths[8].alone, sizes[4].alone)
    # Cells of the table are not trained again, and are those of a training.
    cells = sharing.sample(SPACE, 12)
    again = study.train(SPACE, RECIPE, TEXT, cells, [0, 1], tmp_path / "again")
    np.testing.assert_allclose(sizes[3].alone, again.validation.T, rtol=1e-5)
    assert not (tmp_path / "alone-3").exists() and (tmp_path / "alone-4").exists()
    for queries in found.values():
        assert queries.truth.shape == (3, 20) and queries.shared.shape == (2, 2, 20)
    # What is finished is read.
    monkeypatch.setattr(supernet, "run", None)
    monkeypatch.setattr(sharing.seeds, "run", None)
    kept = made.exact()
    assert_same_bits(
        {p: of._asdict() for p, of in kept.items()}, {p: of._asdict() for p, of in exact.items()}
    )
    assert_same_bits(
        {n: q._asdict() for n, q in made.searches(-truth.validation, -bits).items()},
        {n: q._asdict() for n, q in found.items()},
    )
    for told in (
        sharing_report.exact(truth, exact, SPACE, "command"),
        sharing_report.searches(truth, found, bits, "command"),
        sharing_report.by_size(sizes, "command"),
        sharing_report.by_steps(lengths, 4, "command"),
    ):
        assert "nan" not in told[0].text() + told[1]


def test_a_supernet_of_one_seed_is_the_same_beside_others(table, shrunk):
    """Seeds are lanes of one program: a lane knows nothing of the others."""
    config = sharing.configure(sharing.PG, SPACE)
    compiled = supernet.program(config, SPACE, RECIPE, len(TYPES))
    text = training.Text(**{name: TEXT.splits[name] for name in training.Text._fields})
    both, one = (
        supernet.run(compiled, seeds, text, np.stack([CHAIN, FORK]), RECIPE)
        for seeds in ([0, 1], [1])
    )
    np.testing.assert_allclose(both.bits[1], one.bits[0], rtol=1e-5)
    np.testing.assert_array_equal(both.proposals[1], one.proposals[0])


# What is said of it.


def test_agreement_by_hand():
    ranked = Ranked(np.array([[1.0, 2, 3, 4], [2, 1, 3, 4]]), np.array([[1.0, 2, 3, 4]] * 2))
    found = sharing_report.agreement(ranked)
    estimates = [interval.estimate for interval in found.values()]
    assert estimates == pytest.approx([0.9, 1.0, 0.8])  # 1 - 6 * 2 / (4 * 15) is 0.8
    taus = sharing_report.agreement(ranked, sharing_report.kendall)
    assert [of.estimate for of in taus.values()] == pytest.approx([5 / 6, 1, 2 / 3])


def test_a_change_of_agreement():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(200)
    near, far = (truth + noise * rng.standard_normal((2, 200)) for noise in (0.1, 1.0))
    alone = np.stack([truth, truth])
    found = sharing_report.change(Ranked(near, alone), Ranked(far, alone), paired=False)
    wanted = sharing_report.spearman(far, alone) - sharing_report.spearman(near, alone)
    assert found.estimate == pytest.approx(wanted) and found.high < 0
    same = sharing_report.change(Ranked(near, alone), Ranked(near, alone), paired=False)
    assert same.estimate == 0 and same.low < 0 < same.high
    same = sharing_report.change(Ranked(near, alone), Ranked(near, alone), paired=True)
    assert same == (0, 0, 0)


def test_variance_between_copies_by_hand():
    # Class means 2 and 6; of the squares 1 + 1 + 4 + 4 around them and 4 * 4 between them.
    values, classes = np.array([1.0, 3, 4, 8]), np.array([7, 7, 9, 9])
    assert sharing_report.between_copies(values, classes) == pytest.approx(10 / 26)
    assert sharing_report.between_copies(np.array([1.0, 1, 4, 4]), classes) == 0


def table_of(loss):
    """A table of 3 nodes and two seeds whose losses are a function of decisions [R, T]."""
    decisions = cell_table.canonical_cells(SPACE)
    bits = np.stack([loss(decisions)] * 2, axis=1)
    return CellTable(3, (0, 1), {}, decisions, dict.fromkeys(MEASURES, bits))


def test_truth_and_regret_are_of_classes():
    table = table_of(lambda decisions: 2 + 0.1 * decisions[:, 0] + 0.01 * decisions[:, 3])
    truth = Truth.of(table)
    every = SPACE.every()
    np.testing.assert_allclose(truth.regret(np.arange(4)), truth.test[:4] - 2)
    canonical = SPACE.index(SPACE.canonical(every))
    np.testing.assert_allclose(truth.test, truth.test[canonical])
    found = {
        sharing.UNIFORM: supernet.Searched(
            np.stack([truth.test, truth.test]), every[None, [5, 0]].repeat(2, 0), None, None
        )
    }
    told, sentence = sharing_report.exact(truth, found, SPACE, "command")
    names = (column.name for column in told.columns)
    own = {n: cell[:5] for n, cell in zip(names, told.rows[0].cells, strict=True)}
    assert own["Spearman"] == "1.000" and own["variance between copies"] == "0.000"
    assert own["regret of the best"] == own["of its proposals"] == "0.000"
    assert "random search 1.000" in sentence


def test_what_a_search_loses_by_hand():
    """Under shared weights the best looks worst: a search that has seen it goes elsewhere."""
    table = table_of(lambda decisions: 2 + 0.1 * decisions[:, 0])
    truth = Truth.of(table)
    good, bad = (int(np.flatnonzero(SPACE.every()[:, 0] == choice)[0]) for choice in (0, 3))
    bits = np.stack([-truth.test, -truth.test])
    queries = sharing.Queries(np.full((2, 300), good), np.full((2, 3, 300), good))
    queries.truth[:, 0], queries.shared[:, :, 5:] = bad, bad
    told, sentence, _ = sharing_report.searches(truth, {sharing.PG: queries}, bits, "command")
    ends = [cell[:6] for cell in told.rows[0].cells[1:]]
    assert ends == ["0.0000", "0.0000", "0.3000", "0.3000"]
    assert "0.0000 to 0.0000 bits" in sentence and "0.3000 to 0.3000 with" in sentence


# The program.


def test_a_table_that_is_not_there_ends_in_one_line(quick_environment, tmp_path):
    arguments = [f"--table={tmp_path / 'none.csv'}", f"--workdir={tmp_path / 'out'}"]
    process = run_forked(quick_environment, "experiments.sharing", *arguments)
    assert_one_line(process, "none.csv")
    assert not (tmp_path / "out").exists()
