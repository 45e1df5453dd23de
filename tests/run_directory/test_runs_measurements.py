"""What is measured of a run: kept, extended, and made again where it is damaged or another's."""

import pathlib
import shutil

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from nas import measurements, runs
from nas.arrays import save_arrays
from nas.config import override
from tests.helpers import assert_same_bits
from tests.run_directory.one_run import CONFIG, fails, start, unchanged


@pytest.fixture
def measuring(monkeypatch):
    """Counts how often perplexities are computed."""
    compute, calls = runs.Run.losses, []
    monkeypatch.setattr(runs.Run, "losses", lambda *args: calls.append(1) or compute(*args))
    return calls


def measure(workdir, **options):
    return measurements.measure(runs.open_run(workdir), **options)


def test_measurements_are_reused_until_the_checkpoint_changes(workdir, measuring):
    shutil.move(workdir / "checkpoints" / "33", workdir / "last")
    earlier = measure(workdir)
    assert_same_bits(measure(workdir), earlier)
    assert len(measuring) == 1
    shutil.move(workdir / "last", workdir / "checkpoints" / "33")
    later = measure(workdir)
    assert len(measuring) == 2
    trained, before = (
        measured.controllers["trained"].samples["uniform"] for measured in (later, earlier)
    )
    assert_same_bits(trained.decisions, before.decisions)
    assert np.any(trained.after != before.after) and np.any(trained.loss != before.loss)
    assert_same_bits(measure(workdir), later)
    assert len(measuring) == 2


def test_measurements_without_the_untrained_controller_are_extended(workdir, measuring):
    alone = measure(workdir, untrained=False).controllers
    assert set(alone) == {"trained"}
    both = measure(workdir).controllers
    assert set(both) == {"trained", "untrained"} and len(measuring) == 2
    for which in ("uniform", "own"):
        again, first = (found["trained"].samples[which].loss for found in (both, alone))
        np.testing.assert_allclose(again, first, rtol=1e-6)
    assert_same_bits(measure(workdir, untrained=False).controllers["trained"], both["trained"])
    assert len(measuring) == 2


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"foreign", None])
def test_damaged_measurements_are_made_again(workdir, measuring, content):
    path = workdir / measurements.FILE
    expected = measure(workdir)
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    assert_same_bits(measure(workdir), expected)
    assert len(measuring) == 2


def test_measurements_are_of_the_run(workdir):
    measured, best = measure(workdir)
    run = runs.open_run(workdir)
    windows = run.valid_batches()
    for controller, (samples, behaviour) in measured.items():
        params = run.policy_params if controller == "trained" else run.untrained_policy_params()
        own = run.policy.score(params, behaviour.own)
        np.testing.assert_allclose(behaviour.own_log_probs, own.log_probs, rtol=1e-4, atol=1e-6)
        groups = behaviour.continued[
            :, :, : run.space.num_decisions // 2
        ]  # each of one state, that of an own sample
        assert np.all(groups == groups[:, :1]) and np.all(
            groups[:, 0] == behaviour.own[: len(groups), : groups.shape[2]]
        )
        for which, sample in samples.items():
            assert len(sample.decisions) == CONFIG.evaluation.architectures
            run.space.validate(sample.decisions)
            expected = run.reward.evaluate(run.state.reward, sample.decisions, windows)
            np.testing.assert_allclose(
                sample.loss, expected, rtol=1e-5, err_msg=f"{controller} {which}"
            )
            np.testing.assert_allclose(
                sample.after, run.policy.score(params, sample.decisions).hidden[:, -1], rtol=1e-5
            )
    trained, untrained = (
        measured[controller].samples["uniform"] for controller in ("trained", "untrained")
    )
    assert_same_bits(trained.decisions, untrained.decisions)
    assert np.isnan(trained.common_loss).all()


def test_measurements_under_common_weights(workdir, measuring):
    """Those of the run itself give what its own do, and are measured once."""
    run = runs.open_run(workdir)
    sample = measure(workdir, common=run).controllers["trained"].samples["own"]
    np.testing.assert_array_equal(sample.common_loss, sample.loss)
    measure(workdir, common=run)
    assert len(measuring) == 2


def test_the_best_architecture_is_measured_and_all_is_saved(workdir):
    best = measure(workdir).best_loss
    assert np.isfinite(best)
    assert pathlib.Path(workdir / measurements.FILE).is_file()


