"""The image networks in C++, for CPUs, where what XLA compiles takes several times longer.

networks.cc computes the loss and its gradient in one call, so that nothing of a forward pass goes
through XLA. Without a compiler XLA's networks are used, and a warning says so.
"""

import functools
import pathlib
import threading

import chex
import jax
import jax.numpy as jnp

from nas.supernets import native
from nas.types import Array, Params

_SOURCE = pathlib.Path(__file__).with_name("networks.cc")
_ONE_AT_A_TIME = threading.Lock()


def available(dtype: str = "float32") -> bool:
    """Whether a CPU computes, and networks.cc is compiled for numbers of `dtype` or can be."""
    with _ONE_AT_A_TIME:
        return _register(dtype) is not None


def prepare() -> None:
    """Begins to compile the networks in a thread, if need be, while the caller goes on."""
    threading.Thread(target=available, daemon=True).start()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def loss(
    name: str,
    used: Params,
    program: tuple[Array, ...],
    images: Array,
    labels: Array,
    mask: Array,
) -> tuple[Array, Array]:
    """[] mean cross-entropy and [] accuracy; the second has no gradient.

    Args:
      name: macro or micro.
      used: the weights of one architecture, with leaves in the order in which networks.cc reads.
      program: its decisions, int32, as networks.cc reads them.
      images: [B, H, W, channels] of the type of the weights.
      labels: [B] int32.
      mask: [B, C] of dropout, already scaled.
    """
    return _call(name, used, program, images, labels, mask, ())


def _forward(name, used, program, images, labels, mask):
    like = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(used)]
    value, accuracy, *gradient = _call(name, used, program, images, labels, mask, like)
    return (value, accuracy), jax.tree.unflatten(jax.tree.structure(used), gradient)


def _backward(name, gradient, cotangents):
    of_loss, _ = cotangents
    return jax.tree.map(lambda leaf: of_loss * leaf, gradient), None, None, None, None


loss.defvjp(_forward, _backward)


def _call(name, used, program, images, labels, mask, gradients):
    leaves = jax.tree.leaves(used)
    # The C++ takes the arrays to be of these types without asking.
    chex.assert_type([mask, *leaves], images.dtype)
    chex.assert_type([labels, *program], jnp.int32)
    scalar = jax.ShapeDtypeStruct((), images.dtype)
    call = jax.ffi.ffi_call(
        f"nas_{name}_{images.dtype}", [scalar, scalar, *gradients], vmap_method="sequential"
    )
    return tuple(call(*program, images, labels, mask, *leaves))


@functools.cache
def _register(dtype):
    return native.offer(_SOURCE, dtype, ("macro", "micro"), "image networks")
