"""Matrix products in the type that a configuration asks for, of operands stored as XLA multiplies them fastest.

`matmul` is that type, float32 or bfloat16, to which operands are rounded; sums keep the type of the weights. float32 means the
type of the weights, whatever it is.
"""

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from nas.types import Array


def product(matmul: str, left: Array, right: Array) -> Array:
    """left [M, K] @ right [K, N]."""
    return left @ right if matmul == "float32" else _bfloat16_product(left, right)


def by_rows(matmul: str, matrix: Array) -> Array:
    """An operand, rounded once for many products. XLA's fast product of bfloat16 on processors wants rows that are stored one
    after another; without the constraint a transpose would be folded into the product, which then takes twice the time.
    """
    if matmul == "float32":
        return matrix
    rows_first = Layout((0, 1))
    return jax.lax.platform_dependent(
        matrix.astype(jnp.bfloat16), cpu=lambda x: with_layout_constraint(x, rows_first), default=lambda x: x
    )


def as_right(matmul: str, matrix: Array) -> Array:
    """`matrix` [K, N] as the right operand of many products by `times`, stored as XLA on processors multiplies by it fastest:
    float32 as [N, K], which at width 1000 and the few rows of a time step takes two thirds of the time, bfloat16 as [K, N].
    """
    return matrix.T if matmul == "float32" else by_rows(matmul, matrix)


def times(matmul: str, left: Array, right: Array) -> Array:
    """The product of `left` and a matrix from `as_right`."""
    if matmul == "float32":
        return jax.lax.dot_general(left, right, (((1,), (1,)), ((), ())))
    return _bfloat16_product(left, right)


@jax.custom_vjp
def _bfloat16_product(left, right):
    return jnp.matmul(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def _bfloat16_product_forward(left, right):
    return _bfloat16_product(left, right), (left, right)


def _bfloat16_product_backward(operands, gradient):
    """Products of the same kind: plain differentiation would round their sums too."""
    left, right = operands
    return _bfloat16_product(gradient, right.T), _bfloat16_product(left.T, gradient)


_bfloat16_product.defvjp(_bfloat16_product_forward, _bfloat16_product_backward)
