"""Labelled images as a data set: from the name of a source to batches."""

import dataclasses
import importlib
from typing import NamedTuple

import numpy as np

from nas.config import check, check_choice
from nas.errors import UserError
from nas.tasks import Splits

# Where images come from: name -> module, imported when they are loaded. Each has
# `read(raw_dir, data_dir) -> {split: (images uint8 [n, H, W, channels], labels [n])}`.
SOURCES = {
    "mnist": "nas.data.mnist",  # 5,000 digits of 28 x 28, which come with the installation
    "digits": "nas.data.digits",  # 1,797 of 8 x 8, likewise
    "cifar10": "nas.data.cifar10",  # downloaded, or from --raw_dir
    "arrays": "nas.data.user_images",  # the user's own, from --raw_dir
}
SPLITS = ("train", "validation", "test")


class Images(NamedTuple):
    """One batch, or [K, ...] batches stacked."""

    image: np.ndarray  # [B, H, W, channels] uint8
    label: np.ndarray  # [B] int32


class Labelled(NamedTuple):
    """Batches of one split, a `nas.tasks.Stream`; what does not fill a batch is left out."""

    images: np.ndarray  # [n, H, W, channels] uint8
    labels: np.ndarray  # [n] int32
    batch: int  # images of a batch, over all processes
    rows: slice  # the rows of every batch that are taken
    shuffled: bool  # whether every pass has an order of its own

    @classmethod
    def of(
        cls, name: str, images: np.ndarray, labels: np.ndarray, batch: int, shuffled: bool
    ) -> "Labelled":
        """The batches of these images.

        Raises:
          UserError: too few images for one batch.
        """
        if len(images) < batch:
            raise UserError(f"the {name} split has {len(images)} images, a batch is {batch}")
        return cls(images, labels, batch, slice(0, batch), shuffled)

    @property
    def length(self) -> int:
        return len(self.images) // self.batch

    @property
    def examples(self) -> int:
        return self.rows.stop - self.rows.start

    def take(self, first: int, count: int) -> Images:
        numbers = np.arange(first, first + count)
        passes, places = numbers // self.length, numbers % self.length
        picked = np.empty((count, self.examples), np.int64)
        for number in np.unique(passes):
            order = self._order(number).reshape(self.length, self.batch)
            own = passes == number
            picked[own] = order[places[own], self.rows]
        return Images(self.images[picked], self.labels[picked])

    def head(self, examples: int) -> Images:
        wanted = min(self.length, -(-examples // self.batch)) if examples else self.length
        return self.take(0, wanted)

    def share(self, rows: slice) -> "Labelled":
        return self._replace(rows=rows)

    def halves(self, slices: int, seed: int) -> tuple[list[Images], list[Images]]:
        """The images with even and with odd numbers, the even ones shuffled."""
        even, odd = np.arange(0, len(self.images), 2), np.arange(1, len(self.images), 2)
        batches = len(odd) // self.batch
        if not batches:
            raise UserError(f"half of the {len(self.images)} images are fewer than a batch")
        while slices > batches:
            slices //= 2
        even = np.random.default_rng(seed).permutation(even)
        return tuple(self._slices(order, batches // slices, slices) for order in (even, odd))

    def _slices(self, order, batches, slices):
        picked = order[: slices * batches * self.batch].reshape(slices, batches, self.batch)
        return [Images(self.images[part], self.labels[part]) for part in picked]

    def _order(self, number):
        whole = self.length * self.batch
        if not self.shuffled:
            return np.arange(whole)
        return np.random.default_rng(int(number)).permutation(len(self.images))[:whole]


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A `nas.tasks.Data`: a source of images, and how they are cut into batches.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    source: str = "mnist"  # one of SOURCES
    downscale: int = 2  # side of the squares that are averaged into one pixel; 1: not averaged
    size: int = 14  # height and width that the network reads
    channels: int = 1
    classes: int = 10
    batch: int = 64  # images in a training batch
    eval_batch: int = 250  # images in a batch for validation and rewards

    def __post_init__(self):
        check_choice("source", self.source, tuple(SOURCES))
        for name in ("downscale", "channels", "batch"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        check("size", self.size >= 4, "at least 4: it is halved twice", self.size)
        check("classes", self.classes >= 2, "at least 2", self.classes)
        check("eval_batch", self.eval_batch >= 2, "at least 2", self.eval_batch)

    @property
    def name(self) -> str:
        return self.source

    def examples(self, rows: int) -> int:
        return rows

    def load(self, *, raw_dir: str | None = None, data_dir: str | None = None) -> Splits:
        """Batches of the images. They are shuffled once, so that a batch has all classes: it is
        normalised by its own statistics.

        Raises:
          UserError: the images cannot be obtained, are damaged or too few, or their size, channels
            or classes are not those of the settings.
        """
        found = importlib.import_module(SOURCES[self.source]).read(raw_dir, data_dir)
        streams = []
        for split in SPLITS:
            images, labels = (array for array in found[split])
            images = downscaled(images, self.downscale)
            self._check(split, images, labels)
            order = np.random.default_rng(0).permutation(len(images))
            train = split == "train"
            batch = self.batch if train else self.eval_batch
            labels = labels[order].astype(np.int32)
            streams.append(Labelled.of(split, images[order], labels, batch, train))
        return Splits(*streams)

    def _check(self, split, images, labels):
        wanted = (self.size, self.size, self.channels)
        if images.shape[1:] != wanted:
            found = " x ".join(map(str, images.shape[1:]))
            after = f", averaged over {self.downscale} x {self.downscale}," * (self.downscale > 1)
            raise UserError(
                f"the {split} images of {self.source}{after} are {found}; the configuration says "
                f"{' x '.join(map(str, wanted))} (data.size, data.channels, data.downscale)"
            )
        if len(labels) and labels.max() >= self.classes:
            place = int(np.argmax(labels >= self.classes))
            raise UserError(
                f"{split} label {place} of {self.source} is {labels[place]}, not in "
                f"0..{self.classes - 1} (data.classes)"
            )


def downscaled(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 averages of squares of `side` x `side` pixels.

    Raises:
      UserError: the images cannot be divided into such squares.
    """
    if side == 1:
        return images
    n, height, width, channels = images.shape
    if height % side or width % side:
        raise UserError(
            f"config field data.downscale: images of {height} x {width} cannot be divided into "
            f"squares of {side} x {side}"
        )
    squares = images.reshape(n, height // side, side, width // side, side, channels)
    return np.rint(squares.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)
