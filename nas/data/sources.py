"""Raw text that is used only if it is the text that the results were computed on."""

import hashlib
import os

from nas.errors import UserError


def read_text(path: str | os.PathLike, sha256: str) -> str:
    """The text of a file.

    Raises:
      UserError: the file is missing or unreadable, or `check_text` rejects its content; names the
        path.
    """
    return check_text(os.fspath(path), read_bytes(path), sha256)


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file.

    Raises:
      UserError: the file is missing or unreadable; names the path.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{os.fspath(path)}: no such file") from None
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from None


def check_text(name: str, content: bytes, sha256: str) -> str:
    """`content` decoded. A checksum alone does not say what is wrong, so the checks that say more
    come first.

    Raises:
      UserError: `content` is empty, is not UTF-8 or has another SHA-256; names `name`.
    """
    if not content:
        raise UserError(f"{name}: the file is empty")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}: not UTF-8 text, byte {error.start} is 0x{content[error.start]:02x}"
        ) from None
    check_bytes(name, content, sha256)
    return text


def check_bytes(name: str, content: bytes, sha256: str) -> None:
    """Checks that `content` has a SHA-256.

    Raises:
      UserError: it has another; names `name`.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f"{name}: wrong checksum, SHA-256 {found[:12]}... instead of {sha256[:12]}...; "
            f"the file ({len(content):,} bytes) is cut short, edited or another version"
        )
