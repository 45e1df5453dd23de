"""The network of the macro space: every architecture is a path through one set of filters.

Layer k applies a pointwise convolution and its operation, then adds the layers that it skips to:

    a_k = relu(bn(x_k-1 * enter))          x_-1: the stem, a 3 x 3 convolution and bn
    z_k = relu(bn(operation(a_k)))         pooling: operation(a_k) alone
    x_k = bn(z_k + sum of x_j it skips to)

A third and two thirds of the way through, every stored x is halved in height and width. This is the
network of the search in the authors' code (melodyguan/enas), without the effects of its bugs: here
the operation is the one that was chosen, and layer 0 is normalised as the others are. A filter
belongs to (layer, operation), whatever the skips.

Decisions are traced: one compilation serves every architecture.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nas.config import check
from nas.spaces.macro import OPERATIONS, MacroSpace
from nas.supernets.images import layers, native_networks
from nas.supernets.images.classifier import Classifier
from nas.supernets.images.layers import Filter, Norm, Reduction, Separable
from nas.supernets.images.wiring import ImageShape, Use, Wiring
from nas.types import Array

_KERNELS = (3, 5)
_USES = ("conv_3x3", "sep_3x3", "conv_5x5", "sep_5x5", "", "")

prepare = native_networks.prepare


class Weights(NamedTuple):
    """Weights of one architecture; where they are shared, `enter` and `leave` have L * 6 rows, one
    for every operation of every layer.
    """

    stem: Filter  # kernel [3, 3, channels of images, C]
    enter: Filter  # kernel [L, C, C]
    conv_3x3: Array  # [L, 3, 3, C, C]
    conv_5x5: Array  # [L, 5, 5, C, C]
    sep_3x3: Separable  # depth [L, 3, 3, C], point [L, C, C]
    sep_5x5: Separable
    leave: Norm  # [L, C]
    join: Norm  # [L, C]
    reductions: tuple[Reduction, Reduction]  # each has a row for every x stored by then
    head: Array  # [C, classes]


@dataclasses.dataclass(frozen=True)
class MacroNetwork(Classifier):
    """A `nas.tasks.Network`."""

    def wiring(self, space: MacroSpace, shape: ImageShape) -> Wiring:
        check("space.layers", space.layers >= 3, "at least 3, for two reductions", space.layers)
        return Wiring("macro", *_functions(space, self.channels, shape))


def _functions(space, channels, shape):
    count, total = len(OPERATIONS), space.layers
    ends = (total // 3, 2 * total // 3)  # layers before each reduction

    def init(key: Array) -> Weights:
        keys = iter(jax.random.split(key, 12))

        def kernel(*dimensions, fan_in):
            return layers.kernel(next(keys), *dimensions, fan_in=fan_in)

        square = (channels, channels)
        dense = {
            size: kernel(total, size, size, *square, fan_in=size**2 * channels) for size in _KERNELS
        }
        apart = {
            size: Separable(
                kernel(total, size, size, channels, fan_in=size**2),
                kernel(total, *square, fan_in=channels),
            )
            for size in _KERNELS
        }
        stem = kernel(3, 3, shape.channels, channels, fan_in=9 * shape.channels)
        enter = kernel(total * count, *square, fan_in=channels)
        return Weights(
            stem=Filter(stem, layers.norm(channels)),
            enter=Filter(enter, layers.norm(total * count, channels)),
            conv_3x3=dense[3],
            conv_5x5=dense[5],
            sep_3x3=apart[3],
            sep_5x5=apart[5],
            leave=layers.norm(total * count, channels),
            join=layers.norm(total, channels),
            reductions=tuple(
                layers.reduction(next(keys), (end + 1,), channels, channels) for end in ends
            ),
            head=kernel(channels, shape.classes, fan_in=4 * channels),
        )

    def use(decisions: Array) -> Weights:
        operations, skips = space.operations(decisions), space.skips(decisions)
        every, always = jnp.arange(total, dtype=jnp.int32), jnp.ones(total, bool)
        own = jnp.arange(total, dtype=jnp.int32) * count + operations
        rows = {name: Use(every, operations == OPERATIONS.index(name)) for name in OPERATIONS}

        def reduced(end):
            # The next layer reads what is stored last; the rest is read by skips from there on.
            read = jnp.any(skips[end:, : end + 1] > 0, axis=0)
            slots = Use(jnp.arange(end + 1, dtype=jnp.int32), read.at[end].set(True))
            return Reduction(slots, slots, Norm(slots, slots))

        whole, with_weights = Use(None, jnp.array(True)), operations < OPERATIONS.index("avg_3x3")
        return Weights(
            stem=Filter(whole, Norm(whole, whole)),
            enter=Filter(Use(own, always), Norm(Use(own, always), Use(own, always))),
            conv_3x3=rows["conv_3x3"],
            conv_5x5=rows["conv_5x5"],
            sep_3x3=Separable(rows["sep_3x3"], rows["sep_3x3"]),
            sep_5x5=Separable(rows["sep_5x5"], rows["sep_5x5"]),
            leave=Norm(Use(own, with_weights), Use(own, with_weights)),
            join=Norm(Use(every, always), Use(every, always)),
            reductions=tuple(map(reduced, ends)),
            head=whole,
        )

    def features(used: Weights, decisions: Array, images: Array) -> Array:
        """[B, C] what the head reads: scans over the layers of a stage, whose x share a buffer."""
        operations = space.operations(decisions)
        skips = jnp.pad(space.skips(decisions), ((0, 0), (0, 1))).astype(images.dtype)
        stem = layers.normalise(layers.convolve(images, used.stem.kernel), used.stem.norm)
        stored = stem[None]
        weights = {name: getattr(used, name) for name in _USES if name}
        scanned = used.enter, weights, used.leave, used.join
        for stage, (first, end) in enumerate(zip((0, *ends), (*ends, total), strict=True)):
            shape = (end - first, *stored.shape[1:])
            stored = jnp.concatenate([stored, jnp.zeros(shape, stored.dtype)])

            def layer(stored, x):
                k, operation, skips, (enter, weights, leave, join) = x
                read = jax.lax.dynamic_index_in_dim(stored, k, keepdims=False)
                a = jax.nn.relu(layers.normalise(read @ enter.kernel, enter.norm))
                z = _chosen(operation, a, weights)
                has_weights = operation < OPERATIONS.index("avg_3x3")
                z = jnp.where(has_weights, jax.nn.relu(layers.normalise(z, leave)), z)
                out = layers.normalise(z + jnp.tensordot(skips, stored, 1), join)
                return jax.lax.dynamic_update_index_in_dim(stored, out, k + 1, 0), None

            own = jax.tree.map(lambda leaf: leaf[first:end], scanned)  # noqa: B023
            steps = (
                jnp.arange(first, end, dtype=jnp.int32),
                operations[first:end],
                skips[first:end, : end + 1],
                own,
            )
            stored, _ = jax.lax.scan(layer, stored, steps)
            if stage < len(ends):
                stored = jax.vmap(layers.reduce)(stored, used.reductions[stage])
        return jnp.mean(stored[-1], axis=(1, 2))

    def program(decisions: Array) -> tuple[Array, ...]:
        return space.operations(decisions), space.skips(decisions)

    def multiply_adds(decisions) -> float:
        """For one image, forward: of the chosen operations and of all that surrounds them."""
        per_pixel = {
            "conv_3x3": 9 * channels**2,
            "sep_3x3": (9 + channels) * channels,
            "conv_5x5": 25 * channels**2,
            "sep_5x5": (25 + channels) * channels,
            "avg_3x3": 9 * channels,
            "max_3x3": 9 * channels,
        }
        side, found = shape.size, shape.size**2 * 9 * shape.channels * channels
        for k, operation in enumerate(space.operations(decisions)):
            found += side**2 * (channels**2 + per_pixel[OPERATIONS[operation]])
            if k + 1 in ends:
                side = math.ceil(side / 2)
                found += (k + 2) * side**2 * channels**2
        return found + channels * shape.classes

    shapes = jax.eval_shape(init, jax.random.key(0))
    return init, use, features, program, multiply_adds, shapes


_chosen = layers.choose(
    (
        layers.convolve,
        layers.separable,
        layers.convolve,
        layers.separable,
        lambda x, _: layers.average(x),
        lambda x, _: layers.maximum(x),
    ),
    _USES,
)
