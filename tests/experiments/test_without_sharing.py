"""Search without shared weights: successive halving spends what it may and keeps the best; cells
are trained as alone.
"""

import jax
import numpy as np
import pytest

from experiments.search import without_sharing
from experiments.search.without_sharing import first_rung, successive_halving
from nas import tasks, training
from nas.arrays import load_arrays
from tests.helpers import tiny


@pytest.mark.parametrize(("count", "budget"), [(16, 2733), (5, 100), (2, 1)])
def test_steps_within_the_budget(count, budget):
    taken = np.zeros(count, int)

    def advance(candidate, end):
        assert end > taken[candidate]
        taken[candidate] = end
        return 10.0 - candidate

    unit = first_rung(count, budget)
    steps, losses = successive_halving(count, unit, advance)
    np.testing.assert_array_equal(steps, taken)
    assert steps.sum() <= max(budget, 5) and unit * (count + 40) > budget * 0.9
    assert (
        steps.argmax() == count - 1 and np.sum(steps == steps.max()) == 1
    )  # the lowest loss, alone at the end
    np.testing.assert_array_equal(losses, 10.0 - np.arange(count))


def test_the_first_rungs_of_sixteen():
    calls = []
    losses = {1: [3.0, np.nan, 1.0, 2.0] * 4, 4: [9.0] * 16, 16: [9.0] * 16}
    losses[4][6] = 5.0

    def advance(candidate, end):
        calls.append((candidate, end))
        return losses[end][candidate]

    steps, _ = successive_halving(16, 1, advance)
    assert calls[:16] == [(i, 1) for i in range(16)]
    assert sorted(calls[16:20]) == [(2, 4), (6, 4), (10, 4), (14, 4)] and calls[20:] == [(6, 16)]
    assert steps[6] == 16 and steps.sum() == 12 + 3 * 4 + 16


def test_a_cell_is_trained_as_alone(tmp_path):
    """The one that lasts has the loss of training it alone for as long, in one piece."""
    config = tiny(seed=3)
    path = tmp_path / "halving" / "seed.npz"
    options = {"data_dir": str(tmp_path)}
    without_sharing._halve(path, config, 2, **options)
    found = load_arrays(path)
    _, space, data, network = tasks.build(config)
    splits = data.load(**options)
    model = network.model(space, data, space.format(found["decisions"][0]))
    chunk = training.train_chunk(
        model, clip=config.training.clip, weight_decay=config.training.weight_decay
    )
    state, carry = training.initial_state(model, 3), model.initial_carry(data.batch)
    steps, rate = (
        np.arange(found["steps"][0], dtype=np.int32),
        np.float32(config.training.learning_rate),
    )
    state, _, _ = chunk(
        state, carry, splits.train.take(0, len(steps)), np.uint32(3), steps, rate, np.bool_(False)
    )
    expected = jax.jit(model.evaluate)(state.params, splits.valid.head(config.evaluation.examples))
    np.testing.assert_allclose(found["loss"][0], np.asarray(expected), rtol=1e-5)
    assert found["steps"][0] == 4 * found["steps"][1] and found["seconds"] > 0
