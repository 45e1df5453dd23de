"""metrics.jsonl: what is written is what is read, whatever a kill leaves behind, and a run that
continues repeats no step.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from nas import logs
from nas.errors import UserError
from nas.tasks import Metric

METRIC = Metric("error (%)", "error", "share", "accuracy", lambda loss: 100 * loss, 2, 0.9)
FRESH = {"shared": 0, "controller": 0, "valid": 0}


@pytest.fixture
def workdir(tmp_path):
    """A run that logged four shared steps, two controller steps and two validations."""
    writer = logs.Writer(tmp_path, METRIC, FRESH)
    writer.write("shared", 0, 0, {"loss": np.array([4.0, 3.5]), "norm": np.array([0.25, 0.5])}, 3.0)
    writer.write("valid", 0, 0, {"perplexity": np.array([60.0])}, 1.0)
    writer.write("shared", 1, 2, {"loss": np.array([3.0, 2.5]), "norm": np.array([0.75, 1.0])}, 1.0)
    writer.write("controller", 1, 0, {"reward": np.array([0.5, 0.625])}, 1.0)
    writer.write("valid", 1, 1, {"perplexity": np.array([50.0])}, 1.0)
    writer.close()
    return tmp_path


def names(lines):
    return [(line["phase"], line["step"]) for line in lines]


def events(workdir):
    """All events of a run, in the order of their files; TFRecord: length, its checksum, data, its
    checksum.
    """
    found = []
    for path in sorted(
        (workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns
    ):
        assert "tfevents" in path.name  # by which TensorBoard knows them
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            record = data[12 : 12 + length]
            assert int.from_bytes(data[12 + length : 16 + length], "little") == masked_crc32c(
                record
            )
            found.append(Event.FromString(record))
            data = data[16 + length :]
    return found


def test_lines_are_what_was_written(workdir):
    lines = logs.read(workdir)
    assert lines[:3] == [
        {"phase": "shared", "epoch": 0, "step": 0, "loss": 4.0, "norm": 0.25, "seconds": 1.5},
        {"phase": "shared", "epoch": 0, "step": 1, "loss": 3.5, "norm": 0.5, "seconds": 1.5},
        {"phase": "valid", "epoch": 0, "step": 0, "perplexity": 60.0, "seconds": 1.0},
    ]
    shared, controller = [("shared", 2), ("shared", 3)], [("controller", 0), ("controller", 1)]
    assert names(lines[3:]) == [*shared, *controller, ("valid", 1)]


def test_lines_can_be_read_while_the_run_goes_on(tmp_path):
    writer = logs.Writer(tmp_path, METRIC, FRESH)
    writer.write("shared", 0, 0, {"loss": np.array([1.0])}, 1.0)
    assert names(logs.read(tmp_path)) == [("shared", 0)]
    writer.close()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_any_number_survives_and_every_line_is_json(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("run")
    values = np.array(values, np.float32)
    writer = logs.Writer(folder, METRIC, FRESH)
    writer.write("shared", 0, 5, {"loss": values}, 1.0)
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in (folder / logs.FILE).read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    steps, read = logs.curves(logs.read(folder), "shared")["loss"]
    np.testing.assert_array_equal(steps, 5 + np.arange(len(values)))
    np.testing.assert_array_equal(read.astype(np.float32), values)


def test_what_is_not_finite_is_kept_as_text(tmp_path):
    writer = logs.Writer(tmp_path, METRIC, FRESH)
    writer.write(
        "shared", 0, 0, {"loss": np.array([1.0, np.nan, np.inf, -np.inf], np.float32)}, 1.0
    )
    writer.close()
    assert [line["loss"] for line in logs.read(tmp_path)] == [1.0, "nan", "inf", "-inf"]


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_a_last_line_cut_off_by_a_kill_is_left_out(workdir, cut):
    path, whole = workdir / logs.FILE, logs.read(workdir)
    text = path.read_text().removesuffix("\n")
    path.write_text(text[:-cut])
    assert logs.read(workdir) == whole[:-1]
    writer = logs.Writer(workdir, METRIC, {"shared": 4, "controller": 2, "valid": 1})
    writer.write("valid", 1, 1, {"perplexity": np.array([50.0])}, 1.0)
    writer.close()
    assert logs.read(workdir) == whole
    assert path.read_text() == text + "\n"


def test_a_run_that_continues_drops_what_it_will_do_again(workdir):
    before = logs.read(workdir)
    writer = logs.Writer(workdir, METRIC, {"shared": 3, "controller": 0, "valid": 1})
    kept = [("shared", 0), ("shared", 1), ("valid", 0), ("shared", 2)]
    assert logs.read(workdir) == [line for line in before if (line["phase"], line["step"]) in kept]
    writer.write("shared", 1, 3, {"loss": np.array([9.0]), "norm": np.array([9.0])}, 1.0)
    writer.close()
    assert names(logs.read(workdir)) == [*kept, ("shared", 3)]
    assert logs.read(workdir)[-1]["loss"] == 9.0
    assert sorted(path.name for path in workdir.iterdir()) == [logs.FILE, "tensorboard"]


def test_a_run_that_has_nothing_to_do_again_keeps_every_line(workdir):
    before = (workdir / logs.FILE).read_bytes()
    logs.Writer(workdir, METRIC, {"shared": 4, "controller": 2, "valid": 2}).close()
    assert (workdir / logs.FILE).read_bytes() == before


def test_curves_of_a_phase(workdir):
    curves = logs.curves(logs.read(workdir), "shared")
    assert curves.keys() == {"loss", "norm"}
    for name, expected in (("loss", [4.0, 3.5, 3.0, 2.5]), ("norm", [0.25, 0.5, 0.75, 1.0])):
        steps, values = curves[name]
        assert (
            steps.tolist() == [0, 1, 2, 3] and values.dtype == float and values.tolist() == expected
        )
    steps, values = logs.curves(logs.read(workdir), "valid")["perplexity"]
    assert steps.tolist() == [0, 1] and values.tolist() == [60.0, 50.0]
    assert logs.curves(logs.read(workdir), "unheard-of") == {}
    assert logs.curves([], "shared") == {}


def test_tensorboard_gets_the_last_step_of_each_call(workdir):
    scalars = [
        (value.tag, event.step, value.simple_value)
        for event in events(workdir)
        for value in event.summary.value
        if event.HasField("summary")
    ]
    assert sorted(scalars) == [
        ("controller/reward", 1, 0.625),
        ("shared/loss", 1, 3.5),
        ("shared/loss", 3, 2.5),
        ("shared/norm", 1, 0.5),
        ("shared/norm", 3, 1.0),
        ("valid/perplexity", 0, 60.0),
        ("valid/perplexity", 1, 50.0),
    ]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        UserError,
        match=f"cannot write {tmp_path / 'gone' / logs.FILE}: No such file or directory",
    ):
        logs.Writer(tmp_path / "gone", METRIC, FRESH)
