"""A finished run on random tokens, and copies of it."""

import shutil

import numpy as np
import pytest

from nas.data import text
from nas.data.text import Corpus
from tests.run_directory.one_run import CONFIG, start


@pytest.fixture(scope="module", autouse=True)
def corpus(compiled_once):
    """A corpus of random tokens instead of one that must be prepared."""
    rng = np.random.default_rng(0)
    streams = [rng.integers(0, 50, length, dtype=np.int32) for length in (200, 120, 100)]
    with pytest.MonkeyPatch.context() as patch:
        types = tuple(map(str, range(50)))
        patch.setattr(text, "load_corpus", lambda *args, **kwargs: Corpus(*streams, types))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    start(CONFIG, workdir, data_dir="somewhere")
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of a finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"
