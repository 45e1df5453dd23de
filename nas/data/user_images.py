"""Images of the user's own: one npz file.

It holds `images` and `labels`, which are split by a rule; or `train_images`, `train_labels`,
`test_images` and `test_labels`, and perhaps `validation_images` and `validation_labels`. Nothing is
prepared or copied, and a run that continues or is opened checks that it has not changed.
"""

import pathlib

import numpy as np

from nas.arrays import load_arrays
from nas.errors import UserError


def read(raw_dir: str | None, data_dir: str | None) -> dict:
    """{split: (images uint8 [n, H, W, channels], labels [n])}.

    Without splits, of every ten images, in their order, eight train, one validates, one tests;
    without a validation split, of every ten training images one validates.

    Raises:
      UserError: no file is given, it cannot be read, an array is missing, or one is of another
        shape or type; names the file and the array.
    """
    del data_dir  # nothing is prepared
    if not raw_dir:
        raise UserError(
            "data.source=arrays reads your own file: --raw_dir=FILE.npz with images uint8 "
            "[n, height, width, channels] and labels [n]"
        )
    path = pathlib.Path(raw_dir)
    arrays = load_arrays(path, sealed=False)

    def pair(prefix):
        return _pair(path, arrays, prefix)

    if "images" in arrays:
        images, labels = pair("")
        turn = np.arange(len(images)) % 10
        masks = {"train": turn < 8, "validation": turn == 8, "test": turn == 9}
        return {split: (images[mask], labels[mask]) for split, mask in masks.items()}
    train, test = pair("train_"), pair("test_")
    if "validation_images" in arrays:
        return {"train": train, "validation": pair("validation_"), "test": test}
    held_out = np.arange(len(train[0])) % 10 == 9
    validation = tuple(array[held_out] for array in train)
    return {
        "train": tuple(array[~held_out] for array in train),
        "validation": validation,
        "test": test,
    }


def _pair(path, arrays, prefix):
    for name in (f"{prefix}images", f"{prefix}labels"):
        if name not in arrays:
            held = ", ".join(arrays) or "nothing"
            raise UserError(f"{path}: the array {name} is missing; it holds {held}")
    images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype != np.uint8:
        raise UserError(
            f"{path}: {prefix}images must be uint8 [n, height, width, channels], got "
            f"{images.dtype} {list(images.shape)}"
        )
    if labels.shape != (len(images),):
        raise UserError(
            f"{path}: {prefix}labels must be [{len(images)}], one for every image, got "
            f"{list(labels.shape)}"
        )
    if labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise UserError(f"{path}: {prefix}labels must be whole numbers from 0 on")
    if len(labels) and labels.max() > np.iinfo(np.int32).max:
        raise UserError(f"{path}: {prefix}labels hold {labels.max()}, too large for a class")
    return images, labels
