"""The layers of both image networks, for XLA; networks.cc computes the same.

Images are [B, H, W, C]. Normalisation is over the batch at hand, in training and in rewards alike:
averages kept from earlier batches would mix architectures.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nas.types import Array, Params

_EPSILON = 1e-5  # added to the variance in normalisation


class Norm(NamedTuple):
    """Learnt scale and offset of a normalisation."""

    scale: Array  # [..., C]
    offset: Array  # [..., C]


class Filter(NamedTuple):
    """A convolution and its normalisation."""

    kernel: Array  # [..., height, width, C, C'], or [..., C, C'] of a pointwise one
    norm: Norm


class Separable(NamedTuple):
    """A depthwise convolution and a pointwise one."""

    depth: Array  # [..., size, size, C]
    point: Array  # [..., C, C']


class Reduction(NamedTuple):
    """Pointwise convolutions of the pixels in even rows and columns, and of those in odd ones."""

    even: Array  # [..., C, C' / 2]
    odd: Array  # [..., C, C' / 2]
    norm: Norm


def kernel(key: Array, *shape: int, fan_in: int) -> Array:
    """Normal, with variance 2 / fan_in (He et al. 2015)."""
    return jax.random.normal(key, shape) * (2 / fan_in) ** 0.5


def norm(*shape: int) -> Norm:
    """A normalisation that starts as the identity."""
    return Norm(jnp.ones(shape), jnp.zeros(shape))


def reduction(key: Array, rows: Sequence[int], channels: int, out: int) -> Reduction:
    """Reductions from `channels` to `out`, stacked as `rows` [...]; empty: a single one."""
    keys = jax.random.split(key)
    even, odd = (kernel(k, *rows, channels, out // 2, fan_in=channels) for k in keys)
    return Reduction(even, odd, norm(*rows, out))


def normalise(x: Array, by: Norm) -> Array:
    """Brings every channel to mean 0 and variance 1 over the batch, then applies `by`."""
    mean, variance = (of(x, axis=(0, 1, 2), keepdims=True) for of in (jnp.mean, jnp.var))
    scale, offset = by.scale[None, None, None], by.offset[None, None, None]
    return (x - mean) * (jax.lax.rsqrt(variance + _EPSILON) * scale) + offset


def convolve(x: Array, kernel: Array, groups: int = 1) -> Array:
    """A convolution with stride 1 that keeps height and width."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def separable(x: Array, by: Separable) -> Array:
    return convolve(x, by.depth[:, :, None], groups=x.shape[-1]) @ by.point


def average(x: Array) -> Array:
    """3 x 3 averages, over the pixels that are inside the image."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def maximum(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def reduce(x: Array, by: Reduction) -> Array:
    """[B, ceil(H / 2), ceil(W / 2), C']; pixels outside the image count as zero."""
    odd = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1::2, 1::2]
    halves = x[:, ::2, ::2] @ by.even, odd @ by.odd
    return normalise(jnp.concatenate(halves, axis=-1), by.norm)


def choose(operations: Sequence[Callable], uses: Sequence[str]) -> Callable:
    """One of several operations (x, weights) -> x', as (index [] int32, x, weights) -> x'.

    Only the chosen one is computed, in both directions, and only its input is kept for the backward
    pass: automatic differentiation would keep what any of them needs.

    Args:
      uses: name of the weights that each operation uses, "" for none.
    """

    def branches(direction):
        return [functools.partial(direction, *pair) for pair in zip(operations, uses, strict=True)]

    def one(operation, name, x, weights):
        return operation(x, weights.get(name))

    def one_back(operation, name, x, weights, gradient):
        zeros = jax.tree.map(jnp.zeros_like, weights)
        if not name:
            return jax.vjp(lambda x: operation(x, None), x)[1](gradient)[0], zeros
        of_x, of_used = jax.vjp(operation, x, weights[name])[1](gradient)
        return of_x, zeros | {name: of_used}

    @jax.custom_vjp
    def chosen(index: Array, x: Array, weights: dict[str, Params]) -> Array:
        return jax.lax.switch(index, branches(one), x, weights)

    def forward(index, x, weights):
        return chosen(index, x, weights), (index, x, weights)

    def backward(kept, gradient):
        index, x, weights = kept
        return None, *jax.lax.switch(index, branches(one_back), x, weights, gradient)

    chosen.defvjp(forward, backward)
    return chosen
