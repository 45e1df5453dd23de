"""Image networks of one fixed architecture, and baselines with as many parameters.

An architecture alone is the searched network, with the rows of its weights that it uses: it
computes by the same functions, from decisions that are constants.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nas.data.images import Images
from nas.spaces import SearchSpace
from nas.supernets.images.augmentation import augment, standardise
from nas.supernets.images.baselines import MODULES
from nas.supernets.images.settings import ClassifierSettings
from nas.supernets.images.wiring import ImageShape, Wiring, cross_entropy, decays, dropout_mask
from nas.types import Array, Model, Params

BASELINES = tuple(MODULES)
_SAMPLES = 64  # architectures whose mean number of parameters the baselines have


def build(
    wiring: Wiring,
    config: ClassifierSettings,
    shape: ImageShape,
    space: SearchSpace,
    architecture: str,
) -> Model:
    """The network of a decision vector's text form, or a baseline.

    A baseline has about as many parameters as architectures of the space have on average.

    Raises:
      UserError: neither a baseline nor decisions of the space.
    """
    if architecture not in BASELINES:
        return network(wiring, config, space.parse(architecture))
    drawn = np.asarray(space.sample_uniform(jax.random.key(0), _SAMPLES))
    wanted = np.mean([num_parameters(wiring, decisions) for decisions in drawn])
    return baseline(config, shape, architecture, wanted)


def network(wiring: Wiring, config: ClassifierSettings, decisions: np.ndarray) -> Model:
    """One architecture [T]; its parameters: path in the tree of weights -> rows in use."""

    def init(key: Array) -> dict[str, Array]:
        return from_shared(wiring, wiring.init(key), decisions)

    def loss(params: dict[str, Array], images: Array, labels: Array, key: Array | None):
        used = _with_rows(wiring, params, decisions)
        mask = dropout_mask(config.dropout, key, len(labels), used)
        return wiring.loss(used, jnp.asarray(decisions), images, labels, mask)

    return _model(config, init, loss, config.channels)


def from_shared(wiring: Wiring, params: Params, decisions: np.ndarray) -> dict[str, Array]:
    """The parameters of `network` that are an architecture's part of shared weights."""
    found = {}
    use = wiring.use(jnp.asarray(decisions))
    leaves = jax.tree.leaves(wiring.gather(params, use))
    for (path, rows), leaf in zip(_active_rows(wiring, decisions), leaves, strict=True):
        if rows is None or len(rows):
            found[path] = leaf if rows is None else leaf[rows]
    return found


def num_parameters(wiring: Wiring, decisions: np.ndarray) -> int:
    """How many numbers an architecture [T] learns."""
    shapes = jax.eval_shape(
        lambda key: from_shared(wiring, wiring.init(key), decisions), jax.random.key(0)
    )
    return sum(math.prod(leaf.shape) for leaf in shapes.values())


def baseline(config: ClassifierSettings, shape: ImageShape, name: str, wanted: float) -> Model:
    """A baseline of the width at which it comes nearest to `wanted` parameters."""
    image = jnp.zeros((1, shape.size, shape.size, shape.channels))

    def module(width):
        return MODULES[name](width, shape.classes)

    def count(width):
        found = jax.eval_shape(module(width).init, jax.random.key(0), image)["params"]
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))

    width = 1
    while count(width + 1) < wanted:
        width += 1
    width = min((width, width + 1), key=lambda width: abs(count(width) - wanted))
    made = module(width)

    def init(key: Array) -> Params:
        return made.init(key, image)["params"]

    def loss(params: Params, images: Array, labels: Array, key: Array | None):
        del key  # neither has dropout
        logits, _ = made.apply({"params": params}, images, mutable=["batch_stats"])
        return cross_entropy(logits, labels)

    return _model(config, init, loss, width)


def _model(config: ClassifierSettings, init, judge: Callable, width: int) -> Model:
    """judge: (params, images float32, labels, key or None) -> cross-entropy, accuracy."""

    def loss(params: Params, batch: Images, carry: tuple, key: Array | None):
        images, of_dropout = batch.image, None
        if key is not None:
            of_images, of_dropout = jax.random.split(key)
            images = augment(config, of_images, images)
        value, _ = judge(params, standardise(images), batch.label, of_dropout)
        return value, carry

    def judged(params: Params, batches: Images) -> tuple[Array, Array]:
        def one(batch):
            return judge(params, standardise(batch.image), batch.label, None)

        losses, accuracies = jax.lax.map(one, batches)
        return jnp.mean(losses), jnp.mean(accuracies)

    return Model(
        init=init,
        initial_carry=lambda rows: (),
        loss=loss,
        evaluate=lambda params, batches: judged(params, batches)[0],
        width=width,
        reward=lambda params, batches: judged(params, batches)[1],
        decays=decays,
    )


def _active_rows(wiring, decisions):
    """(path, rows of the used weights that are really used; None: the array as it is) of every
    array.
    """
    with jax.ensure_compile_time_eval():
        use = wiring.use(jnp.asarray(decisions))
        template = jax.eval_shape(wiring.init, jax.random.key(0))
        paths = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree_util.tree_leaves_with_path(template)
        ]
        uses = jax.tree.leaves(use, is_leaf=lambda node: hasattr(node, "active"))
        rows = [
            None if np.ndim(of.active) == 0 else np.flatnonzero(np.asarray(of.active))
            for of in uses
        ]
    return list(zip(paths, rows, strict=True))


def _with_rows(wiring, params, decisions):
    """The used weights with `params` where they are in use, and zeros elsewhere."""

    def shape(key):
        return wiring.gather(wiring.init(key), wiring.use(jnp.asarray(decisions)))

    template = jax.eval_shape(shape, jax.random.key(0))
    leaves = []
    for (path, rows), leaf in zip(
        _active_rows(wiring, decisions), jax.tree.leaves(template), strict=True
    ):
        if rows is None:
            leaves.append(params[path])
        else:
            zeros = jnp.zeros(leaf.shape, leaf.dtype)
            leaves.append(zeros.at[rows].set(params[path]) if len(rows) else zeros)
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
