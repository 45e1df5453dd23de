"""How a network is tied to its space: which rows of the shared weights an architecture uses, and
what it computes with them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nas.supernets.images import native_networks
from nas.types import Array, Params


class ImageShape(NamedTuple):
    """Size of the images that a network reads, and number of classes that it tells apart."""

    size: int  # height and width
    channels: int
    classes: int


class Use(NamedTuple):
    """The part of an array of shared weights that an architecture uses."""

    index: Array | None  # [n] int32, of rows, each at most once; None: the whole array
    active: Array  # [n] bool, or []: whether it is really used; if not, its gradient is zero


class Wiring(NamedTuple):
    """A network of one space, as pure functions."""

    name: str  # name of its function in networks.cc
    init: Callable[[Array], Params]  # key -> shared weights
    use: Callable[[Array], Any]  # decisions [T] -> the tree of weights, with a Use for every array
    # (used weights, decisions, images [B, H, W, channels]) -> [B, C] what the last layer reads
    features: Callable[[Params, Array, Array], Array]
    program: Callable[[Array], tuple[Array, ...]]  # decisions -> what networks.cc reads of them
    multiply_adds: Callable[[np.ndarray], float]  # decisions -> number for one image, forward
    shapes: Any  # the tree of shared weights, as shapes

    def gather(self, params: Params, use: Any) -> Params:
        """The weights that an architecture uses; the same tree."""
        return jax.tree.map(
            lambda leaf, of: leaf if of.index is None else leaf[of.index], params, use
        )

    def put(self, params: Params, use: Any, used: Params) -> Params:
        """`params` with `used` in place of the weights that an architecture uses."""

        def one(leaf, of, own):
            return own if of.index is None else leaf.at[of.index].set(own)

        return jax.tree.map(one, params, use, used)

    def spread(self, params: Params, use: Any, used: Params) -> Params:
        """Zeros like `params`, with `used` where an architecture uses them."""
        return self.put(jax.tree.map(jnp.zeros_like, params), use, used)

    def active(self, use: Any, used: Params) -> Any:
        """bool, for every number of the used weights: whether it is really in use."""

        def one(leaf, of):
            ones = (1,) * (leaf.ndim - of.active.ndim)
            return jnp.broadcast_to(of.active.reshape(*of.active.shape, *ones), leaf.shape)

        return jax.tree.map(one, used, use)

    def loss(
        self, used: Params, decisions: Array, images: Array, labels: Array, mask: Array
    ) -> tuple[Array, Array]:
        """[] mean cross-entropy and [] accuracy under weights from `gather`.

        Args:
          images: [B, H, W, channels] float32.
          labels: [B] int32.
          mask: [B, C] of dropout, already scaled.
        """
        if native_networks.available(images.dtype.name):
            program = self.program(decisions)
            return native_networks.loss(self.name, used, program, images, labels, mask)
        logits = (self.features(used, decisions, images) * mask) @ used.head
        return cross_entropy(logits, labels)


def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """[] mean cross-entropy, and [] share of labels that have the largest logit."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return jnp.mean(losses), jnp.mean(right.astype(jnp.float32))


def decays(path: tuple) -> bool:
    """Whether the weights at a path of the tree decay: all but those of normalisations."""
    return getattr(path[-1], "name", "") not in ("scale", "offset")


def dropout_mask(rate: float, key: Array | None, rows: int, used: Params) -> Array:
    """[B, C] mask, already scaled, of what the last layer reads; ones without a key."""
    shape = rows, used.head.shape[0]
    if key is None or rate == 0:
        return jnp.ones(shape)
    return jax.random.bernoulli(key, 1 - rate, shape).astype(jnp.float32) / (1 - rate)
