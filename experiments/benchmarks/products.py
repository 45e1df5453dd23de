"""The matrix products that a shared step consists of: their shapes, and calls that compute them and
nothing else.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Point(NamedTuple):
    """The shapes of one step."""

    width: int
    nodes: int
    batch: int
    vocabulary: int
    steps: int


class Product(NamedTuple):
    """`count` matrix products [m, k] @ [k, n]."""

    count: int
    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        return 2 * self.count * self.m * self.k * self.n


def products(point: Point) -> dict[str, Product]:
    """The matrix products of one shared step, by what they compute."""
    width, nodes, batch, vocabulary, steps = point
    rows = batch * steps
    return {
        "input": Product(1, rows, width, 2 * width),
        "nodes": Product(steps * nodes, batch, width, 2 * width),
        "softmax": Product(1, rows, width, vocabulary),
        "softmax, gradient of states": Product(1, rows, vocabulary, width),
        "softmax, gradient of embedding": Product(1, vocabulary, rows, width),
        "nodes, gradient of states": Product(steps * nodes, batch, 2 * width, width),
        "nodes, gradient of weights": Product(nodes, width, rows, 2 * width),
        "input, gradient of embedding": Product(1, rows, 2 * width, width),
        "input, gradient of weights": Product(1, width, rows, 2 * width),
    }


def used_products(operation: str) -> dict[str, int]:
    """How often an operation computes each of `products`; operations are "step", "plain step",
    "forward" and "reward of A".
    """
    if operation in ("step", "plain step"):
        return dict.fromkeys(products(Point(1, 1, 1, 1, 1)), 1)
    architectures = 1 if operation == "forward" else int(operation.rpartition(" ")[2])
    return {"input": 1, "nodes": architectures, "softmax": architectures}


def bare_products(point: Point, dtype: jnp.dtype) -> dict[str, Callable[[], Any]]:
    """name -> a call that computes the `products` of that name and nothing else, sums in float32.

    XLA computes them, from operands stored as it multiplies them fastest: a float32 right operand
    that a time loop or the softmax uses again and again has the summed axis last. Products of a
    time loop wait for one another, as in a step: an entry of each result goes into the next
    operand. On CPUs a step's own loop is not XLA's, and may take less time than these.
    """
    width, nodes, batch, vocabulary, steps = point
    rows = batch * steps
    keys = (jax.random.key(seed) for seed in itertools.count())

    def operand(*shape):
        # Rows have unit length: nothing overflows or vanishes in a chain.
        limit = (3 / shape[-1]) ** 0.5
        return jax.random.uniform(next(keys), shape, minval=-limit, maxval=limit).astype(dtype)

    def multiply(left, right):
        return jnp.matmul(left, right, preferred_element_type=jnp.float32)

    summed_last = dtype == jnp.float32

    def stored(matrix):
        return matrix.T if summed_last else matrix

    def multiply_stored(left, right):
        axes = ((1,), (1 if summed_last else 0,)), ((), ())
        return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)

    def chain(first, matrices):
        def step(operand, _):
            for matrix in matrices:
                operand = operand.at[0, 0].set(multiply_stored(operand, matrix)[0, 0].astype(dtype))
            return operand, None

        return jax.lax.scan(step, first, length=steps)[0]

    matrices = [operand(width, 2 * width) for _ in range(nodes)]
    states, gates = ([operand(rows, size) for _ in range(nodes)] for size in (width, 2 * width))
    embedding, logits = operand(vocabulary, width), operand(rows, vocabulary)
    timed = {
        "input": (multiply, states[0], matrices[0]),
        "nodes": (chain, states[0][:batch], [stored(matrix) for matrix in matrices]),
        "softmax": (multiply_stored, states[0], stored(embedding.T)),
        "softmax, gradient of states": (multiply_stored, logits, stored(embedding)),
        "softmax, gradient of embedding": (lambda d, x: multiply(d.T, x), logits, states[0]),
        "nodes, gradient of states": (
            chain,
            gates[0][:batch],
            [stored(matrix.T) for matrix in matrices],
        ),
        "nodes, gradient of weights": (
            lambda xs, ds: [multiply(x.T, d) for x, d in zip(xs, ds, strict=True)],
            states,
            gates,
        ),
        "input, gradient of embedding": (lambda d, w: multiply(d, w.T), gates[0], matrices[0]),
        "input, gradient of weights": (lambda x, d: multiply(x.T, d), states[0], gates[0]),
    }
    return {name: _ready(function, *operands) for name, (function, *operands) in timed.items()}


def large_product(side: int, dtype: jnp.dtype) -> Callable[[], Any]:
    """One square product, sums in float32."""
    matrix = jnp.ones((side, side), dtype)
    return _ready(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32), matrix, matrix)


def _ready(function, *operands):
    """A compiled call of `function`. It writes over its last result: fresh memory would cost time
    page by page.
    """
    compiled = jax.jit(lambda _, *operands: function(*operands), donate_argnums=0, keep_unused=True)
    held = [jax.jit(function)(*operands)]

    def call():
        held[0] = compiled(held[0], *operands)
        return held[0]

    return call
