"""The Penn Treebank: from a folder, from a network that does not answer, and damaged."""

import errno
import hashlib
import io
import shutil
import threading

import pytest

from nas.data import download, ptb
from nas.data.sources import check_text
from nas.data.text import END, UNKNOWN, load_corpus
from nas.errors import UserError
from tests.data.corpora import TINY, TINY_PTB, fails


def test_ptb_from_a_folder(raw, tmp_path):
    corpus = load_corpus(*TINY_PTB, raw_dir=str(raw), data_dir=str(tmp_path))
    assert corpus.vocabulary == (
        UNKNOWN,
        END,
        "b",
        "a",
        "c",
        "d",
    )  # equal counts: the first seen first
    assert corpus.train.tolist() == [2, 3, 0, 2, 1, 4, 2, 3, 5, 1, 1, 0, 3, 0, 1]
    assert corpus.valid.tolist() == [3, 0, 1]
    assert corpus.test.tolist() == [5, 1, 5, 0, 1]


def test_prepared_ptb_needs_neither_folder_nor_network(raw, tmp_path):
    load_corpus(*TINY_PTB, raw_dir=str(raw), data_dir=str(tmp_path))
    shutil.rmtree(raw)
    assert len(load_corpus(*TINY_PTB, data_dir=str(tmp_path)).train) == 15


def test_a_vocabulary_larger_than_the_text_keeps_every_type(raw, tmp_path):
    corpus = load_corpus("ptb", 50, raw_dir=str(raw), data_dir=str(tmp_path))
    assert corpus.vocabulary == (UNKNOWN, END, "b", "a", "c", "d", "e", "'s")
    assert corpus.valid.tolist() == [3, 0, 1]


def test_ptb_keeps_the_order_of_lines_over_many_examples(raw, tmp_path, monkeypatch):
    text = "".join(f" w{i} \n" for i in range(1050))
    (raw / "ptb.train.txt").write_text(text)
    monkeypatch.setitem(ptb.PtbText.SHA256, "train", hashlib.sha256(text.encode()).hexdigest())
    corpus = load_corpus("ptb", 2000, raw_dir=str(raw), data_dir=str(tmp_path))
    assert corpus.train[::2].tolist() == list(range(2, 1052))
    assert set(corpus.train[1::2].tolist()) == {1}


def test_the_real_ptb_checksums_are_the_documented_ones():
    assert [ptb.PtbText.SHA256[split][:12] for split in ptb.FILES] == [
        "fcea919f6cf8",
        "c9fe6985fe0d",
        "dd65dff31e70",
    ]
    assert all(len(digest) == 64 for digest in ptb.PtbText.SHA256.values())


def test_ptb_downloads_the_three_files(raw, tmp_path, monkeypatch):
    asked = []

    def answer(url, timeout):
        asked.append(url)
        assert timeout <= 5
        return io.BytesIO((raw / url.rsplit("/", 1)[1]).read_bytes())

    monkeypatch.setattr("urllib.request.urlopen", answer)
    assert len(load_corpus(*TINY_PTB, data_dir=str(tmp_path)).train) == 15
    assert asked == [ptb.URL + name for name in ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")]


def test_a_download_of_something_else_is_refused(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda url, timeout: io.BytesIO(b"<html>sign in</html>")
    )
    assert f"{ptb.URL}ptb.train.txt: wrong checksum" in fails(TINY_PTB, data_dir=tmp_path)
    assert not list((tmp_path / "ptb_text").iterdir())


def test_ptb_offline(tmp_path):
    message = fails(TINY_PTB, data_dir=tmp_path)
    assert message == (
        f"cannot download the ptb corpus ([Errno {errno.ENETUNREACH}] Network is unreachable): "
        "put ptb.train.txt, "
        "ptb.valid.txt and ptb.test.txt in a folder and pass --raw_dir=FOLDER"
    )


def test_ptb_where_the_network_never_answers(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: release.wait(30))
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    message = fails(TINY_PTB, data_dir=tmp_path)
    release.set()
    assert "no answer within 0.05 s" in message and "--raw_dir" in message


def test_ptb_where_the_connection_breaks(tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        def read(self):
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Broken())
    message = fails(TINY_PTB, data_dir=tmp_path)
    assert "Connection reset by peer" in message and "--raw_dir" in message


def test_ptb_folder_missing(tmp_path):
    message = fails(TINY_PTB, raw_dir=tmp_path / "nowhere", data_dir=tmp_path)
    assert f"{tmp_path / 'nowhere'}: no such folder" in message
    assert "ptb.train.txt, ptb.valid.txt and ptb.test.txt" in message


def test_ptb_files_missing(raw, tmp_path):
    (raw / "ptb.valid.txt").unlink()
    (raw / "ptb.test.txt").unlink()
    assert f"{raw}: ptb.valid.txt, ptb.test.txt missing" in fails(
        TINY_PTB, raw_dir=raw, data_dir=tmp_path
    )


@pytest.mark.parametrize("split", ptb.FILES)
def test_ptb_file_cut_short(raw, tmp_path, split):
    path = raw / ptb.FILES[split]
    path.write_bytes(TINY[split].encode()[:-2])
    message = fails(TINY_PTB, raw_dir=raw, data_dir=tmp_path)
    assert message.startswith(
        f"{path}: wrong checksum, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}... "
        "instead of "
    )
    assert ptb.PtbText.SHA256[split][:12] in message and "cut short" in message


def test_ptb_file_empty(raw, tmp_path):
    (raw / "ptb.test.txt").write_bytes(b"")
    assert (
        fails(TINY_PTB, raw_dir=raw, data_dir=tmp_path)
        == f"{raw / 'ptb.test.txt'}: the file is empty"
    )


def test_ptb_file_not_utf8(raw, tmp_path):
    (raw / "ptb.train.txt").write_bytes(b" caf\xe9 \n")
    message = fails(TINY_PTB, raw_dir=raw, data_dir=tmp_path)
    assert message == f"{raw / 'ptb.train.txt'}: not UTF-8 text, byte 4 is 0xe9"


def test_ptb_file_unreadable(raw, tmp_path):
    (raw / "ptb.train.txt").unlink()
    (raw / "ptb.train.txt").mkdir()
    assert f"{raw / 'ptb.train.txt'}: cannot be read" in fails(
        TINY_PTB, raw_dir=raw, data_dir=tmp_path
    )


def test_checks_run_from_the_most_telling():
    with pytest.raises(UserError, match="file is empty"):
        check_text("f", b"", "0" * 64)
    with pytest.raises(UserError, match="not UTF-8 text, byte 1 is 0xff"):
        check_text("f", b"a\xff", "0" * 64)
    assert check_text("f", b"\xc3\xa9", hashlib.sha256(b"\xc3\xa9").hexdigest()) == "é"
