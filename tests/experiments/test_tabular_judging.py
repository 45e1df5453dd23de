"""Regret, Gibbs policies, predictions from embeddings: on small cases worked out by hand, and where
theory gives the number.
"""

import numpy as np
import pytest

from experiments.tabular import facts, judging
from experiments.tabular.judging import Judge
from nas.data import cell_table
from nas.data import table as tables
from nas.data.cell_table import CellTable
from nas.data.table import POINTS, SPACE
from nas.spaces.recurrent import RecurrentSpace

COUNT = len(SPACE.every())


def judge(seen, test):
    """A data set of which only the first architectures are any good."""
    pad = np.zeros(COUNT - len(seen))
    return Judge(np.concatenate([seen, pad]), np.concatenate([test, pad]), POINTS)


def test_regret_by_hand():
    found = judge(seen=[50, 70, 60, 70, 80], test=[40, 65, 66, 90, 75])
    queries = np.array([[0, 2, 1, 3, 0, 4], [3, 1, 0, 2, 2, 2]])
    # The best on validation so far, the earliest of equals; the best class has 90 on test.
    assert found.incumbents(queries).tolist() == [[0, 2, 1, 1, 1, 4], [3, 3, 3, 3, 3, 3]]
    assert found.regret(queries).tolist() == [[50, 24, 25, 25, 25, 15], [0] * 6]


def test_the_top_is_one_in_a_hundred():
    test = np.arange(COUNT, dtype=float)
    found = Judge(test, test, POINTS)
    assert found.in_top(np.array([[COUNT - 157, COUNT - 156, COUNT - 1]])).tolist() == [
        [False, True, True]
    ]


def test_what_was_asked_twice_is_one_architecture():
    assert judging.distinct(np.array([[3, 3, 7, 3], [0, 1, 2, 3]])).tolist() == [2, 4]


def test_a_class_is_judged_by_its_mean():
    classes = np.concatenate([[0, 0], 1 + np.arange(COUNT - 2)])
    test = np.zeros(COUNT, np.float32)
    test[:3] = 90, 50, 75
    table = tables.ScoreTable(
        SPACE, {("cifar100", "val"): test, ("cifar100", "test"): test}, classes, POINTS
    )
    found = Judge.of(table, "cifar100")
    assert found.regret(np.array([[0], [1], [2]])).ravel().tolist() == [5, 5, 0]


def test_regret_in_bits_by_hand():
    space = RecurrentSpace(num_nodes=2)
    decisions = cell_table.canonical_cells(space)
    bits = np.full((len(decisions), 2), 3.0)  # of two seeds
    measured = {measure: bits.copy() for measure in cell_table.MEASURES}
    measured["validation"][:3] = [[2.5, 2.75], [2.25, 2.5], [2.75, 3]]
    measured["test"][:3] = [[2, 2.25], [2.125, 2.375], [1.5, 1.75]]
    table = cell_table.score_table(CellTable(2, (0, 1), {}, decisions, measured))
    found = Judge.of(table, "kjv")
    assert found.unit.name == "bits a character"
    assert found.regret(np.array([[5, 2, 0, 1, 2]])).tolist() == [[1.375, 0, 0.5, 0.625, 0.625]]


def log_probs(joint):
    return np.log(np.asarray(joint, float) / np.sum(joint) + 1e-300)


def test_entropy_and_total_correlation_by_hand():
    joint = np.zeros(SPACE.num_choices)
    joint[0, 0, 0, 0, 0, 0] = joint[1, 1, 2, 0, 0, 0] = 1  # three decisions that share one bit
    assert judging.entropy(log_probs(joint).ravel()) == pytest.approx(np.log(2))
    assert judging.policy_total_correlation(SPACE, log_probs(joint).ravel()) == pytest.approx(
        2 * np.log(2)
    )
    assert judging.entropy(np.full(COUNT, -np.log(COUNT))) == pytest.approx(6 * np.log(5))
    assert judging.policy_total_correlation(SPACE, np.full(COUNT, -np.log(COUNT))) == pytest.approx(
        0, abs=1e-9
    )


