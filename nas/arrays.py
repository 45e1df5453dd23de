"""Arrays in files of numpy: read whole and checked, or refused in one line. Imports no JAX."""

import lzma
import pathlib
import struct
import tokenize
import zipfile
import zlib

import numpy as np

from nas.errors import UserError, one_line

# What numpy, zipfile and the decompressors raise of a file that is cut, changed or of another kind.
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


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """name -> array of an npz file; the one array of an npy file has the name "".

    Raises:
      UserError: there is no such file, or it is not such a file, or damaged.
    """
    try:
        saved = np.load(path, allow_pickle=False)
        if isinstance(saved, np.ndarray):
            return {"": saved}
        with saved:
            found = {name: saved[name] for name in saved.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder") from None
    except _UNREADABLE as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path} is damaged: its member {name} is not an array of numpy")
    return found


def save_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a compressed npz file, all of it or nothing.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {one_line(error)}") from error
