"""The isomorph test on weights for which the answer is known."""

import math
import pathlib

import jax
import numpy as np
import pytest

from experiments import isomorphs
from nas import runs, steps
from tests.helpers import recurrent_task, splits_of, tiny

pytestmark = pytest.mark.usefixtures("compiled_once")

CONFIG = tiny(
    space={"num_nodes": 6}, network={"init_scale": 0.4}, evaluation={"examples": 0}
)  # larger weights would amplify rounding
VOCABULARY = CONFIG.data["vocabulary"]


def run_with(recurrent):
    """A search before its first step whose recurrent matrices are replaced by a function of
    them.
    """
    parts, rng = steps.components(CONFIG), np.random.default_rng(0)
    state = jax.jit(lambda: steps.initial_state(CONFIG, parts))()
    params = state.reward.params
    state = state.replace(
        reward=state.reward.replace(
            params=params | {"recurrent": recurrent(np.asarray(params["recurrent"]))}
        )
    )
    run = runs.Run(
        pathlib.Path("run"), CONFIG, {}, parts.task, parts.policy, parts.reward, state, {}
    )
    train, valid = (rng.integers(0, VOCABULARY, length, dtype=np.int32) for length in (200, 600))
    vars(run)["splits"] = splits_of(CONFIG, train, valid)
    return run


def metric(types):
    """That of a vocabulary of so many types."""
    return recurrent_task(3).metric._replace(guessing=math.log(types))


def shares(measured):
    return [row.cells[-1] for row in isomorphs.table(measured, metric(math.inf), "").rows]


def test_without_sharing_copies_are_the_same():
    """All edges have one matrix: what a cell's nodes are called changes nothing, and nothing is
    artefact.
    """
    run = run_with(
        lambda matrices: np.concatenate(
            [matrices[:1], np.repeat(matrices[1:2], len(matrices) - 1, axis=0)]
        )
    )
    measured = isomorphs.measure(run, cells=12, copies=3, seed=0)
    for values in measured.values():
        np.testing.assert_allclose(values, np.broadcast_to(values[:, :1], values.shape), rtol=1e-5)
        assert values[:, 0].std() > 1e-3
    assert shares(measured) == ["0.000 [0.000, 0.000]"] * 2


def test_with_sharing_copies_differ():
    measured = isomorphs.measure(run_with(np.asarray), cells=12, copies=3, seed=0)
    for values, share in zip(measured.values(), shares(measured), strict=True):
        assert values.shape[1] == 3 and 2 <= len(values) <= 12
        assert np.ptp(values, axis=1).min() > 1e-4 and 0.01 < float(share.split()[0]) <= 1
    again = isomorphs.measure(run_with(np.asarray), cells=12, copies=3, seed=0)
    other = isomorphs.measure(run_with(np.asarray), cells=12, copies=3, seed=1)
    for name, values in measured.items():
        np.testing.assert_array_equal(again[name], values)
        assert not np.array_equal(other[name], values)


def test_diverged_cells_are_shown_apart():
    values = np.random.default_rng(0).normal(1, 0.1, (5, 2))
    spoilt = values.copy()
    spoilt[1, 1], spoilt[3, 0] = np.log(10) + 1e-6, np.nan
    rows = [row.cells for row in isomorphs.table({"a": values, "b": spoilt}, metric(10), "").rows]
    assert [row[:2] for row in rows] == [["a", 5], ["b", 5], ["b, none diverged", 3]]
    assert rows[1][-1] == "undefined" and rows[2][-1] != "undefined"
    assert [row.cells[1] for row in isomorphs.table({"b": spoilt[1:4]}, metric(10), "").rows] == [
        3,
        1,
    ]


def test_cells_without_copies_are_left_out():
    measured = isomorphs.measure(run_with(np.asarray), cells=2, copies=100, seed=0)
    assert [values.shape for values in measured.values()] == [(0, 100)] * 2
    assert "too few cells" in isomorphs.table(measured, metric(10), "").text()
