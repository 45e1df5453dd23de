"""Training images shifted, mirrored and partly blanked at random, on the device."""

import jax
import jax.numpy as jnp

from nas.supernets.images.settings import ClassifierSettings
from nas.types import Array


def augment(config: ClassifierSettings, key: Array, images: Array) -> Array:
    """uint8 [B, H, W, channels] images augmented at random, each by itself."""
    return jax.vmap(lambda key, image: _one(config, key, image))(
        jax.random.split(key, len(images)), images
    )


def standardise(images: Array) -> Array:
    """float32 in [-1, 1], from uint8."""
    return images.astype(jnp.float32) / 127.5 - 1


def _one(config, key, image):
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    height, width, _ = image.shape
    if config.crop:
        around = ((config.crop, config.crop), (config.crop, config.crop), (0, 0))
        row, column = jax.random.randint(crop_key, (2,), 0, 2 * config.crop + 1)
        image = jax.lax.dynamic_slice(jnp.pad(image, around), (row, column, 0), image.shape)
    if config.flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    if config.cutout:
        # The middle of the square is anywhere in the image (DeVries, Taylor 2017).
        row, column = jax.random.randint(cutout_key, (2,), 0, jnp.array([height, width]))
        from_row = jnp.arange(height)[:, None] - row + config.cutout // 2
        from_column = jnp.arange(width)[None, :] - column + config.cutout // 2
        inside = (from_row >= 0) & (from_row < config.cutout)
        inside &= (from_column >= 0) & (from_column < config.cutout)
        image = jnp.where(inside[:, :, None], 0, image).astype(jnp.uint8)
    return image
