"""Flags that name files and folders."""

import os

import pytest

from launch.paths import _PathParser
from tests.forked import run_forked
from tests.helpers import assert_one_line

REMOTE = ["gs://bucket/run", "s3://bucket/run", "hdfs://host:9000/run", "file:///tmp/run"]


@pytest.mark.parametrize("path", REMOTE)
@pytest.mark.parametrize("flag", ["workdir", "raw_dir", "data_dir"])
def test_remote_paths_are_refused_before_anything_is_written(
    flag, path, user_environment, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    process = run_forked(user_environment, "launch.search", f"--{flag}={path}")
    assert_one_line(process, f"--{flag}={path}", "must be a local path")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["~", "~/runs/a", "~/[8,16]"])
def test_the_home_directory(path, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _PathParser(False, False).parse(path) == path.replace("~", str(tmp_path))


@pytest.mark.parametrize("path", ["data", "../data", "a/./b"])
def test_what_is_read_from_other_folders_is_absolute(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert _PathParser(True, False).parse(path) == os.path.abspath(path)
    assert _PathParser(False, False).parse(path) == path
    assert _PathParser(True, False).parse("") == ""


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder, and this is a file"):
        _PathParser(False, True).parse(str(tmp_path / "file"))
    for free in (tmp_path, tmp_path / "none"):
        assert _PathParser(False, True).parse(str(free)) == str(free)
