"""What counts as constant: values that differ by no more than rounding explains."""

import numpy as np

ROUNDING = 1e-12  # relative error of what is computed in double precision


def is_constant(values: np.ndarray) -> bool:
    """Whether the numbers of an array, or else each column of a matrix [n, H], are the same up to
    rounding, relative to the largest of all.

    Single precision is allowed four units in its last place.
    """
    return bool(np.all(constant_columns(values)))


def constant_columns(values: np.ndarray) -> np.ndarray:
    """[H] whether each column of values [n, H] is constant, relative to the largest of all."""
    values = np.asarray(values)
    if not values.size:
        return np.ones(values.shape[1:], bool)
    precision = np.finfo(values.dtype).eps if values.dtype.kind == "f" else 0.0
    allowed = max(ROUNDING, 4 * precision) * np.abs(values).max()
    return np.ptp(values, axis=0) <= allowed
