"""The cross-entropy of a softmax over a vocabulary, in blocks that fit into a CPU's cache.

The gradient is formed while the logits of a block are at hand, so that the logits of only one block
are held at a time and none are computed twice.
"""

import functools

import jax
import jax.numpy as jnp

from nas.supernets.recurrent.products import as_right, by_rows, product, times
from nas.types import Array, Params

_BLOCK = 2**22  # logits held at a time: 16 MiB, which fit into a CPU's cache


def cross_entropy(
    params: Params, outputs: Array, targets: Array, *, matmul: str = "float32"
) -> Array:
    """[] mean nats a token, by plain automatic differentiation.

    Args:
      params: embedding [V, H] and bias [V] are used.
      outputs: [steps, B, H].
      targets: [B, steps] int32.
      matmul: as in nas/supernets/recurrent/products.py.
    """
    outputs, targets = outputs.reshape(-1, outputs.shape[-1]), targets.T.ravel()
    logits = product(matmul, outputs, params["embedding"].T) + params["bias"][None]
    of_targets = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - of_targets)


def blocked_cross_entropy(
    params: Params, outputs: Array, targets: Array, *, matmul: str = "float32"
) -> Array:
    """`cross_entropy`, block by block of rows."""
    outputs, targets = outputs.reshape(-1, outputs.shape[-1]), targets.T.ravel()
    rows, vocabulary = len(targets), len(params["bias"])
    ones = jnp.ones((vocabulary, 1))
    softmax = jnp.concatenate([params["embedding"], params["bias"][:, None], ones], axis=1)
    states = jnp.concatenate([outputs, ones[:1].repeat(rows, 0), jnp.zeros((rows, 1))], axis=1)
    of_targets = jnp.sum(states * softmax[targets])
    blocks = -(-rows * vocabulary // _BLOCK)
    short = -rows % blocks
    states = jnp.pad(states, ((0, short), (0, 0))).reshape(blocks, -1, states.shape[-1])
    counted = (jnp.arange(rows + short) < rows).astype(outputs.dtype).reshape(blocks, -1)
    return (_sum_of_normalisers(matmul, softmax, states, counted) - of_targets) / rows


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_normalisers(matmul, softmax, states, weights):
    """[] weighted sum of the rows' normalisers, the logsumexp of their logits.

    softmax [V, H + 2] and states [blocks, rows, H + 2] have a column for the bias, and one in which
    the softmax is 1; weights are [blocks, rows].
    """
    to_logits = as_right(matmul, softmax.T)

    def block(total, x):
        states, weights = x
        return total + jnp.sum(
            weights * jax.nn.logsumexp(times(matmul, states, to_logits), axis=-1)
        ), None

    return jax.lax.scan(block, jnp.zeros((), states.dtype), (states, weights))[0]


def _sum_of_normalisers_forward(matmul, softmax, states, weights):
    """Forms the gradients as well, while the logits of a block are at hand: these are read once and
    written once, since the sum of the exponentials is a column of a product that is needed anyway,
    and rows of products, not the exponentials, are divided by it.
    """
    to_logits, to_states = as_right(matmul, softmax.T), as_right(matmul, softmax)

    def block(carry, x):
        total, of_softmax = carry
        states, weights = x
        logits = times(matmul, states, to_logits)
        largest = jnp.max(logits, axis=-1, keepdims=True)
        # Without the barrier the exponentials would be computed again for either product.
        exponentials = jax.lax.optimization_barrier(jnp.exp(logits - largest))
        sums = times(matmul, exponentials, to_states)
        scale = weights[:, None] / sums[:, -1:]
        total += jnp.sum(weights * (largest + jnp.log(sums[:, -1:]))[:, 0])
        return (
            total,
            of_softmax + product(matmul, by_rows(matmul, exponentials.T), states * scale),
        ), sums * scale

    start = jnp.zeros((), states.dtype), jnp.zeros_like(softmax)
    (total, of_softmax), of_states = jax.lax.scan(block, start, (states, weights))
    return total, (of_softmax, of_states)


def _sum_of_normalisers_backward(matmul, gradients, gradient):
    del matmul
    of_softmax, of_states = (gradient * leaf for leaf in gradients)
    return of_softmax, of_states, None


_sum_of_normalisers.defvjp(_sum_of_normalisers_forward, _sum_of_normalisers_backward)
