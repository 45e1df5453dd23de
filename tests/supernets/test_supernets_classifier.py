"""Steps of the image networks: which weights move, by how much, on one device and on several."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.data.images import Images
from nas.parallel import Devices
from nas.spaces.macro import MacroSpace
from nas.spaces.micro import MicroSpace
from nas.supernets.images import augmentation, classifier
from nas.supernets.images.macro import MacroNetwork
from nas.supernets.images.micro import MicroNetwork
from nas.supernets.images.wiring import ImageShape

SETTINGS = {
    "learning_rate": 0.1,
    "learning_rate_min": 0.02,
    "cosine_epochs": 4,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "clip": 1e6,
    "dropout": 0.0,
    "crop": 0,
    "flip": False,
    "cutout": 0,
}
SHAPE = ImageShape(size=8, channels=1, classes=3)
ROWS = 8
NETWORKS = {
    "macro": (MacroSpace(layers=3), MacroNetwork(channels=4, **SETTINGS)),
    "micro": (MicroSpace(blocks=2), MicroNetwork(channels=2, cells=1, **SETTINGS)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def wiring_of(name):
    space, network = NETWORKS[name]
    return network.wiring(space, SHAPE)


def reward_of(name, **changes):
    return classifier.supernet_reward(
        wiring_of(name), dataclasses.replace(NETWORKS[name][1], **changes)
    )


def batch_of(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (rows, SHAPE.size, SHAPE.size, 1)).astype(np.uint8)
    return Images(pixels, rng.integers(0, SHAPE.classes, rows).astype(np.int32))


def decisions_of(name, n, seed=0):
    space, rng = NETWORKS[name][0], np.random.default_rng(seed)
    return rng.integers(0, space.num_choices, (n, space.num_decisions), np.int32)


@functools.cache
def trained(name):
    """A state after three steps, all of whose weights have a momentum."""
    reward = reward_of(name)
    state = jax.jit(reward.init)(jax.random.key(0))
    rng = np.random.default_rng(3)
    velocity = jax.tree.map(
        lambda leaf: 0.01 * rng.normal(size=leaf.shape).astype(np.float32), state.params
    )
    return state.replace(velocity=velocity)


def step(name, state, decisions, batch, epoch=0, **changes):
    train = jax.jit(reward_of(name, **changes).train)
    state, _, info = train(state, (), decisions, batch, jax.random.key(1), jnp.int32(epoch))
    return state, info


def gradient_of(name, params, decisions, batch):
    """Of all shared weights."""
    wiring = wiring_of(name)

    def loss(params):
        used = wiring.gather(params, wiring.use(jnp.asarray(decisions)))
        mask = jnp.ones((len(batch.label), used.head.shape[0]))
        images = augmentation.standardise(jnp.asarray(batch.image))
        return wiring.loss(used, jnp.asarray(decisions), images, jnp.asarray(batch.label), mask)[0]

    return jax.jit(jax.grad(loss))(params)


def moves(name, params, decisions):
    """Which of all shared weights an architecture moves."""
    wiring = wiring_of(name)
    use = wiring.use(jnp.asarray(decisions))
    active = wiring.active(use, wiring.gather(params, use))
    return jax.tree.map(np.asarray, wiring.spread(jax.tree.map(_nothing, params), use, active))


def _nothing(leaf):
    return jnp.zeros(leaf.shape, bool)


def expected(state, gradient, moved, rate, decay):
    """Nesterov's step of the weights that move, in numpy."""

    def one(path, w, v, g, moved):
        is_norm = path[-1].name in ("scale", "offset")
        direction = g + (0.0 if is_norm else decay) * w
        faster = 0.9 * v + direction
        return np.where(moved, w - rate * (direction + 0.9 * faster), w)

    return jax.tree_util.tree_map_with_path(one, state.params, state.velocity, gradient, moved)


