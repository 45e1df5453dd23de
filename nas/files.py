"""Writing a file so that a reader never sees half of it. Imports no JAX."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from nas.errors import UserError


def write_atomic(path: str | os.PathLike, text: str) -> pathlib.Path:
    """Writes `text` as UTF-8 beside `path`, then renames: a crash leaves the old file, or none, but
    never half of one.

    Raises:
      UserError: the disk is full or the folder cannot be made or written.
    """
    path = pathlib.Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write to; what is written there replaces `path` in the end.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError of the block into a one-line error that `path` cannot be written.

    Raises:
      UserError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
