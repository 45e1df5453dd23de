"""Image networks of one fixed architecture, and baselines with as many parameters.

An architecture alone is the searched network with only those rows of the weights that it uses: the
same functions compute it, from decisions that are constants.
"""

import bisect
import functools
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
from nas.supernets.images.wiring import (
    ImageShape,
    Use,
    Wiring,
    cross_entropy,
    decays,
    dropout_mask,
)
from nas.types import Array, Model, Params

BASELINES = tuple(MODULES)
_SAMPLES = 64  # architectures whose mean number of parameters the baselines should have


def build(
    wiring: Wiring,
    config: ClassifierSettings,
    shape: ImageShape,
    space: SearchSpace,
    architecture: str,
) -> Model:
    """The network of decisions given as text, or a baseline.

    A baseline has about as many parameters as architectures of the space have on average.

    Raises:
      UserError: `architecture` is neither a baseline nor decisions of the space.
    """
    if architecture not in BASELINES:
        return network(wiring, config, space.parse(architecture))
    drawn = np.asarray(space.sample_uniform(jax.random.key(0), _SAMPLES))
    wanted = np.mean([num_parameters(wiring, decisions) for decisions in drawn])
    return baseline(config, shape, architecture, wanted)


def network(wiring: Wiring, config: ClassifierSettings, decisions: np.ndarray) -> Model:
    """One architecture [T]. Its parameters: path in the tree of weights -> rows in use."""
    rows, decisions = rows_in_use(wiring, decisions), jnp.asarray(decisions)

    def init(key: Array) -> dict[str, Array]:
        return from_shared(wiring, wiring.init(key), decisions)

    def loss(params: dict[str, Array], images: Array, labels: Array, key: Array | None):
        leaves = []
        for path, (active, shape) in rows.items():
            if active is None:
                leaves.append(params[path])
            else:
                zeros = jnp.zeros((len(active), *shape))
                at = np.flatnonzero(active)
                leaves.append(zeros.at[at].set(params[path]) if len(at) else zeros)
        used = jax.tree.unflatten(jax.tree.structure(wiring.shapes), leaves)
        mask = dropout_mask(config.dropout, key, len(labels), used)
        return wiring.loss(used, decisions, images, labels, mask)

    return _model(config, init, loss, config.channels)


def rows_in_use(wiring: Wiring, decisions: np.ndarray) -> dict[str, tuple]:
    """path in the tree of weights -> (which of the rows from `gather` are really used, [n] bool;
    shape of a row), or (None, shape of the array) for an array without rows.
    """
    with jax.ensure_compile_time_eval():
        uses = jax.tree.leaves(wiring.use(jnp.asarray(decisions)), is_leaf=_is_use)
    found = {}
    for (path, leaf), use in zip(
        jax.tree_util.tree_leaves_with_path(wiring.shapes), uses, strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        whole = use.index is None
        found[name] = (None, leaf.shape) if whole else (np.asarray(use.active), leaf.shape[1:])
    return found


def from_shared(wiring: Wiring, params: Params, decisions: np.ndarray) -> dict[str, Array]:
    """The parameters of `network`: an architecture's part of the shared weights."""
    leaves = jax.tree.leaves(wiring.gather(params, wiring.use(jnp.asarray(decisions))))
    found = {}
    for (path, (active, _)), leaf in zip(
        rows_in_use(wiring, decisions).items(), leaves, strict=True
    ):
        if active is None:
            found[path] = leaf
        elif active.any():
            found[path] = leaf[np.flatnonzero(active)]
    return found


def num_parameters(wiring: Wiring, decisions: np.ndarray) -> int:
    """How many numbers an architecture [T] learns."""
    return sum(
        math.prod(shape) * (1 if active is None else int(active.sum()))
        for active, shape in rows_in_use(wiring, decisions).values()
    )


def baseline(config: ClassifierSettings, shape: ImageShape, name: str, wanted: float) -> Model:
    """A baseline with the width that brings it nearest to `wanted` parameters."""
    image = jnp.zeros((1, shape.size, shape.size, shape.channels))

    def module(width):
        return MODULES[name](width, shape.classes)

    @functools.cache
    def count(width):
        found = jax.eval_shape(module(width).init, jax.random.key(0), image)["params"]
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))

    # Parameters grow with the width: it is the first width that has more, or the one before.
    more = bisect.bisect_left(range(1, 4096), wanted, key=count) + 1
    width = min((max(1, more - 1), more), key=lambda width: abs(count(width) - wanted))
    made = module(width)

    def init(key: Array) -> Params:
        return made.init(key, image)["params"]

    def loss(params: Params, images: Array, labels: Array, key: Array | None):
        del key  # neither baseline has dropout
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


def _is_use(node):
    return isinstance(node, Use)
