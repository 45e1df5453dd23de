"""Checkpoints: what comes back is what was saved or is called damaged, whatever happened to the
files in between.
"""

import collections
import concurrent.futures
import contextlib
import errno
import shutil
import threading

import flax.struct
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.arrays import save_arrays
from nas.checkpoint import FOLDER, Checkpoints, digest
from nas.errors import UserError
from tests.helpers import assert_same_bits, files, flip, mounted


@flax.struct.dataclass
class State:
    """Leaves of all types that a search has, with values that comparisons stumble over."""

    numbers: np.ndarray
    nested: dict
    count: np.ndarray


def state(seed):
    rng = np.random.default_rng(seed)
    return State(
        numbers=np.append(
            rng.normal(size=(200)).astype(np.float32),
            np.array([np.nan, np.inf, -0.0, 1e-45], np.float32),
        ),
        nested={
            "decisions": rng.integers(0, 4, (12, 5), dtype=np.int32),
            "weights": [
                rng.normal(size=(3, 8, 16)).astype(np.float32),
                np.zeros((4, 8), np.float32),
            ],
            "flag": np.bool_(True),
        },
        count=np.int32(seed),
    )


def progress(seed):
    return {"epoch": seed, "shared": 0, "config": {"rate": 0.1, "nested": {"name": "x"}}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run directory with the checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved")
    with opened(workdir) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step), progress(step))
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of it to damage."""
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


@contextlib.contextmanager
def opened(workdir, keep=3):
    checkpoints = Checkpoints(workdir, keep)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def restored(workdir):
    with opened(workdir) as checkpoints:
        return checkpoints.restore(state(0))


def assert_restores(found, step):
    assert_same_bits(found[0], state(step))
    assert found[1] == progress(step)


def what_became_of(workdir, damage, capfd):
    """ "detected" or "harmless", after checkpoint 2 was damaged and the files are as they were
    again.
    """
    folder = workdir / FOLDER / "2"
    keep = workdir.parent / "keep"
    shutil.copytree(folder, keep)
    damage(folder)
    capfd.readouterr()
    try:
        found = restored(workdir)
    finally:
        shutil.rmtree(folder)
        keep.rename(folder)
    error = capfd.readouterr().err
    if found[1] == progress(2):
        assert_restores(found, 2)
        assert error == ""
        return "harmless"
    assert_restores(found, 1)
    assert (
        error.startswith(f"checkpoint 2 in {workdir / FOLDER} is damaged: ")
        and error.count("\n") == 1
    ), error
    return "detected"


def test_what_comes_back_is_what_was_saved(saved):
    found = restored(saved)
    assert_restores(found, 2)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found[0]))


def test_nothing_saved_yet(tmp_path):
    assert restored(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_stay(tmp_path, keep):
    for steps in ((1, 2, 3), (5, 8)):  # of two processes
        with opened(tmp_path, keep) as checkpoints:
            for step in steps:
                checkpoints.save(step, state(step), progress(step))
    with opened(tmp_path, keep) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3, 5, 8][-keep:]
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {
        str(step) for step in (1, 2, 3, 5, 8)[-keep:]
    }
    assert_restores(restored(tmp_path), 8)


def test_a_step_that_is_saved_again_is_replaced(workdir):
    with opened(workdir) as checkpoints:
        checkpoints.save(2, state(7), progress(7))
        assert checkpoints.steps() == [1, 2]
    assert_restores(restored(workdir), 7)


def flips(workdir, number, capfd):
    """Flips one bit a time, in files chosen evenly and by their size in turn; counts what became of
    them.
    """
    rng, counts = np.random.default_rng(0), collections.Counter()
    names = [name for name, content in files(workdir / FOLDER / "2").items() if content]
    sizes = np.array([(workdir / FOLDER / "2" / name).stat().st_size for name in names])
    for i in range(number):
        name = rng.choice(names, p=None if i % 2 else sizes / sizes.sum())
        counts[
            what_became_of(workdir, lambda folder, name=name: flip(folder / name, rng), capfd)
        ] += 1
    return counts


def test_a_flipped_bit_is_detected_or_harmless(workdir, capfd):
    counts = flips(workdir, 50, capfd)
    assert counts["detected"] > 10 and counts.total() == 50


@pytest.mark.slow
def test_a_thousand_flipped_bits(workdir, capfd):
    counts = flips(workdir, 1000, capfd)
    with capfd.disabled():
        print(
            f"\nof {counts.total()} flipped bits {counts['detected']} were detected, "
            f"{counts['harmless']} harmless"
        )
    assert counts.total() == 1000


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "foreign": lambda path: path.write_bytes(np.random.default_rng(0).bytes(500)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_cut_short_empty_missing_or_foreign(workdir, damage, capfd):
    names = files(workdir / FOLDER / "2")
    counts = collections.Counter(
        what_became_of(workdir, lambda folder, name=name: DAMAGES[damage](folder / name), capfd)
        for name in names
    )
    assert counts["detected"] >= 3, counts


def test_files_of_another_checkpoint(workdir, capfd):
    def swap(folder):
        shutil.rmtree(folder / "state")
        shutil.copytree(folder.parent / "1" / "state", folder / "state")

    assert what_became_of(workdir, swap, capfd) == "detected"


def test_what_is_no_checkpoint_is_passed_over(workdir, capfd):
    for name in ("notes", "77", "3.orbax-checkpoint-tmp"):
        (workdir / FOLDER / name).mkdir()
    for name in ("notes.txt", "5"):
        (workdir / FOLDER / name).write_text("mine")
    assert_restores(restored(workdir), 2)
    assert capfd.readouterr().err.count("\n") == 1  # of the folder 77
    with opened(workdir) as checkpoints:
        checkpoints.restore(state(0))
        checkpoints.save(3, state(3), progress(3))
    assert_restores(restored(workdir), 3)
    assert (workdir / FOLDER / "notes.txt").read_text() == "mine"


def test_after_a_damaged_one_lower_steps_are_saved_again(workdir, capfd):
    DAMAGES["empty"](next((workdir / FOLDER / "2" / "progress").glob("metadata")))
    damaged = files(workdir)
    assert_restores(restored(workdir), 1)
    assert files(workdir) == damaged  # whoever only reads leaves it alone
    with opened(workdir, keep=2) as checkpoints:
        for step in (2, 3):
            checkpoints.restore(state(0))
            checkpoints.save(step, state(step), progress(step))
        assert checkpoints.steps() == [2, 3]
    capfd.readouterr()
    assert_restores(restored(workdir), 3)
    assert capfd.readouterr().err == ""


def test_all_damaged(workdir, capfd):
    for path in (workdir / FOLDER).rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    damaged = files(workdir)
    with pytest.raises(
        UserError,
        match=f"^all checkpoints in {workdir / FOLDER} are damaged, and the run cannot ",
    ):
        restored(workdir)
    assert [line[:12] for line in capfd.readouterr().err.splitlines()] == [
        "checkpoint 2",
        "checkpoint 1",
    ]
    assert files(workdir) == damaged


def test_a_state_of_another_structure_is_not_restored(workdir):
    with (
        opened(workdir) as checkpoints,
        pytest.raises(UserError, match="undamaged but cannot be read here: "),
    ):
        checkpoints.restore({"numbers": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: full " * 50),
    ],
)
def test_a_save_that_fails_leaves_the_older_ones(workdir, monkeypatch, error):
    before = files(workdir)

    def fail(*args, **kwargs):
        raise error

    with opened(workdir) as checkpoints:
        monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
        with pytest.raises(
            UserError, match=f"^cannot save checkpoint 3 in {workdir / FOLDER}: "
        ) as caught:
            checkpoints.save(3, state(3), progress(3))
            checkpoints.wait()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert files(workdir) == before


def test_what_is_saved_is_the_state_at_the_call_and_the_next_waits_for_it(workdir, monkeypatch):
    """The caller changes its arrays, as a donated state is, while they are being written."""
    written, go_on = [], threading.Event()
    write = Checkpoints._write

    def slow(self, step, *rest):
        assert go_on.wait(60)
        write(self, step, *rest)
        written.append(step)

    monkeypatch.setattr(Checkpoints, "_write", slow)
    mine = {"numbers": np.arange(3.0)}
    with opened(workdir / "new") as checkpoints:
        checkpoints.reserve(mine)
        checkpoints.save(1, mine, progress(1))
        mine["numbers"][:] = 7.0
        checkpoints.check()  # not an end yet
        assert written == []
        go_on.set()
        checkpoints.save(2, mine, progress(2))
        assert written == [1]
        assert checkpoints.steps() == [1, 2] and written == [1, 2]
    with opened(workdir / "new") as checkpoints:
        assert checkpoints.restore(mine)[0]["numbers"].tolist() == [7, 7, 7]
        shutil.rmtree(workdir / "new" / FOLDER / "2")
    with opened(workdir / "new") as checkpoints:
        assert checkpoints.restore(mine)[0]["numbers"].tolist() == [0, 1, 2]


def test_a_save_that_has_failed_is_told_when_asked_about_it(workdir, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
    with opened(workdir) as checkpoints:
        checkpoints.save(3, state(3), progress(3))
        concurrent.futures.wait([checkpoints._saving])
        with pytest.raises(UserError, match="^cannot save checkpoint 3 in .*No space left"):
            checkpoints.check()
        checkpoints.check()  # once


@pytest.fixture
def disk(tmp_path):
    """The folder of a file system of some kilobytes, and a function that makes it read-only."""
    with mounted(tmp_path / "disk", 250) as make_read_only:
        yield tmp_path / "disk", make_read_only


def test_a_full_disk_leaves_the_older_ones(disk, capfd):
    disk, make_read_only = disk
    large = state(2).replace(
        numbers=np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    )
    with opened(disk) as checkpoints:
        checkpoints.save(1, state(1), progress(1))
        capfd.readouterr()
        with pytest.raises(
            UserError, match="^cannot save checkpoint 2 in .*No space left on device"
        ) as error:
            checkpoints.save(2, large, progress(2))
            checkpoints.wait()
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert_restores(restored(disk), 1)
    with opened(disk) as checkpoints:  # when there is room again
        checkpoints.save(2, state(2), progress(2))
    assert_restores(restored(disk), 2)


def test_a_disk_that_cannot_be_written(disk, capfd):
    disk, make_read_only = disk
    with opened(disk) as checkpoints:
        checkpoints.save(1, state(1), progress(1))
    assert make_read_only()
    assert_restores(restored(disk), 1)
    with (
        opened(disk) as checkpoints,
        pytest.raises(UserError, match="^cannot save checkpoint 2 in .*Read-only file system"),
    ):
        checkpoints.save(2, state(2), progress(2))
        checkpoints.wait()
    with pytest.raises(UserError, match="^cannot write .*Read-only file system"):
        save_arrays(disk / "a.npz", {"a": np.arange(3)})
    assert capfd.readouterr() == ("", "")
    assert_restores(restored(disk), 1)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / FOLDER).write_text("")
    with pytest.raises(
        UserError, match=f"^cannot make the folder {tmp_path / FOLDER}: File exists$"
    ):
        Checkpoints(tmp_path)


def test_the_digest_tells_apart_what_differs():
    base = state(1)
    digests = {
        digest(base, progress(1)),
        digest(base, progress(2)),
        digest(base.replace(count=np.int64(1)), progress(1)),
        digest(base.replace(numbers=base.numbers[None]), progress(1)),
        digest(
            base.replace(numbers=np.where(base.numbers == 0, np.float32(0), base.numbers)),
            progress(1),
        ),  # the sign of 0
        digest(base.replace(nested=base.nested | {"more": np.zeros(0)}), progress(1)),
    }
    assert len(digests) == 6
    assert digest(jax.tree.map(np.copy, base), dict(reversed(progress(1).items()))) in digests


def _any_name(tmp_path_factory, name):
    workdir = tmp_path_factory.mktemp("names") / name
    workdir.mkdir()
    with opened(workdir) as checkpoints:
        checkpoints.save(1, state(1), progress(1))
    assert_restores(restored(workdir), 1)


NAMES = st.text(
    st.sampled_from("[]\\{}*?%$#&;:'\"|<>()~ \t\n.,=+@!") | st.characters(codec="utf-8"),
    min_size=1,
    max_size=60,
).filter(
    lambda name: name not in (".", "..") and not set("/\0") & set(name) and len(name.encode()) < 250
)


@pytest.mark.parametrize("name", ["exp[8,16]", "a\\b", "{x}*?", "50%", "~", " ", "\u00e9\n\u4e2d"])
def test_a_folder_of_any_name(tmp_path_factory, name):
    _any_name(tmp_path_factory, name)


@pytest.mark.slow
@given(name=NAMES)
@settings(max_examples=200, deadline=None)
def test_two_hundred_names(tmp_path_factory, name):
    _any_name(tmp_path_factory, name)
