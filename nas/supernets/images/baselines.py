"""Networks that no search has found, to compare with those that a search has found."""

import flax.linen as nn
import jax

from nas.types import Array


class Plain(nn.Module):
    """Three stages of two 3 x 3 convolutions, each with normalisation and ReLU; 2 x 2 max pooling
    between the stages.
    """

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for stage in range(3):
            if stage:
                x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
            for _ in range(2):
                x = nn.relu(_normalise(_convolve(x, self.width)))
        return nn.Dense(self.classes, use_bias=False)(x.mean(axis=(1, 2)))


class ResNet(nn.Module):
    """A residual network for small images (He et al. 2016, section 4.2).

    Three stages of two blocks, of 1, 2 and 4 times the width.
    """

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(_normalise(_convolve(x, self.width)))
        for stage in range(3):
            width = self.width * 2**stage
            for block in range(2):
                stride = 2 if stage and not block else 1
                inner = nn.relu(_normalise(_convolve(x, width, stride=stride)))
                inner = _normalise(_convolve(inner, width))
                if x.shape != inner.shape:
                    x = _normalise(_convolve(x, width, size=1, stride=stride))
                x = nn.relu(x + inner)
        return nn.Dense(self.classes, use_bias=False)(x.mean(axis=(1, 2)))


MODULES = {"plain": Plain, "resnet": ResNet}


def _convolve(x: jax.Array, width: int, *, size: int = 3, stride: int = 1) -> jax.Array:
    return nn.Conv(width, (size, size), (stride, stride), use_bias=False)(x)


def _normalise(x: jax.Array) -> jax.Array:
    return nn.BatchNorm(use_running_average=False)(x)
