"""Files of a run that were cut, edited or lost: it continues, or one line says why not, and nothing
is lost in silence.
"""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas import logs, measurements, runs, training
from nas.arrays import load_arrays, save_arrays
from nas.config import override
from nas.errors import UserError
from tests.helpers import assert_same_bits
from tests.run_directory.one_run import CONFIG, fails, start

_BYTES = b'0123456789"-{}[],:.eE\x00\xff n\n'


def _flipped(content, at, bit):
    content[at] ^= 1 << bit % 8


def _cut(content, at, _):
    del content[at:]


def _replaced(content, at, byte):
    content[at] = _BYTES[byte % len(_BYTES)]


def _inserted(content, at, byte):
    content[at:at] = bytes([_BYTES[byte % len(_BYTES)]]) * 3


def _shortened(content, at, length):
    del content[at : at + length + 1]


@pytest.fixture(scope="module")
def measured(finished):
    measurements.measure(runs.open_run(finished), architectures=10)
    return finished


def _edit_and_open(measured, workdir, data, capfd):
    """What a file is edited into is told, refused, or harmless."""
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(measured, workdir)
    paths = sorted(path for path in workdir.rglob("*") if path.is_file() and path.stat().st_size)
    own = [path for path in paths if path.parent == workdir]
    path = data.draw(st.sampled_from(data.draw(st.sampled_from([own, own, paths]))))
    content = bytearray(path.read_bytes())
    at, how = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 25))
    data.draw(st.sampled_from([_flipped, _cut, _replaced, _inserted, _shortened]))(content, at, how)
    path.write_bytes(content)
    capfd.readouterr()
    good = runs.open_run(measured)
    try:
        run = runs.open_run(workdir)
        steps = len(run.metrics())
        assert run.splits.train.length
        stamp = np.array([10, *measurements._stamp(run)])
        found = measurements._load(run, ["trained", "untrained"], stamp)
    except UserError as error:
        assert "\n" not in str(error)
        return
    told = capfd.readouterr().err
    assert told.count("\n") <= 2
    if run.config == good.config and not told:
        assert_same_bits(run.state, good.state)
        assert steps == len(good.metrics())
        assert_same_bits(found, measurements._load(good, ["trained", "untrained"], stamp))


_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@given(data=st.data())
@settings(max_examples=20, **_PATIENT)
def test_twenty_edits(measured, tmp_path, data, capfd):
    _edit_and_open(measured, tmp_path / "edited", data, capfd)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=500, **_PATIENT)
def test_five_hundred_edits(measured, tmp_path, data, capfd):
    _edit_and_open(measured, tmp_path / "edited", data, capfd)


def _warnings(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")]


@pytest.mark.parametrize("line", [1, 4, -1])
@pytest.mark.parametrize(
    "text", [b'{"phase": "shared", "ep', b"\xff\xfe{}", b"[1, 2]", b"", b'{"phase": "shared"}']
)
def test_a_lost_line_of_the_metrics_is_counted(workdir, line, text, capfd):
    path = workdir / logs.FILE
    lines = path.read_bytes().splitlines()
    lines[line] = text
    path.write_bytes(b"\n".join(lines) + b"\n")
    run = runs.open_run(workdir)
    capfd.readouterr()
    assert len(run.metrics()) == len(lines) - 2
    assert _warnings(capfd) == [
        f"warning: {path} lacks 1 of {len(lines) - 1} steps; curves and times leave them out"
    ]
    start(CONFIG, workdir)  # which goes on behind what is there
    assert len(runs.open_run(workdir).metrics()) == len(lines) - 2
    assert len(_warnings(capfd)) == 1


def test_metrics_that_are_gone(workdir, capfd):
    (workdir / logs.FILE).unlink()
    run = runs.open_run(workdir)
    capfd.readouterr()
    assert run.metrics() == []
    assert "lacks 29 of 29 steps" in _warnings(capfd)[0]
    (workdir / logs.FILE).mkdir()
    assert fails(run.metrics) == f"cannot read {workdir / logs.FILE}: Is a directory"


def test_curves_keep_the_place_of_a_lost_step():
    lines = [
        {"phase": "valid", "epoch": i, "step": i, "loss": float(i), "seconds": 0.0} for i in (0, 2)
    ]
    steps, values = logs.curves(lines, "valid", 4)["loss"]
    np.testing.assert_array_equal(steps, range(4))
    np.testing.assert_array_equal(values, [0, np.nan, 2, np.nan])


@pytest.mark.parametrize(
    ("field", "value"), [("command", 5), ("raw_dir", ["a"]), ("jax_settings", "x"), ("data", None)]
)
def test_metadata_of_other_types(workdir, field, value):
    path = workdir / runs.METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert fails(runs.open_run, workdir).startswith(f"{path} is damaged: {field} must be a ")
    start(CONFIG, workdir)  # writes it again
    assert runs.open_run(workdir).metadata[field] != value


@pytest.mark.parametrize("edit", ["array", "shape", "gone"])
def test_measurements_that_were_edited_are_made_again(measured, tmp_path, edit, capfd):
    shutil.copytree(measured, tmp_path / "run")
    run, path = runs.open_run(tmp_path / "run"), tmp_path / "run" / measurements.FILE
    whole = measurements.measure(run, architectures=10)
    arrays = dict(np.load(path))
    name = "trained/uniform/loss"
    if edit == "gone":
        del arrays[name]
    else:
        arrays[name] = arrays[name] * 2 if edit == "array" else arrays[name][:3]
    np.savez(path, **arrays)
    capfd.readouterr()
    assert_same_bits(measurements.measure(run, architectures=10), whole)
    assert "is damaged" in _warnings(capfd)[0]


def test_an_array_file_is_sealed(tmp_path):
    path = tmp_path / "a.npz"
    saved = {"b": np.arange(3), "a": np.float32(1.5)}
    save_arrays(path, saved)
    assert_same_bits(load_arrays(path), saved)
    for other in (
        saved | {"b": np.arange(3)[::-1]},
        saved | {"c": np.arange(3)},
        {"b": saved["b"]},
        saved | {"b": saved["b"].astype(np.int32)},
    ):
        np.savez(path, **{**dict(np.load(path)), **other} if len(other) > 1 else other)
        with pytest.raises(UserError, match="its arrays have changed since they were saved"):
            load_arrays(path)
        save_arrays(path, saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"loss": 1}', '{"loss": "x"}'])
def test_a_result_that_is_damaged_is_computed_again(tmp_path, text, monkeypatch, capfd):
    result = training.Result(1.0, 2.0, 0, None, None, 10, 8)
    calls = []
    monkeypatch.setattr(training, "run", lambda *args: calls.append(1) or result)
    architecture = " ".join(["0"] * (2 * CONFIG.space["num_nodes"] - 1))
    config = override(CONFIG, {"training": {"architecture": architecture}})
    for damaged in (None, text):
        if damaged is not None:
            (tmp_path / runs.RESULT).write_text(damaged)
        assert runs.train(config, tmp_path) == result
    assert len(calls) == 2 and len(_warnings(capfd)) == 1
    assert runs.train(config, tmp_path) == result and len(calls) == 2
