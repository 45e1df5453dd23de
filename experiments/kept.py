"""Finished pieces of a study, each with a description of what it is of: another one is not read."""

import hashlib
import json
import pathlib

import numpy as np

from nas.arrays import load_arrays, save_arrays
from nas.errors import UserError


def read(path: pathlib.Path, described: object) -> dict[str, np.ndarray] | None:
    """The arrays of a piece; None where there is none of this description."""
    try:
        saved = load_arrays(path)
    except UserError:  # absent, or cut off
        return None
    return saved if str(saved.pop("stamp", None)) == json.dumps(described) else None


def write(path: pathlib.Path, described: object, arrays: dict[str, np.ndarray]) -> None:
    """Keeps a piece."""
    save_arrays(path, arrays | {"stamp": np.array(json.dumps(described))})


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of the bytes of arrays, for a description."""
    joined = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(joined).hexdigest()
