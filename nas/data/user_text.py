"""A text of the user's own: a folder with its splits, or one file that is split by a rule.

Nothing is prepared or copied: the text is read from where it is, and a run that continues or is
opened checks that it has not changed.
"""

import gzip
import os
import pathlib
import re
import zlib

from nas.errors import UserError

SPLITS = {"train": ("train",), "validation": ("validation", "valid"), "test": ("test",)}
ENDINGS = (".txt", ".txt.gz")
BLOCK = 100  # lines that go into one split together, if there is a single file
_WORDS = re.compile(r"\n|\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks; a line end is a word of its own."""
    return _WORDS.findall(text.lower())


def read_splits(place: str | os.PathLike | None) -> dict[str, str]:
    """{split: text} of a folder or a file; lines without a word are left out.

    A folder holds train.txt, validation.txt (or valid.txt) and test.txt, each plain or gzipped; or
    one text file. A single file is cut into blocks of a hundred lines: of every twenty blocks, one
    is for validation and one for testing.

    Raises:
      UserError: no place is given, files are missing, unreadable, not text, or a split is empty.
    """
    if not place:
        raise UserError(
            "data.corpus=text reads your own text: --raw_dir=FOLDER with train.txt, "
            "validation.txt and test.txt, or with one text file"
        )
    place = pathlib.Path(place)
    found = {split: _find(place, names) for split, names in SPLITS.items()}
    if all(found.values()):
        texts = {split: _lines(path) for split, path in found.items()}
    else:
        path = _only_file(place, [split for split, path in found.items() if path is None])
        texts = {split: [] for split in SPLITS}
        for number, line in enumerate(_lines(path)):
            texts[_split_of(number // BLOCK)].append(line)
    for split, lines in texts.items():
        if not lines:
            raise UserError(f"{found[split] or path}: the {split} split has no line with a word")
    return {split: "".join(f"{line}\n" for line in lines) for split, lines in texts.items()}


def _split_of(block):
    return {7: "validation", 13: "test"}.get(block % 20, "train")


def _find(folder, names):
    for name in names:
        for ending in ENDINGS:
            if (path := folder / f"{name}{ending}").is_file():
                return path
    return None


def _only_file(place, missing):
    """The file that is to be split."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(f"{place}: no such folder or file")
    files = sorted(path for path in place.iterdir() if path.name.endswith(ENDINGS))
    if len(files) == 1:
        return files[0]
    if not files:
        raise UserError(f"{place}: there is no text file in it (.txt or .txt.gz)")
    wanted = ", ".join(f"{split}.txt" for split in missing)
    raise UserError(
        f"{place}: {wanted} missing, and there are {len(files)} text files to choose from"
    )


def _lines(path):
    """The lines of a file in UTF-8 that have a word."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text, byte {error.start} cannot be read") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise UserError(f"{path}: the gzipped file is damaged or cut off") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
