"""CIFAR-10 (Krizhevsky 2009) as a TFDS data set, from official files or from the network.

`--raw_dir` is a folder with one of the official archives, or with what is unpacked from it:
cifar-10-binary.tar.gz or cifar-10-batches-bin, cifar-10-python.tar.gz or cifar-10-batches-py. The
last 5,000 training images validate, as in ENAS.
"""

import http.client
import io
import pathlib
import pickle
import tarfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from nas.data import download, prepared
from nas.data.sources import check_bytes, read_bytes
from nas.errors import UserError, one_line

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SIDE, CHANNELS, CLASSES = 32, 3, 10
TRAIN, VALIDATION, TEST = 45_000, 5_000, 10_000
_BATCH = 10_000  # images in an official file
_BLOCK = 1000  # images in a TFDS example: one by one they would take five times as long
_IMAGE = SIDE * SIDE * CHANNELS


class _Form(NamedTuple):
    """A form in which the data set is published."""

    archive: str
    sha256: str
    folder: str
    files: tuple[str, ...]  # training batches in their order, then the test batch


FORMS = (
    _Form(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        "cifar-10-batches-bin",
        (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    ),
    _Form(
        "cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    ),
)


class Cifar10Images(tfds.core.GeneratorBasedBuilder):
    """One example per 1,000 images, in the official order."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, raw_dir: str | None = None, **kwargs):
        """`raw_dir`: the folder with the official files; None downloads them."""
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    def _info(self):
        pixels = tfds.features.Tensor(
            shape=(None, SIDE, SIDE, CHANNELS), dtype=np.uint8, encoding="bytes"
        )
        labels = tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="CIFAR-10, one example per 1,000 images, in the official order.",
            features=tfds.features.FeaturesDict({"images": pixels, "labels": labels}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # its downloads retry for minutes without a network, and need TensorFlow
        images, labels = _official(self._raw_dir)
        whole, held = TRAIN + VALIDATION, slice(TRAIN, TRAIN + VALIDATION)
        splits = {"train": slice(0, TRAIN), "validation": held, "test": slice(whole, None)}
        return {
            split: self._generate_examples(images[rows], labels[rows])
            for split, rows in splits.items()
        }

    def _generate_examples(self, images, labels):
        for start in range(0, len(images), _BLOCK):
            rows = slice(start, start + _BLOCK)
            yield start, {"images": images[rows], "labels": labels[rows]}


def read(raw_dir: str | None, data_dir: str | None) -> dict:
    """{split: (images uint8 [n, 32, 32, 3], labels [n])}: 45,000, 5,000 and 10,000 images.

    Raises:
      UserError: official files are missing, damaged or cannot be downloaded, or what was prepared
        is damaged.
    """
    options = {"raw_dir": raw_dir} if raw_dir else {}
    return prepared.load("data cifar10", Cifar10Images, _splits, data_dir=data_dir, **options)


def _splits(sources: Mapping[str, Any]) -> dict:
    found = {}
    for split, count in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        examples = sources[split].__getitems__(list(range(len(sources[split]))))
        images, labels = (
            np.concatenate([example[name] for example in examples]) for name in ("images", "labels")
        )
        if len(images) != count or len(labels) != count or labels.max() >= CLASSES:
            raise UserError(f"the {split} split is not of {count:,} images of {CLASSES} classes")
        found[split] = images, labels
    return found


def _official(raw_dir):
    """All 60,000 images [n, 32, 32, 3] and labels [n], training first."""
    if raw_dir is None:
        return _unpacked(FORMS[0], _archive_files(FORMS[0], _download(), URL), URL)
    folder = pathlib.Path(raw_dir).expanduser()
    names = ", ".join(name for form in FORMS for name in (form.archive, form.folder))
    if not folder.is_dir():
        raise UserError(f"--raw_dir {folder}: no such folder; it must contain one of {names}")
    for form in FORMS:
        archive = folder / form.archive
        if archive.is_file():
            return _unpacked(form, _archive_files(form, read_bytes(archive), archive), archive)
        for place in (folder / form.folder, folder):
            if all((place / name).is_file() for name in form.files):
                return _unpacked(form, [read_bytes(place / name) for name in form.files], place)
    raise UserError(f"--raw_dir {folder}: it must contain one of {names} with all its files")


def _unpacked(form, contents, place):
    read = _binary if form.folder.endswith("bin") else _pickled
    pairs = [
        read(content, f"{place}: {name}")
        for name, content in zip(form.files, contents, strict=True)
    ]
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    images = images.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels


def _binary(content, where):
    size = _BATCH * (1 + _IMAGE)
    if len(content) != size:
        raise UserError(f"{where}: has {len(content):,} bytes, a batch has {size:,}")
    rows = np.frombuffer(content, np.uint8).reshape(_BATCH, 1 + _IMAGE)
    return rows[:, 1:], _checked(rows[:, 0], where)


def _pickled(content, where):
    try:
        batch = _Arrays(io.BytesIO(content), encoding="bytes").load()
        images = np.asarray(batch[b"data"], np.uint8).reshape(_BATCH, _IMAGE)
        labels = np.asarray(batch[b"labels"]).reshape(_BATCH)
    except Exception as error:  # bytes that are no pickle raise errors of any kind
        raise UserError(f"{where}: is not a batch of CIFAR-10: {one_line(error)}") from error
    return images, _checked(labels, where)


def _checked(labels, where):
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise UserError(f"{where}: label {labels.max()}; labels must be 0..{CLASSES - 1}")
    return labels.astype(np.uint8)


class _Arrays(pickle.Unpickler):
    """Unpickles arrays of numpy, and refuses everything else that a pickle could name."""

    def find_class(self, module, name):
        if module.removeprefix("numpy.").startswith(("core.multiarray", "_core.multiarray")) or (
            module == "numpy" and name in ("ndarray", "dtype")
        ):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):  # how bytes are kept in old pickles
            return super().find_class(module, name)
        raise UserError(f"names {module}.{name}")


def _archive_files(form, content, where):
    check_bytes(str(where), content, form.sha256)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [archive.extractfile(f"{form.folder}/{name}").read() for name in form.files]


def _download():
    try:
        with download.open_url(URL) as response:
            return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot download CIFAR-10 ({download.reason(error)}): put {FORMS[0].archive} in a "
            "folder and pass --raw_dir=FOLDER"
        ) from None
