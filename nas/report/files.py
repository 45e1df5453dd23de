"""Writing a file so that a reader never sees half of it."""

import os
import pathlib


def write_atomic(path: str | os.PathLike, text: str) -> pathlib.Path:
    """Writes `text` as UTF-8 beside `path`, then renames: after a crash the old file, or none, is
    still there.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
