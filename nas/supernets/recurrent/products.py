"""Matrix products of operands that are rounded as a configuration asks, and stored in the way that
XLA multiplies fastest.

`matmul` says how operands are rounded: "float32" not at all, whatever the type of the weights;
"bfloat16" to numbers of that type; "rounded" to the same numbers, but they are kept and multiplied
as float32. Sums have the type of the weights.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from nas.supernets.recurrent import native_loop
from nas.types import Array


def settle(matmul: str) -> str:
    """How this machine computes what is asked for: a CPU without instructions for bfloat16 is
    faster at "rounded".
    """
    emulated = (
        matmul == "bfloat16"
        and native_loop.available("float32")
        and not native_loop.multiplies_bfloat16()
    )
    return "rounded" if emulated else matmul


def product(matmul: str, left: Array, right: Array) -> Array:
    """left [M, K] @ right [K, N]."""
    return left @ right if matmul == "float32" else _rounded_product(matmul, left, right)


def by_rows(matmul: str, matrix: Array) -> Array:
    """An operand, rounded once for many products. XLA's fast product of bfloat16 on CPUs wants rows
    that are stored one after another; without the constraint a transpose would be folded into the
    product, which then takes twice the time.
    """
    if matmul != "bfloat16":
        return _operand(matmul, matrix)
    rows_first = Layout((0, 1))
    return jax.lax.platform_dependent(
        _operand(matmul, matrix),
        cpu=lambda x: with_layout_constraint(x, rows_first),
        default=lambda x: x,
    )


def as_right(matmul: str, matrix: Array) -> Array:
    """`matrix` [K, N] as the right operand of many products by `times`, stored as XLA multiplies by
    it fastest on CPUs: float32 as [N, K], which at width 1000 and the few rows of a time step takes
    two thirds of the time, bfloat16 as [K, N].
    """
    return by_rows(matmul, matrix if matmul == "bfloat16" else matrix.T)


def times(matmul: str, left: Array, right: Array) -> Array:
    """The product of `left` and a matrix from `as_right`."""
    if matmul == "bfloat16":
        return _rounded_product(matmul, left, right)
    return jax.lax.dot_general(_operand(matmul, left), right, (((1,), (1,)), ((), ())))


def _operand(matmul, x):
    if matmul == "rounded":
        return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    return x if matmul == "float32" else x.astype(jnp.bfloat16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded_product(matmul, left, right):
    return jnp.matmul(
        _operand(matmul, left), _operand(matmul, right), preferred_element_type=jnp.float32
    )


def _rounded_product_forward(matmul, left, right):
    return _rounded_product(matmul, left, right), (left, right)


def _rounded_product_backward(matmul, operands, gradient):
    """Products of the same kind: plain differentiation would round their sums too."""
    left, right = operands
    return _rounded_product(matmul, gradient, right.T), _rounded_product(matmul, left.T, gradient)


_rounded_product.defvjp(_rounded_product_forward, _rounded_product_backward)
