"""A text of the user's own: in what it may come, how it is split, what is said of what it lacks."""

import gzip

import numpy as np
import pytest

from nas.data.text import load_corpus
from nas.data.user_text import BLOCK, read_splits, words
from nas.errors import UserError

TEXTS = {"train": "A cat sat.\nA dog sat.\n", "validation": "A cat ran.\n", "test": "The end.\n"}


def folder(path, texts=TEXTS, ending=".txt", encode=str.encode):
    path.mkdir(exist_ok=True)
    for name, text in texts.items():
        (path / f"{name}{ending}").write_bytes(encode(text))
    return path


def refused(place):
    with pytest.raises(UserError) as error:
        read_splits(place)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("ending", "encode"),
    [
        (".txt", str.encode),
        (".txt", lambda text: text.encode("utf-8-sig")),
        (".txt", lambda text: text.replace("\n", "\r\n").encode()),
        (".txt", lambda text: text.replace("\n", "\r").encode()),
        (".txt", lambda text: text.rstrip("\n").encode()),
        (".txt", lambda text: f"\n\n  {text} \n ---\n".encode()),
        (".txt.gz", lambda text: gzip.compress(text.encode())),
        (".txt", lambda text: gzip.compress(text.encode())),  # by what it is, not by its name
    ],
)
def test_however_it_is_written(tmp_path, ending, encode):
    assert read_splits(folder(tmp_path, ending=ending, encode=encode)) == TEXTS


def test_the_other_name_of_validation(tmp_path):
    texts = {{"validation": "valid"}.get(name, name): text for name, text in TEXTS.items()}
    assert read_splits(folder(tmp_path, texts)) == TEXTS


@pytest.mark.parametrize("by_name", [True, False])
def test_one_file_is_split_by_hundreds_of_lines(tmp_path, by_name):
    lines = [f"line {i}" for i in range(20 * BLOCK + 50)]
    (tmp_path / "book.txt").write_text("\n".join(lines))
    texts = read_splits(tmp_path / "book.txt" if by_name else tmp_path)
    assert texts["validation"].split("\n")[:-1] == lines[7 * BLOCK : 8 * BLOCK]
    assert texts["test"].split("\n")[:-1] == lines[13 * BLOCK : 14 * BLOCK]
    assert sorted("".join(texts.values()).splitlines()) == sorted(lines)


def test_a_line_of_a_million_words(tmp_path):
    texts = TEXTS | {"train": "word " * 1_000_000}
    assert len(read_splits(folder(tmp_path, texts))["train"]) == 5_000_000


def test_words():
    assert words("Don't stop, Anna\u2019s 1\u00e9r!\n") == [
        *("don", "'", "t", "stop", ",", "anna", "\u2019", "s", "1\u00e9r", "!", "\n")
    ]


def test_what_it_lacks(tmp_path):
    assert "--raw_dir=FOLDER" in refused(None)
    assert refused(tmp_path / "no") == f"{tmp_path / 'no'}: no such folder or file"
    assert "no text file in it" in refused(tmp_path)
    some = folder(tmp_path / "some", {"train": "a\n", "test": "b\n"})
    assert "validation.txt missing, and there are 2 text files" in refused(some)
    empty = folder(tmp_path / "empty", TEXTS | {"test": "\n--\n"})
    assert "empty/test.txt: the test split has no line with a word" in refused(empty)
    short = folder(tmp_path / "short", {"book": "a b\n" * 50})
    assert "book.txt: the validation split has no line with a word" in refused(short)
    other = folder(tmp_path / "other", encode=lambda text: text.encode("utf-16"))
    assert "train.txt: not UTF-8 text, byte 0" in refused(other)
    cut = folder(tmp_path / "cut", ending=".txt.gz", encode=lambda t: gzip.compress(t.encode())[:9])
    assert "the gzipped file is damaged or cut off" in refused(cut)


def test_a_corpus_of_it(tmp_path):
    """The vocabulary is the training split's; what it does not know is one word."""
    corpus = load_corpus("text", 5, raw_dir=str(folder(tmp_path)))
    assert corpus.vocabulary == ("<unk>", "<eos>", "a", "sat", ".")
    np.testing.assert_array_equal(corpus.train, [2, 0, 3, 4, 1] * 2)
    np.testing.assert_array_equal(corpus.valid, [2, 0, 0, 4, 1])
    np.testing.assert_array_equal(corpus.test, [0, 0, 4, 1])
    whole = load_corpus("text", 1000, raw_dir=str(tmp_path))
    assert whole.vocabulary == ("<unk>", "<eos>", "a", "sat", ".", "cat", "dog")
