"""A user's CSV files, plain or gzipped, line by line. Pickles are refused: loading one runs the
code in it.
"""

import csv
import gzip
import io
import pathlib
import zlib
from collections.abc import Iterator

from nas.errors import UserError

_GZIP = b"\x1f\x8b"
# a pickle; a torch file; a pickle in bzip2, as NATS-Bench comes; an array
_NOT_TEXT = (b"\x80", b"PK", b"BZh", b"\x93NUMPY")


def rows(path: pathlib.Path, text: str, first: int = 1) -> Iterator[tuple[str, list[str]]]:
    """(file and line, fields) of each line of `text` that is not empty; `first` is the number of
    its first line in the file.

    Raises:
      UserError: a line that is not CSV.
    """
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        yield from ((f"{path}, line {first - 1 + lines.line_num}", row) for row in lines if row)
    except csv.Error as error:
        raise UserError(f"{path}, line {first - 1 + lines.line_num}: {error}") from None


def read_text(path: pathlib.Path, what: str) -> str:
    """The text of a file.

    Args:
      what: says what such a file is, for the message that there is none.

    Raises:
      UserError: no such file, or not text in UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {what}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    try:
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        if data.startswith(_NOT_TEXT):
            raise UserError(
                f"{path}: not a text file; pickles are never read, since they may run code: give "
                "a CSV file"
            )
        return data.decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise UserError(f"{path}: the gzipped file is damaged or cut off") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; give a CSV file") from None
