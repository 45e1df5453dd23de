"""Prepared and raw corpora; never the network."""

import errno
import hashlib
import urllib.error

import pytest

from nas.data import ptb
from nas.data.text import load_corpus
from tests.data.corpora import KJV, TINY


@pytest.fixture(scope="module")
def kjv_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kjv")
    load_corpus(*KJV, data_dir=str(folder))
    return folder


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A folder with a tiny ptb corpus, whose checksums are the expected ones."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for split, text in TINY.items():
        (folder / ptb.FILES[split]).write_bytes(text.encode())
    monkeypatch.setattr(
        ptb.PtbText, "SHA256", {s: hashlib.sha256(t.encode()).hexdigest() for s, t in TINY.items()}
    )
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError(OSError(errno.ENETUNREACH, "Network is unreachable"))

    monkeypatch.setattr("urllib.request.urlopen", refuse)
