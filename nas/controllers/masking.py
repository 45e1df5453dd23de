"""Categorical distributions whose number of choices differs from position to position."""

import jax
import jax.numpy as jnp

from nas.types import Array

MASKED = -1e9  # log probability of a choice that does not exist; finite, so that no gradient is NaN


def log_probabilities(
    logits: Array, mask: Array, *, temperature: float, tanh_constant: float
) -> Array:
    """Log softmax of `tanh_constant * tanh(logits / temperature)` over the choices that exist
    (ENAS, section 3).

    Args:
      logits: [..., K] float32.
      mask: [..., K] bool, which choices exist.

    Returns:
      [..., K] float32, MASKED where `mask` is false.
    """
    squashed = tanh_constant * jnp.tanh(logits / temperature)
    return jnp.where(mask, jax.nn.log_softmax(jnp.where(mask, squashed, MASKED)), MASKED)


def entropy(log_probs: Array) -> Array:
    """[...] entropy in nats of the distributions with log probabilities [..., K]."""
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def take(log_probs: Array, decisions: Array) -> Array:
    """[..., T] log probability of each decision, from [..., T, K]."""
    return jnp.take_along_axis(log_probs, decisions[..., None], axis=-1)[..., 0]


def forced(prefix: Array | None, n: int, length: int) -> Array:
    """[n, length] int32: a prefix [P] or [n, P] of forced decisions, then -1 where the policy is
    free.
    """
    if prefix is None:
        return jnp.full((n, length), -1, jnp.int32)
    prefix = jnp.asarray(prefix, jnp.int32)
    prefix = jnp.broadcast_to(prefix if prefix.ndim == 2 else prefix[None], (n, prefix.shape[-1]))
    return jnp.pad(prefix, ((0, 0), (0, length - prefix.shape[1])), constant_values=-1)
