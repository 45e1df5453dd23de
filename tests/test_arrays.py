"""Arrays beside the checkpoints: whole, or not there, or called damaged."""

import contextlib
import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.arrays import load_arrays, save_arrays
from nas.errors import UserError
from tests.helpers import assert_same_bits, flip


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


def test_damaged_arrays_are_called_damaged(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match=f"^{path}: no such file"):
        load_arrays(path)
    save_arrays(path, {"a": np.random.default_rng(0).normal(size=300)})
    content, expected, rng = (
        path.read_bytes(),
        load_arrays(path)["a"].tobytes(),
        np.random.default_rng(0),
    )
    for damaged in (b"", content[: len(content) // 2], np.random.default_rng(0).bytes(500)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"^{path} is damaged: "):
            load_arrays(path)
    with pytest.raises(UserError, match=f"^{tmp_path}: is a folder"):
        load_arrays(tmp_path)
    for _ in range(200):
        flip(path, rng)
        with contextlib.suppress(UserError, KeyError):
            assert load_arrays(path)["a"].tobytes() == expected
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "packed.npz"])
@given(data=st.data())
@settings(max_examples=170, deadline=None)
def test_edited_files_are_read_or_refused(tmp_path_factory, name, data):
    """Of another's files no seal is asked: what numpy still reads is read, the rest is one line."""
    path = tmp_path_factory.mktemp("edited") / name
    save = {"a.npy": np.save, "a.npz": np.savez, "packed.npz": np.savez_compressed}[name]
    save(path, np.arange(60.0).reshape(12, 5))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path.write_bytes(content)
    try:
        assert all(isinstance(of, np.ndarray) for of in load_arrays(path, sealed=False).values())
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
