"""Both image networks, in XLA and in C++, against the same written down in numpy."""

import functools
import os
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.spaces.macro import MacroSpace
from nas.spaces.micro import MicroSpace
from nas.supernets.images import native_networks
from nas.supernets.images.macro import MacroNetwork
from nas.supernets.images.micro import MicroNetwork
from nas.supernets.images.wiring import ImageShape, cross_entropy
from tests.supernets import numpy_images

SETTINGS = {
    "learning_rate": 0.05,
    "learning_rate_min": 0.0,
    "cosine_epochs": 4,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "clip": 5.0,
    "dropout": 0.0,
    "crop": 0,
    "flip": False,
    "cutout": 0,
}
# Heights are odd after a reduction, widths fill no vector, and the micro network has all kinds of
# cells.
SHAPE = ImageShape(size=10, channels=3, classes=5)
LAYERS, BLOCKS, CELLS, CHANNELS, ROWS = 6, 5, 3, 6, 5
NETWORKS = {
    "macro": (MacroSpace(layers=LAYERS), MacroNetwork(channels=CHANNELS, **SETTINGS)),
    "micro": (MicroSpace(blocks=BLOCKS), MicroNetwork(channels=4, cells=CELLS, **SETTINGS)),
}
FORMS = ("xla", "native")


@functools.cache
def network(name):
    """The wiring of a network, its space, and shared weights all of which do something."""
    space, settings = NETWORKS[name]
    wiring = settings.wiring(space, SHAPE)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (leaf + 0.1 * rng.normal(size=leaf.shape)).astype(np.float32),
        wiring.init(jax.random.key(0)),
    )
    return wiring, space, params


@functools.cache
def images():
    rng = np.random.default_rng(1)
    size = (ROWS, SHAPE.size, SHAPE.size, SHAPE.channels)
    return rng.normal(size=size), rng.integers(0, 5, ROWS).astype(np.int32)


def need_compiler(form, dtype="float32"):
    if form == "native" and not native_networks.available(dtype):
        pytest.skip("there is no compiler")


@functools.cache
def judge(name, form):
    """(shared weights, decisions) -> (loss, accuracy), gradient of the weights in use; in the
    precision of the weights.
    """
    wiring, _, _ = network(name)

    def loss(used, decisions):
        pixels, labels = images()
        pixels = jnp.asarray(pixels, used.head.dtype)
        mask = jnp.ones((ROWS, used.head.shape[0]), used.head.dtype)
        if form == "native":
            program = wiring.program(decisions)
            return native_networks.loss(wiring.name, used, program, pixels, labels, mask)
        return cross_entropy(wiring.features(used, decisions, pixels) @ used.head, labels)

    @jax.jit
    def both(params, decisions):
        used = wiring.gather(params, wiring.use(decisions))
        return jax.value_and_grad(loss, has_aux=True)(used, decisions)

    return both


def drawn(name, n=20, seed=0):
    _, space, _ = network(name)
    return np.random.default_rng(seed).integers(
        0, space.num_choices, (n, space.num_decisions), np.int32
    )


