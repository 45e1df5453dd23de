"""One architecture alone is the shared network with the shared weights that it uses; baselines are
of its size.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.data.images import Images
from nas.errors import UserError
from nas.supernets.images import alone
from nas.supernets.images.augmentation import standardise
from nas.supernets.images.baselines import MODULES
from nas.training import num_parameters
from tests.supernets.test_supernets_classifier import (
    NETWORKS,
    SHAPE,
    batch_of,
    decisions_of,
    every_network,
    reward_of,
    trained,
    wiring_of,
)


@functools.cache
def shared_loss(name):
    wiring = wiring_of(name)

    @jax.jit
    def loss(params, decisions, batch):
        used = wiring.gather(params, wiring.use(decisions))
        mask = jnp.ones((len(batch.label), used.head.shape[0]))
        return wiring.loss(used, decisions, standardise(batch.image), batch.label, mask)

    return loss


@every_network
def test_twenty_architectures_are_the_shared_network(name):
    params, batch = trained(name).params, batch_of()
    for decisions in decisions_of(name, 20):
        model = alone.network(wiring_of(name), NETWORKS[name][1], decisions)
        own = alone.from_shared(wiring_of(name), params, decisions)
        wanted, accuracy = shared_loss(name)(params, decisions, batch)
        found, _ = model.loss(own, batch, (), None)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        stacked = Images(*(leaf[None] for leaf in batch))
        np.testing.assert_allclose(model.evaluate(own, stacked), wanted, rtol=0, atol=1e-4)
        np.testing.assert_allclose(model.reward(own, stacked), accuracy)


def test_a_macro_network_has_only_its_own_weights():
    """Three layers of four channels: conv_3x3, sep_5x5 and a pool, of which layer 2 skips to the
    stem; the reductions after layers 0 and 1 are of two and of two of three.
    """
    wiring, config = wiring_of("macro"), NETWORKS["macro"][1]
    model = alone.network(wiring, config, np.array([0, 3, 0, 4, 1, 0], np.int32))
    norm, square = 8, 16
    stem = 9 * 4 + norm
    around = 3 * (square + norm + norm)  # enter, its norm and that of the join
    conv, sep = 9 * square + norm, 25 * 4 + square + norm
    reduction = square + norm
    found = {
        path: leaf.shape for path, leaf in jax.eval_shape(model.init, jax.random.key(0)).items()
    }
    assert "conv_5x5" not in found and found["conv_3x3"] == (1, 3, 3, 4, 4)
    assert num_parameters(model) == stem + around + conv + sep + 4 * reduction + 4 * 3


@every_network
def test_what_an_architecture_does_not_use_has_no_gradient(name):
    batch = batch_of()
    for decisions in decisions_of(name, 5):
        model = alone.network(wiring_of(name), NETWORKS[name][1], decisions)
        params = model.init(jax.random.key(0))
        gradient = jax.grad(lambda p: model.loss(p, batch, (), None)[0])(params)  # noqa: B023
        assert set(gradient) == set(params)
        dead = [path for path, leaf in gradient.items() if not np.any(leaf)]
        # An offset may only shift what the next normalisation centres.
        assert all(path.endswith("offset") for path in dead), dead


@every_network
@pytest.mark.parametrize("baseline", alone.BASELINES)
def test_no_other_width_of_a_baseline_comes_nearer_in_parameters(name, baseline):
    space, network = NETWORKS[name]
    model = alone.build(wiring_of(name), network, SHAPE, space, baseline)
    drawn = np.asarray(space.sample_uniform(jax.random.key(0), 64))
    wanted = np.mean([alone.num_parameters(wiring_of(name), of) for of in drawn])

    def missed(width):
        module = MODULES[baseline](width, SHAPE.classes)
        image = jnp.zeros((1, SHAPE.size, SHAPE.size, SHAPE.channels))
        params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
        return abs(sum(leaf.size for leaf in jax.tree.leaves(params)) - wanted)

    assert min(range(1, model.width + 3), key=missed) == model.width
    loss, _ = jax.jit(model.loss)(model.init(jax.random.key(1)), batch_of(), (), None)
    assert np.isfinite(loss)


def test_neither_decisions_nor_a_baseline():
    space, network = NETWORKS["macro"]
    with pytest.raises(UserError, match="position 0: 'lstm' is not a whole number"):
        alone.build(wiring_of("macro"), network, SHAPE, space, "lstm")


def test_it_learns():
    """Which of three columns is bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 64).astype(np.int32)
    pixels = rng.integers(0, 40, (64, 8, 8, 1)).astype(np.uint8)
    pixels[np.arange(64), :, 1 + 2 * labels] += 120
    batch = Images(pixels, labels)
    state, reward = trained("macro"), reward_of("macro", learning_rate=0.05)
    train = jax.jit(reward.train)
    (decisions,) = decisions_of("macro", 1)
    losses = []
    for i in range(40):
        state, _, info = train(state, (), decisions, batch, jax.random.key(i), jnp.int32(0))
        losses.append(float(info["loss"]))
    assert losses[-1] < 0.3 < losses[0]
