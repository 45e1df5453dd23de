"""What the image networks of all spaces share: how they are trained, scored and reported.

An architecture uses some rows of the shared weights. Only these are gathered, differentiated,
clipped and updated; the others do not move, and neither does their momentum.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nas.data.images import ImageData, Images, Labelled
from nas.parallel import mean_over_devices
from nas.spaces import SearchSpace
from nas.supernets.images import alone
from nas.supernets.images.augmentation import augment, standardise
from nas.supernets.images.settings import ClassifierSettings
from nas.supernets.images.wiring import ImageShape, Wiring, decays, dropout_mask
from nas.tasks import Metric
from nas.types import Array, Info, Model, Params, Reward


@flax.struct.dataclass
class ClassifierState:
    """The shared weights and their momentum."""

    params: Params
    velocity: Params


@dataclasses.dataclass(frozen=True)
class Classifier(ClassifierSettings):
    """A `nas.tasks.Network`, all but its wiring."""

    baselines: ClassVar[tuple[str, ...]] = tuple(alone.BASELINES)
    compared: ClassVar[Mapping[str, str]] = {"plain": "plain CNN", "resnet": "ResNet"}
    published: ClassVar[Mapping[str, float]] = {}

    def wiring(self, space: SearchSpace, shape: ImageShape) -> Wiring:
        """The network of a space."""
        raise NotImplementedError

    def metric(self, data: ImageData) -> Metric:
        return Metric(
            name="cross-entropy",
            loss="cross-entropy",
            unit="nats an image",
            reward="accuracy",
            shown=np.asarray,
            digits=3,
            guessing=math.log(data.classes),
            also="error (%)",
            also_shown=lambda accuracy: 100 * (1 - np.asarray(accuracy)),
        )

    def reward(self, space: SearchSpace, data: ImageData) -> Reward:
        return supernet_reward(self.wiring(space, shape_of(data)), self)

    def model(self, space: SearchSpace, data: ImageData, architecture: str) -> Model:
        shape = shape_of(data)
        return alone.build(self.wiring(space, shape), self, shape, space, architecture)

    def yardsticks(self, data: ImageData, train: Labelled, held_out: Labelled) -> dict[str, float]:
        """The cross-entropy of predicting the frequencies of the classes."""
        counts = np.bincount(train.labels, minlength=data.classes) + 1
        frequencies = np.log(counts / counts.sum())
        return {"class frequencies": float(-frequencies[held_out.labels].mean())}


def shape_of(data: ImageData) -> ImageShape:
    return ImageShape(data.size, data.channels, data.classes)


def supernet_reward(wiring: Wiring, config: ClassifierSettings) -> Reward:
    """Shared weights as a source of rewards.

    Training is SGD on one batch and one architecture, with Nesterov's momentum, the gradient
    clipped by its global norm. A reward is the accuracy on one validation batch; a validation loss
    is the cross-entropy, which has no ties.
    """

    def init(key: Array) -> ClassifierState:
        params = wiring.init(key)
        return ClassifierState(params, jax.tree.map(jnp.zeros_like, params))

    def train(
        state: ClassifierState,
        carry: tuple,
        decisions: Array,
        batch: Images,
        key: Array,
        epoch: Array,
        axis_name: str | None = None,
    ) -> tuple[ClassifierState, tuple, Info]:
        augment_key, dropout_key = jax.random.split(key)
        images = standardise(augment(config, augment_key, batch.image))
        use = wiring.use(decisions)
        used = wiring.gather(state.params, use)
        mask = dropout_mask(config.dropout, dropout_key, len(batch.label), used)
        (value, accuracy), gradient = jax.value_and_grad(wiring.loss, has_aux=True)(
            used, decisions, images, batch.label, mask
        )
        active = wiring.active(use, used)
        if axis_name is None:
            velocity = wiring.gather(state.velocity, use)
        else:
            # On several devices each trained its own architecture, and all weights that any of them
            # uses move.
            counted = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), active)
            active, gradient = mean_over_devices(
                tuple(wiring.spread(state.params, use, of) for of in (counted, gradient)), axis_name
            )
            active = jax.tree.map(lambda leaf: leaf > 0, active)
            value, accuracy = mean_over_devices((value, accuracy), axis_name)
            used, velocity = state.params, state.velocity
        size = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(size)
        rate = learning_rate(config, epoch.astype(jnp.float32))
        shrink = jnp.minimum(1.0, config.clip / (size + 1e-12))

        def direction(path, g, weight):
            return shrink * g + (config.weight_decay * weight if decays(path) else 0.0)

        downhill = jax.tree_util.tree_map_with_path(direction, gradient, used)
        faster = jax.tree.map(lambda v, d: config.momentum * v + d, velocity, downhill)
        moved = jax.tree.map(
            lambda w, v, d: w - rate * (d + config.momentum * v), used, faster, downhill
        )

        # An update that is not finite is dropped and counted; the search decides whether the run
        # goes on.
        def where(new, old):
            return jax.tree.map(lambda a, n, o: jnp.where(a & finite, n, o), active, new, old)

        moved, faster = where(moved, used), where(faster, velocity)
        if axis_name is None:
            moved = wiring.put(state.params, use, moved)
            faster = wiring.put(state.velocity, use, faster)
        info = {
            "loss": value,
            "accuracy": accuracy,
            "gradient_norm": size,
            "learning_rate": rate,
            "skipped": 1.0 - finite.astype(jnp.float32),
        }
        return ClassifierState(moved, faster), carry, info

    def judge(state: ClassifierState, decisions: Array, batch: Images) -> tuple[Array, Array]:
        """[A] cross-entropies and [A] accuracies."""
        images = standardise(batch.image)
        mask = dropout_mask(0.0, None, len(batch.label), state.params)

        def one(decisions):
            used = wiring.gather(state.params, wiring.use(decisions))
            return wiring.loss(used, decisions, images, batch.label, mask)

        return jax.lax.map(one, decisions)

    def score(state: ClassifierState, decisions: Array, batch: Images) -> Array:
        return judge(state, decisions, batch)[1]

    def evaluate(state: ClassifierState, decisions: Array, batches: Images) -> Array:
        losses = jax.lax.map(lambda batch: judge(state, decisions, batch)[0], batches)
        return jnp.mean(losses, axis=0)

    return Reward(init, lambda rows: (), train, score, evaluate)


def learning_rate(config: ClassifierSettings, epoch: Array) -> Array:
    """[] on a cosine from `learning_rate` to `learning_rate_min`, constant within an epoch."""
    turn = jnp.pi * jnp.minimum(1.0, epoch / config.cosine_epochs)
    low = config.learning_rate_min
    return low + (config.learning_rate - low) * (1 + jnp.cos(turn)) / 2
