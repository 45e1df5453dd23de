"""Finished pieces of a study, each with a description of what it is of: another one is not read."""

import hashlib
import json
import pathlib

import numpy as np

from nas.arrays import load_arrays, save_arrays
from nas.data.table import ScoreTable
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


def digest(table: ScoreTable) -> str:
    """What tells tables apart."""
    columns = (
        np.ascontiguousarray(table.scores[column]).tobytes() for column in sorted(table.scores)
    )
    return hashlib.sha256(b"".join(columns)).hexdigest()