def exact(params):
    """In double precision."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def _moved(far, x, direction):
    return x + far * direction


def plain_loss(name, params, decisions):
    """And the logits."""
    pixels, labels = images()
    if name == "macro":
        logits = numpy_images.macro_logits(params, decisions, pixels, LAYERS)
    else:
        logits = numpy_images.micro_logits(params, decisions, pixels, BLOCKS, CELLS)
    return numpy_images.cross_entropy(logits, labels), logits


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
def test_losses_are_those_of_numpy(name, form):
    need_compiler(form)
    _, _, params = network(name)
    for decisions in drawn(name):
        wanted, logits = plain_loss(name, exact(params), decisions)
        (found, accuracy), _ = judge(name, form)(params, decisions)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        assert accuracy == pytest.approx(np.mean(logits.argmax(axis=1) == images()[1]))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_the_slopes_of_numpys_loss(name, form):
    """Along random directions through all weights in use: a wrong one anywhere would turn them.

    In double precision: in single precision a pixel may be on the other side of a kink.
    """
    wiring, _, params = network(name)
    params, rng, step = exact(params), np.random.default_rng(2), 1e-7
    with jax.enable_x64(True):
        need_compiler(form, "float64")
        for decisions in drawn(name, seed=1):
            direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
            ends = []
            for far in (step, -step):
                moved = jax.tree.map(functools.partial(_moved, far), params, direction)
                ends.append(plain_loss(name, moved, decisions)[0])
            slope = (ends[0] - ends[1]) / (2 * step)
            _, gradient = judge(name, form)(params, decisions)
            along = wiring.gather(direction, wiring.use(jnp.asarray(decisions)))
            parts = jax.tree.map(np.vdot, gradient, along)
            length = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
            assert abs(sum(jax.tree.leaves(parts)) - slope) < 1e-5 * length


@pytest.mark.parametrize("name", NETWORKS)
def test_both_forms_have_the_same_gradients(name):
    """Of every weight, in double precision; and nearly so in single precision."""
    _, _, params = network(name)
    for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-4)):
        with jax.enable_x64(dtype == "float64"):
            need_compiler("native", dtype)
            errors, own = [], jax.tree.map(lambda leaf: leaf.astype(dtype), params)  # noqa: B023
            for decisions in drawn(name, seed=2):
                _, wanted = judge(name, "xla")(own, decisions)
                _, found = judge(name, "native")(own, decisions)
                largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
                pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
                errors.append(max(float(jnp.abs(a - b).max()) for a, b in pairs) / largest)
        # Rounding may put a pixel on the other side of a kink, in few architectures.
        assert (max(errors) if dtype == "float64" else np.median(errors)) < tolerance


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
def test_one_compilation_serves_every_architecture(name, form):
    need_compiler(form)
    traced = judge(name, form).__wrapped__
    run = jax.jit(lambda *arguments: traced(*arguments))
    for decisions in drawn(name, 50, seed=3):
        run(network(name)[2], decisions)
    assert run._cache_size() == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_not_active_has_no_gradient_and_the_rest_has(name):
    wiring, _, params = network(name)
    seen = None
    for decisions in drawn(name):
        _, gradient = judge(name, "xla")(params, decisions)
        active = wiring.active(wiring.use(decisions), gradient)
        for leaf, mask in zip(jax.tree.leaves(gradient), jax.tree.leaves(active), strict=True):
            assert not np.any(np.asarray(leaf)[~np.broadcast_to(mask, leaf.shape)])
        moved = [bool(np.any(leaf)) for leaf in jax.tree.leaves(gradient)]
        seen = moved if seen is None else np.logical_or(seen, moved)
    assert np.all(seen)  # of every array something has a gradient in some architecture


@pytest.mark.parametrize("name", NETWORKS)
def test_the_tape_adds_up_over_threads_as_over_images(name):
    """Batches of one image more or less than there are threads."""
    if not native_networks.available():
        pytest.skip("there is no compiler")
    wiring, _, params = network(name)
    pixels, labels = images()
    (decisions,) = drawn(name, 1)
    used = wiring.gather(params, wiring.use(decisions))
    for rows in (1, 2, 3):
        mask = jnp.ones((rows, used.head.shape[0]))
        own = jnp.asarray(pixels[:rows], jnp.float32)
        arguments = own, jnp.asarray(labels[:rows]), mask
        found, _ = jax.jit(wiring.loss)(used, decisions, *arguments)
        features = wiring.features(used, jnp.asarray(decisions), arguments[0])
        wanted, _ = cross_entropy(features @ used.head, arguments[1])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def test_multiply_adds_by_hand():
    """Three layers of four channels on 8 x 8, 4 x 4 and 2 x 2 pixels: conv_3x3, sep_5x5 and a pool;
    reductions of two and of three stored tensors.
    """
    space, settings = MacroSpace(layers=3), MacroNetwork(channels=4, **SETTINGS)
    wiring = settings.wiring(space, ImageShape(size=8, channels=3, classes=10))
    layers = 64 * (16 + 9 * 16), 16 * (16 + (25 + 4) * 4), 4 * (16 + 9 * 4)
    around = 64 * 9 * 3 * 4 + 2 * 16 * 16 + 3 * 4 * 16 + 4 * 10
    assert wiring.multiply_adds(np.array([0, 3, 0, 4, 0, 0])) == sum(layers) + around


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of another kind")
@pytest.mark.parametrize("march", ["x86-64", "x86-64-v3"])
def test_shorter_vectors_compute_the_same(march, tmp_path):
    """In a process of its own: a name is registered once in one."""
    program = (
        "import pytest; from nas.supernets import native; native._OPTIONS = tuple("
        f"'-march={march}' if of == '-march=native' else of for of in native._OPTIONS)\n"
        f"raise SystemExit(pytest.main(['-q', '-k', 'losses or same_gradients', {__file__!r}]))"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()
