"""The presets on their own text."""

import runpy

import numpy as np
import pytest

from launch import configuration
from nas import config as configs
from nas import steps, tasks
from nas.parallel import choose_devices
from nas.supernets.recurrent.language_model import supernet_reward


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_deferred_gradients_train_kjv_quick_like_plain_ones(seed):
    """The losses of its first 100 shared steps, in the precision in which it runs."""
    preset = runpy.run_path(str(configuration.FOLDER / "kjv_quick.py"))["get_config"]()
    config = configs.from_dict(preset.to_dict() | {"seed": seed})
    task = steps.components(config).task
    train, rows = task.data.load().train, task.data.batch
    devices, losses = choose_devices("jit"), {}
    for deferred in (True, False):
        parts = steps.components(config)
        reward = supernet_reward(task.space, task.network, task.data.vocabulary, deferred=deferred)
        parts = parts._replace(reward=reward)
        chunk = devices.lift(steps.shared_chunk(config, parts))
        state, carry = steps.initial_state(config, parts), parts.reward.initial_carry(rows)
        _, _, (info, _) = chunk(
            state, carry, train.take(0, 100), (np.arange(100, dtype=np.int32), np.int32(0))
        )
        losses[deferred] = info["loss"]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0, atol=1e-4)
    assert (
        np.median(losses[True][-10:]) < losses[True][0] - 1
    )  # training, though some cells still diverge


@pytest.mark.parametrize("name", configuration.names())
def test_what_a_study_trains_beside_architectures_are_baselines(name):
    config = configuration.ConfigParser(name).parse(name).to_dict()
    network = tasks.build(configs.from_dict(config)).network
    assert network.compared and set(network.compared) <= set(network.baselines)