def test_of_many_architectures_those_of_a_block_are_compared(workdir, measuring, monkeypatch):
    """Of 125 twelve blocks of ten, drawn thirty at a time; the first are those of one draw."""
    monkeypatch.setattr(measurements, "_DRAWN", 30)
    monkeypatch.setattr(measurements, "_SAVED", 1000)  # all at once, which is counted
    alone = measure(workdir, architectures=30)
    found = measure(workdir, architectures=125, pairs=625)
    for name, (samples, behaviour) in found.controllers.items():
        assert_same_bits(behaviour, alone.controllers[name].behaviour)
        for which, sample in samples.items():
            assert (sample.block, sample.blocks, len(sample.decisions)) == (10, 12, 120)
            first = alone.controllers[name].samples[which]
            np.testing.assert_array_equal(sample.decisions[:30], first.decisions)
            np.testing.assert_array_equal(sample.after[:30], first.after)
            np.testing.assert_array_equal(sample.loss[:30], first.loss)
            places = squareform(np.arange(30 * 29 // 2))[:10, :10][np.triu_indices(10, 1)]
            np.testing.assert_array_equal(
                sample.edit_distance[:, :45], first.edit_distance[:, places]
            )
            assert len(np.unique(sample.decisions[30:60], axis=0)) > 1
            assert np.any(sample.decisions[30:60] != sample.decisions[:30])
    assert len(measuring) == 2
    assert_same_bits(measure(workdir, architectures=125, pairs=625), found)
    assert len(measuring) == 2
    measure(workdir, architectures=125, pairs=750)  # as many, in blocks of twelve
    assert len(measuring) == 3


def stopped(workdir, saves, **options):
    """Measures a run until losses were saved so often."""
    saved = []

    def save(path, arrays):
        save_arrays(path, arrays)
        saved.append(path)
        if len(saved) == saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measurements, "save_arrays", save)
        measure(workdir, **options)
    assert set(saved) == {workdir / measurements.LOSSES} and saved[0].exists()


@pytest.mark.parametrize("saves", [1, 9])
def test_an_evaluation_that_was_stopped_goes_on(workdir, measuring, monkeypatch, saves):
    """Three sets of twelve under the weights of two runs, saved after every five."""
    monkeypatch.setattr(measurements, "_SAVED", 5)
    options = {"architectures": 12, "common": runs.open_run(workdir)}
    expected = measure(workdir, **options)
    assert len(measuring) == 16
    (workdir / measurements.FILE).unlink()
    stopped(workdir, saves, **options)
    measuring.clear()
    assert_same_bits(measure(workdir, **options), expected)
    assert len(measuring) == 16 - saves
    assert not (workdir / measurements.LOSSES).exists()


@pytest.mark.parametrize("left", ["damaged", "of another evaluation"])
def test_losses_that_cannot_be_used_are_computed_again(workdir, monkeypatch, left, capfd):
    monkeypatch.setattr(measurements, "_SAVED", 5)
    expected = measure(workdir, architectures=12)
    (workdir / measurements.FILE).unlink()
    stopped(workdir, 2, architectures=12 if left == "damaged" else 11)
    path = workdir / measurements.LOSSES
    if left == "damaged":
        path.write_bytes(path.read_bytes()[:-40])
    capfd.readouterr()
    assert_same_bits(measure(workdir, architectures=12), expected)
    assert ("losses.npz is damaged" in capfd.readouterr().err) == (left == "damaged")


def test_fewer_pairs_than_blocks_need_are_refused(workdir):
    with unchanged(workdir):
        message = fails(measure, workdir, architectures=1000, pairs=4999)
    assert message == (
        "config field evaluation.pairs: must be at least 5,000 of 1,000 architectures, got 4999"
    )


@pytest.mark.parametrize("nodes", [2, 16])
def test_every_size_that_a_search_accepts_is_measured(tmp_path, nodes, capfd):
    """Two nodes have no parent to choose; exact edit distances end at 16, input and output among
    them.
    """
    start(override(CONFIG, {"space": {"num_nodes": nodes}}), tmp_path)
    warned = "will leave them out" in capfd.readouterr().err
    sample = measure(tmp_path, untrained=False).controllers["trained"].samples["own"]
    assert np.isnan(sample.edit_distance).all() == warned == (nodes == 16)
    assert np.isfinite(sample.loss).all()
