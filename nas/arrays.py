"""Arrays in numpy files: read whole and checked, or refused with a one-line error. Imports no JAX.

Files written here are sealed: one extra array holds the SHA-256 of all others, so that a file that
was edited is recognised.
"""

import hashlib
import lzma
import pathlib
import struct
import tokenize
import zipfile
import zlib

import numpy as np

from nas.errors import UserError, one_line
from nas.files import replacing

_SEAL = "sha256"

# What numpy, zipfile and the decompressors raise for a file that is cut off, altered or no array.
_UNREADABLE = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_arrays(path: pathlib.Path, *, sealed: bool = True) -> dict[str, np.ndarray]:
    """name -> array of an npz file; the single array of an npy file has the name "".

    Args:
      sealed: whether the file was written by `save_arrays`.

    Raises:
      UserError: the file does not exist, is of another kind, or was damaged or changed.
    """
    wrong = "is damaged" if sealed else "cannot be read"
    try:
        saved = np.load(path, allow_pickle=False)
        if isinstance(saved, np.ndarray):
            found = {"": saved}
        else:
            with saved:
                found = {name: saved[name] for name in saved.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder") from None
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} {wrong}: {one_line(error)}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path} {wrong}: its member {name} is not an array of numpy")
    if sealed and not np.array_equal(found.pop(_SEAL, None), _seal(found)):
        raise UserError(f"{path} is damaged: its arrays have changed since they were saved")
    return found


def save_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a compressed npz file, whole or not at all.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays, **{_SEAL: _seal(arrays)})


def _seal(arrays):
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {np.shape(arrays[name])} ".encode())
        sha.update(array.tobytes())
    return np.frombuffer(sha.digest(), np.uint8)