def test_gibbs_policies_of_single_effects_need_no_conditioning():
    single = tables.synthetic_table(0, 0.0).scores["cifar10", "test"]
    entropies, correlations = judging.gibbs_curve(SPACE, single)
    assert np.all(np.diff(entropies) >= 0) and entropies[-1] == pytest.approx(
        6 * np.log(5), abs=1e-6
    )
    np.testing.assert_allclose(correlations, 0, atol=1e-3)  # accuracies are single precision
    pairs = tables.synthetic_table(0, 1.0).scores["cifar10", "test"]
    assert judging.gibbs_curve(SPACE, pairs)[1].max() > 0.3


def test_gibbs_policies_of_two_decisions_by_hand():
    every = SPACE.every()
    accuracy = 10.0 * ((every[:, 0] == 0) & (every[:, 1] == 0))
    curve = judging.gibbs_curve(SPACE, accuracy)
    beta = 4.0
    joint = np.ones((5, 5))
    joint[0, 0] = np.exp(10 / beta)
    joint /= joint.sum()
    marginal = joint.sum(axis=0)
    entropy = -np.sum(joint * np.log(joint))
    expected = -2 * np.sum(marginal * np.log(marginal)) - entropy
    found = judging.gibbs_total_correlation(curve, np.array([entropy + 4 * np.log(5)]))
    assert found == pytest.approx(expected, rel=0.01)  # the curve is interpolated
    assert np.isnan(
        judging.gibbs_total_correlation(curve, np.array([1.0]))
    )  # 625 equal architectures have 6.4 nats


def test_the_uniform_sample_has_no_two_of_one_class():
    table = tables.ScoreTable(SPACE, {}, SPACE.canonical_class(SPACE.every()), POINTS)
    rows = judging.uniform_sample(table, 400)
    assert len(set(table.classes[rows])) == 400
    alone = judging.uniform_sample(tables.ScoreTable(SPACE, {}, np.arange(COUNT), POINTS), 400)
    assert (
        len(set(alone)) == 400 and abs(SPACE.every()[alone].mean() - 2) < 0.15
    )  # uniform: mean 2, standard error .03


def test_pair_measures_by_hand():
    none, conv, pool = ([0] * 6, [0, 0, 0, 3, 0, 0], [0, 0, 0, 4, 0, 0])
    rows = SPACE.index(np.array([none, conv, pool]))
    test = np.zeros(COUNT)
    test[rows] = 10, 60, 35
    found = judging.pair_measures(SPACE, rows, test)
    assert found[judging.OVERLAP].tolist() == [5, 5, 5]
    assert found[judging.EDIT].tolist() == [3, 3, 1]
    assert found[judging.ACCURACY].tolist() == [50, 25, 25]


def test_pair_measures_of_cells_by_hand():
    """A node with two children, a chain, and the chain with another first activation."""
    space = RecurrentSpace(num_nodes=3)
    rows = space.index(np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [1, 0, 0, 1, 0]]))
    test = np.zeros(len(space.every()))
    test[rows] = -2.25, -2, -3
    found = judging.pair_measures(space, rows, test)
    assert found[judging.OVERLAP].tolist() == [3, 2, 3]  # the first parent is no decision
    assert found[judging.EDIT].tolist() == [3, 4, 1]
    assert found[judging.ACCURACY].tolist() == [0.25, 0.75, 1]


def test_total_correlation_where_choices_differ_in_number():
    space = RecurrentSpace(num_nodes=3)
    joint = np.zeros(space.num_choices)
    joint[0, 0, 1, 0, 3] = joint[2, 0, 1, 1, 3] = 1  # two decisions that share a bit
    found = judging.policy_total_correlation(space, log_probs(joint).ravel())
    assert found == pytest.approx(np.log(2))


