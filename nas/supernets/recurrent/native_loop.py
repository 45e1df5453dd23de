"""The time loop in C++, for CPUs, where the one that XLA compiles takes far longer.

On a CPU XLA runs a time loop as thousands of small operations: it divides each small product
between the cores anew, and computes what lies between two products on one core. native_loop.cc
gives each core some rows of the batch instead, through all steps and nodes. Without a compiler
XLA's loops are used, and a warning says so.

Arguments are those of time_loop.py; products in bfloat16 are left to XLA.
"""

import functools
import pathlib
import threading

import chex
import jax
import numpy as np

from nas.supernets import native
from nas.types import Array

_SOURCE = pathlib.Path(__file__).with_suffix(".cc")
# columns of a packed matrix are padded to a multiple of this, the longest vector of any CPU
_LANES = 16
_ONE_AT_A_TIME = threading.Lock()

# (parent, gate, candidate) of each node, and the state before it is clipped
Saved = tuple[tuple[tuple[Array, Array, Array], ...], Array]


def available(dtype: str) -> bool:
    """Whether a CPU computes, and the loop for states of type `dtype` is compiled or can be."""
    return _library(dtype) is not None


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for products in bfloat16, which this loop does not use. May
    be called only where the loop is `available`.
    """
    return bool(_library("float32").multiplies_bfloat16())


def prepare() -> None:
    """Begins to compile the loop in a thread, if need be, while the caller goes on."""
    threading.Thread(target=available, args=("float32",), daemon=True).start()


def forward(max_norm, matmul, inputs, *, keep: bool = False) -> tuple[Array, Saved | None]:
    """[T, B, H] states after each token; and, if `keep`, what `backward` needs, [T, B, H] each.


    Args:
      inputs: `LoopInputs`.
    """
    hidden, projected = inputs.hidden, inputs.projected
    nodes, steps, (rows, width) = len(inputs.recurrent), len(projected), hidden.shape
    kept = [(steps, rows, width)] * (1 + 3 * nodes if keep else 0)
    shapes = [(nodes, width * _padded(2 * width)), (steps, rows, width), *kept]
    _, states, *kept = _call("forward", shapes, max_norm, matmul, inputs, hidden, projected)
    if not keep:
        return states, None
    raw, *kept = kept
    return states, (tuple(zip(kept[0::3], kept[1::3], kept[2::3], strict=True)), raw)


def backward(
    max_norm, matmul, inputs, saved: Saved, gradient: Array
) -> tuple[Array, tuple[Array, ...]]:
    """The gradients of the first state [B, H] and of the N pre-activations [T, B, 2H].

    Args:
      inputs: `LoopInputs`, of which projected and hidden are not read.
      saved: what `forward` kept.
      gradient: [T, B, H] of the states.
    """
    nodes, (steps, rows, width) = len(inputs.recurrent), gradient.shape
    kept, raw = saved
    shapes = [
        (nodes, 2 * width * _padded(width)),
        (rows, width),
        *[(steps, rows, 2 * width)] * nodes,
    ]
    _, of_hidden, *of_pre = _call(
        "backward", shapes, max_norm, matmul, inputs, gradient, raw, *sum(kept, ())
    )
    return of_hidden, tuple(of_pre)


def _call(name, shapes, max_norm, matmul, inputs, *operands):
    cell, recurrent, mask = inputs.cell, inputs.recurrent, inputs.mask
    dtype = mask.dtype
    # The C++ takes the arrays to be of this type without asking.
    chex.assert_type((*recurrent, *operands), dtype)
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    call = jax.ffi.ffi_call(f"nas_{name}_{dtype}", results, vmap_method="sequential")
    integers = (
        np.int32(matmul == "rounded"),
        cell.slot.astype(np.int32),
        cell.activation.astype(np.int32),
    )
    return call(
        *integers, cell.output.astype(dtype), mask, dtype.type(max_norm), *recurrent, *operands
    )


def _library(dtype):
    with _ONE_AT_A_TIME:
        return _register(dtype)


@functools.cache
def _register(dtype):
    """The library whose loops XLA can now call; None: there is none for this device or type, or it
    could not be compiled.
    """
    return native.offer(_SOURCE, dtype, ("forward", "backward"), "time loops")


def _padded(columns):
    return -(-columns // _LANES) * _LANES
