"""Arrays beside the checkpoints: whole, or not there, or called damaged."""

import errno

import numpy as np
import pytest

from nas.checkpoint import load_arrays, save_arrays
from nas.errors import UserError
from tests.helpers import assert_same_bits


def test_arrays_come_back(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array([np.nan, -0.0], np.float32)}
    save_arrays(tmp_path / "a.npz", arrays)
    assert_same_bits(load_arrays(tmp_path / "a.npz"), arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_arrays_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_arrays(path, {"a": np.arange(3)})

    def half(file, **arrays):
        file.write(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(UserError, match=f"^cannot write {path}: .*No space left on device"):
        save_arrays(path, {"a": np.arange(4)})
    assert load_arrays(path)["a"].tolist() == [0, 1, 2]