# Predictions.


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((60, 4))
    return embedding, embedding @ [3.0, -1.0, 0.0, 2.0], rng.standard_normal(60)


def test_predictions_of_what_is_there_and_of_noise(data):
    embedding, linear, noise = data
    ridge, nearest = judging.prediction(embedding, linear)
    assert ridge > 0.99 and 0.6 < nearest < 0.99
    assert np.all(np.abs(judging.prediction(embedding, noise)) < 4 / np.sqrt(60))


def left_out(fit, known, target):
    """Mean squared error of `fit(known, target, at)` with each row left out in turn."""
    errors = [
        fit(np.delete(known, i, 0), np.delete(target, i), known[i : i + 1])[0] - target[i]
        for i in range(len(target))
    ]
    return np.mean(np.square(errors))


def ridge_fit(ridge, centre):
    """Ridge with a free level, by its normal equations."""

    def fit(x, y, at):
        design = np.column_stack([np.ones(len(x)), x - centre])
        penalty = ridge * np.diag([0.0] + [1.0] * x.shape[1])
        return np.column_stack([np.ones(len(at)), at - centre]) @ np.linalg.solve(
            design.T @ design + penalty, design.T @ y
        )

    return fit


def nearest_fit(k):
    def fit(x, y, at):
        return np.array([y[np.argsort(np.linalg.norm(x - one, axis=1))[:k]].mean() for one in at])

    return fit


@pytest.mark.parametrize("seed", range(20))
def test_settings_are_the_best_by_leaving_one_out(seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.standard_normal((40, 6)), rng.standard_normal((5, 6))
    target = known @ rng.standard_normal(6) + 4 * rng.standard_normal(40)
    fits = [ridge_fit(ridge * 40, known.mean(axis=0)) for ridge in judging.RIDGES]
    best = min(fits, key=lambda fit: left_out(fit, known, target))
    np.testing.assert_allclose(
        judging._ridge(known, target, unknown), best(known, target, unknown), rtol=1e-6
    )
    best = min(map(nearest_fit, judging.NEIGHBOURS), key=lambda fit: left_out(fit, known, target))
    np.testing.assert_allclose(
        judging._nearest(known, target, unknown), best(known, target, unknown), rtol=1e-9
    )


def test_held_out_architectures_are_not_used():
    rng = np.random.default_rng(1)
    embedding = np.eye(50)  # says which architecture it is, and nothing of the others
    accuracy = rng.standard_normal(50)
    assert abs(judging.prediction(embedding, accuracy)[0]) < 0.6
    assert (
        judging.prediction(np.concatenate([embedding, accuracy[:, None]], axis=1), accuracy)[0]
        > 0.9
    )


# Facts.


def test_facts_by_hand():
    classes = np.maximum(np.arange(COUNT) - 1, 0)
    valid, test = np.full(COUNT, 20.0), np.full(COUNT, 20.0)
    valid[:3], test[:3] = (80, 78, 70), (60, 64, 63)
    found = facts.facts(
        tables.ScoreTable(
            SPACE, {("cifar10", "val"): valid, ("cifar10", "test"): test}, classes, POINTS
        ),
        "cifar10",
    )
    assert found["best by validation: validation"] == 80 and found["best by validation: test"] == 60
    assert (
        found["best by validation: rank on test"] == "3"
        and found["best by validation: rank of its class on test"] == "2"
    )
    assert found["best on test"] == 64 and found["best class, mean on test"] == 63
    assert found["mean, test"] == pytest.approx(20 + (40 + 44 + 43) / COUNT)
    assert found["best less fifth by validation: validation"] == 60
    assert found["within a class, all: standard deviation on test"] == pytest.approx(
        np.sqrt(8)
    )  # 60 and 64
    assert found["within a class, all: correlation of validation and test"] == pytest.approx(-1)