def assert_close(found, wanted, atol=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


@every_network
def test_a_step_is_nesterovs_of_the_weights_in_use_and_no_other_moves(name):
    state, batch = trained(name), batch_of()
    for decisions in decisions_of(name, 4):
        moved = moves(name, state.params, decisions)
        gradient = gradient_of(name, state.params, decisions, batch)
        after, info = step(name, state, decisions, batch)
        assert_close(after.params, expected(state, gradient, moved, 0.1, 0.01))
        assert info["skipped"] == 0
        for old, new, mask in zip(
            jax.tree.leaves((state.params, state.velocity)),
            jax.tree.leaves((after.params, after.velocity)),
            jax.tree.leaves((moved, moved)),
            strict=True,
        ):
            assert np.array_equal(np.asarray(old)[~mask], np.asarray(new)[~mask])
        count = [float(np.mean(mask)) for mask in jax.tree.leaves(moved)]
        assert min(count) < 1  # something rests


@every_network
@pytest.mark.parametrize("number", [1, 2, 4])
def test_devices_average_the_gradients_of_their_own_architectures(name, number):
    state, batch, devices = trained(name), batch_of(), Devices("pmap", number, number)
    own = decisions_of(name, number, seed=5)
    reward, rows = reward_of(name), ROWS // number

    def fn(state, carry, batch, common, axis_name):
        decisions = common[jax.lax.axis_index(axis_name)]
        one = jax.tree.map(lambda leaf: leaf[0], batch)
        state, _, info = reward.train(
            state, (), decisions, one, jax.random.key(1), jnp.int32(0), axis_name
        )
        return state, carry, info

    stacked = Images(*(leaf[None] for leaf in batch))
    after, _, _ = devices.lift(fn)(devices.replicate(state), (), stacked, own)
    devices.check_replicas(after)
    gradients, masks = [], []
    for i, decisions in enumerate(own):
        share = Images(*(leaf[i * rows : (i + 1) * rows] for leaf in batch))
        gradients.append(gradient_of(name, state.params, decisions, share))
        masks.append(moves(name, state.params, decisions))
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *gradients)
    any_moves = jax.tree.map(lambda *leaves: np.any(leaves, axis=0), *masks)
    assert_close(devices.first(after).params, expected(state, mean, any_moves, 0.1, 0.01))


@every_network
def test_the_gradient_is_clipped_by_its_norm(name):
    state, batch, (decisions,) = trained(name), batch_of(), decisions_of(name, 1)
    still = state.replace(velocity=jax.tree.map(np.zeros_like, state.velocity))
    free, info = step(name, still, decisions, batch, weight_decay=0.0)
    tight, _ = step(name, still, decisions, batch, weight_decay=0.0, clip=0.5)
    assert info["gradient_norm"] > 0.5
    shrunk = jax.tree.map(
        lambda w, f: w + (f - w) * (0.5 / info["gradient_norm"]), still.params, free.params
    )
    assert_close(tight.params, shrunk)


@every_network
def test_an_update_that_is_not_finite_is_dropped_and_counted(name):
    state, (decisions,) = trained(name), decisions_of(name, 1)
    broken = state.params._replace(head=np.full_like(state.params.head, np.nan))
    after, info = step(name, state.replace(params=broken), decisions, batch_of())
    assert info["skipped"] == 1
    for old, new in zip(jax.tree.leaves(broken), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_rate_falls_on_a_cosine_and_stays():
    settings = NETWORKS["macro"][1]
    rates = [float(classifier.learning_rate(settings, jnp.float32(e))) for e in range(7)]
    assert rates[:5] == pytest.approx([0.1, 0.0882843, 0.06, 0.0317157, 0.02])
    assert rates[5:] == pytest.approx([0.02, 0.02])


@every_network
def test_rewards_are_accuracies_and_losses_cross_entropies(name):
    state, reward = trained(name), reward_of(name)
    decisions, batches = decisions_of(name, 3), [batch_of(seed=s) for s in (1, 2)]
    stacked = Images(*(np.stack(leaves) for leaves in zip(*batches, strict=True)))
    losses = jax.jit(reward.evaluate)(state, decisions, stacked)
    rewards = [jax.jit(reward.score)(state, decisions, batch) for batch in batches]
    assert losses.shape == (3,) and np.all(np.asarray(losses) > 0)
    for i, of in enumerate(decisions):
        alone = [jax.jit(reward.evaluate)(state, of[None], _stack(batch)) for batch in batches]
        np.testing.assert_allclose(losses[i], np.mean(alone), rtol=1e-5)
    for of in rewards:
        counts = np.asarray(of) * ROWS
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-5)


def _stack(batch):
    return Images(*(leaf[None] for leaf in batch))


def test_training_images_are_shifted_mirrored_and_blanked():
    image = np.arange(1, 37, dtype=np.uint8).reshape(1, 6, 6, 1)
    images = np.repeat(image, 200, axis=0)

    def augmented(**changes):
        settings = dataclasses.replace(NETWORKS["macro"][1], **changes)
        return np.asarray(augmentation.augment(settings, jax.random.key(0), jnp.asarray(images)))

    np.testing.assert_array_equal(augmented(), images)
    flipped = augmented(flip=True)
    turned = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (flipped == images).all(axis=(1, 2, 3))
    assert np.all(turned ^ same) and 60 < turned.sum() < 140
    padded = np.pad(image[0], ((2, 2), (2, 2), (0, 0)))
    shifts = {padded[r : r + 6, c : c + 6].tobytes() for r in range(5) for c in range(5)}
    assert {of.tobytes() for of in augmented(crop=2)} == shifts  # every one, and no other
    blanked = (augmented(cutout=3) == 0).sum(axis=(1, 2, 3))
    assert blanked.max() == 9 and blanked.min() == 4  # at a corner a quarter remains
