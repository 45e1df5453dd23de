"""Compiles C++ of this package for the machine's CPU, and makes it known to XLA.

A source is compiled on first use, by the machine's own compiler, and kept in the user's cache
folder.
"""

import ctypes
import hashlib
import logging
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import jax
import jaxlib

from nas.user_cache import user_cache

_OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC")
_TYPES = {"float32": "float", "float64": "double"}
_HEADER = pathlib.Path(__file__).with_suffix(".h")
_ROOT = _HEADER.parents[2]  # the folder that the sources' #include paths start from


def load(source: pathlib.Path, **macros: str) -> ctypes.CDLL:
    """The compiled library of a source, kept in the user's cache; if that cannot be written, no
    file is left behind.

    Args:
      macros: name -> value, defined for the compiler.

    Raises:
      OSError: there is no compiler, or it fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = user_cache("native") or pathlib.Path(temporary)
        return ctypes.CDLL(str(_compiled(source, macros, folder)))


def offer(source: pathlib.Path, dtype: str, names: Sequence[str], what: str) -> ctypes.CDLL | None:
    """The library of a source for one type of numbers, whose functions are then known to XLA as
    nas_NAME_DTYPE.

    Args:
      names: names of the functions.
      what: what the functions are, such as "time loops", for the warning if compiling fails.

    Returns:
      None: there is no library for this device or type, or it could not be compiled.
    """
    if jax.default_backend() != "cpu" or dtype not in _TYPES:
        return None
    try:
        library = load(source, REAL=_TYPES[dtype])
    except OSError as error:
        logging.getLogger(__name__).warning("%s run in XLA, which is slower: %s", what, error)
        return None
    for name in names:
        jax.ffi.register_ffi_target(
            f"nas_{name}_{dtype}", jax.ffi.pycapsule(getattr(library, name)), platform="cpu"
        )
    return library


def _compiled(source, macros, folder):
    """The library in `folder`, compiled if there is none yet for this source, compiler and JAX."""
    named = shlex.split(os.environ.get("CXX", ""))  # may be several words: ccache g++
    compilers = [named] if named else [["c++"], ["g++"], ["clang++"]]
    compiler = next((words for words in compilers if shutil.which(words[0])), None)
    if compiler is None:
        tried = ", ".join(shlex.join(words) for words in compilers)
        raise OSError(
            f"no C++ compiler was found (tried {tried}); the variable CXX can name another"
        )
    defined = [f"-D{name}={value}" for name, value in macros.items()]
    includes = [f"-I{jax.ffi.include_dir()}", f"-I{_ROOT}"]
    command = [*compiler, *_OPTIONS, *defined, *includes, str(source)]
    version = subprocess.run([*compiler, "--version"], capture_output=True).stdout
    content = [
        shlex.join(command).encode(),
        version,
        jaxlib.__version__.encode(),
        _HEADER.read_bytes(),
        source.read_bytes(),
    ]
    key = hashlib.sha256(b"\0".join(content)).hexdigest()[:16]
    library = folder / "_".join([source.stem, *macros.values(), f"{key}.so"])
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as made:
            result = subprocess.run(
                [*command, "-o", f"{made}/made.so"], capture_output=True, text=True
            )
            if result.returncode:
                raise OSError(
                    f"{shlex.join(command)} failed: "
                    f"{result.stderr.strip().partition(os.linesep)[0]}"
                )
            os.replace(f"{made}/made.so", library)
    return library
