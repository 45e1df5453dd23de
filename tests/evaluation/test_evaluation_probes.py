"""Linear probes: of embeddings that hold a decision, that hold none, and against ridge regression
refitted at every turn.
"""

import jax
import numpy as np
import pytest
from scipy.stats import binomtest

from nas.controllers import lstm_policy
from nas.controllers.lstm import LSTMSettings
from nas.evaluation import overlap, probes
from nas.spaces.recurrent import RecurrentSpace

SPACE = RecurrentSpace(num_nodes=4)  # choices 4, 1, 4, 2, 4, 3, 4


def random_decisions(n, seed=0):
    return np.random.default_rng(seed).integers(0, SPACE.num_choices, (n, SPACE.num_decisions))


def noise(n, width, seed=1):
    return np.random.default_rng(seed).normal(size=(n, width))


def assert_by_chance(accuracy, probability, n):
    assert binomtest(round(accuracy * n), n, probability).pvalue > 1e-3


@pytest.mark.parametrize("scale", [1, 1e-6])
def test_decisions_themselves_are_read_without_error(scale):
    decisions = random_decisions(200)
    found = probes.probe_accuracy(7 + scale * overlap.one_hot(SPACE, decisions), decisions)
    np.testing.assert_array_equal(found.accuracy, 1)
    projected = overlap.random_projection(SPACE, decisions, width=40)
    np.testing.assert_array_equal(probes.probe_accuracy(projected, decisions).accuracy, 1)


def test_what_is_encoded_is_read_and_what_is_not_is_not():
    n = 400
    decisions = random_decisions(n)
    embedding = np.concatenate([np.eye(4)[decisions[:, 2]], noise(n, 30)], axis=1)
    accuracy = probes.probe_accuracy(embedding, decisions).accuracy
    assert accuracy[1] == accuracy[2] == 1  # position 1 has one choice
    for t in (0, 3, 4, 5, 6):
        assert_by_chance(accuracy[t], 1 / SPACE.num_choices[t], n)


def test_an_embedding_that_says_nothing_falls_back_on_the_majority():
    n = 400
    decisions = random_decisions(n)
    decisions[np.random.default_rng(2).random(decisions.shape) < 0.5] = 0
    found = probes.probe_accuracy(noise(n, 40), decisions)
    np.testing.assert_allclose(found.majority, np.mean(decisions == 0, axis=0))
    for accuracy, majority in zip(*found, strict=True):
        assert_by_chance(accuracy, majority, n)


@pytest.mark.filterwarnings("error")
def test_one_state_for_all_is_the_majority():
    decisions = random_decisions(50)
    found = probes.probe_accuracy(np.full((50, 8), 3.0, np.float32), decisions)
    np.testing.assert_array_equal(found.accuracy, found.majority)


def test_the_majority_is_of_the_training_folds():
    # Each held out by itself: of two against two, the other choice is then more frequent; of three
    # against one, it never is.
    decisions = np.array([[0, 0], [0, 2], [1, 0], [1, 0]])
    assert probes.probe_accuracy(noise(4, 2), decisions, folds=4).majority.tolist() == [0, 0.75]


def refitted(embedding, decisions, folds, seed):
    """The same probe by brute force: normal equations, and a fit without each training example for
    every penalty.
    """
    order = np.random.default_rng(seed).permutation(len(decisions))
    correct = np.zeros(decisions.shape[1])
    for held_out in np.array_split(order, folds):
        train = np.setdiff1d(order, held_out)
        x = (embedding - embedding[train].mean(axis=0)) / embedding[train].std(axis=0)

        def outputs(rows, at, targets, penalty, x=x):
            design, ridge = np.insert(x[rows], 0, 1, axis=1), penalty * np.eye(x.shape[1] + 1)
            ridge[0, 0] = 0  # the intercept is free
            return np.insert(x[at], 0, 1, axis=1) @ np.linalg.solve(
                design.T @ design + ridge, design.T @ targets[rows]
            )

        for t in range(decisions.shape[1]):
            targets = np.eye(4)[decisions[:, t]]
            errors = [
                sum(
                    np.sum(
                        (outputs(train[train != i], [i], targets, len(train) * p) - targets[i]) ** 2
                    )
                    for i in train
                )
                for p in probes._PENALTIES
            ]
            chosen = outputs(
                train, held_out, targets, len(train) * probes._PENALTIES[np.argmin(errors)]
            )
            correct[t] += np.sum(chosen.argmax(axis=1) == decisions[held_out, t])
    return correct / len(decisions)


@pytest.mark.parametrize(("n", "width"), [(40, 3), (30, 12)])
def test_equals_ridge_regression_refitted_without_each_example(n, width):
    decisions = random_decisions(n)
    embedding = overlap.random_projection(SPACE, decisions, width) + 0.3 * noise(n, width)
    found = probes.probe_accuracy(embedding, decisions, folds=3, seed=4)
    np.testing.assert_allclose(found.accuracy, refitted(embedding, decisions, 3, 4))
    assert 0.3 < np.delete(found.accuracy, 1).mean() < 0.95  # neither all nor nothing


def test_more_features_than_architectures():
    decisions = random_decisions(30)
    found = probes.probe_accuracy(
        np.concatenate([noise(30, 100), 100 * np.eye(4)[decisions[:, 0]]], axis=1), decisions
    )
    assert np.isfinite(found.accuracy).all() and found.accuracy[1] == 1


def test_only_a_state_that_has_consumed_a_decision_tells_it():
    policy = lstm_policy(SPACE, LSTMSettings(width=24, init_scale=0.5))
    n = 200
    decisions = random_decisions(n).astype(np.int32)
    trace = jax.jit(policy.score)(policy.init(jax.random.key(0)), decisions)
    before, after = (
        probes.probe_accuracy(trace.embedding(reading), decisions).accuracy
        for reading in ("before", "after")
    )
    assert after[-1] == 1 and before[-2] == 1
    assert_by_chance(before[-1], 1 / 4, n)
