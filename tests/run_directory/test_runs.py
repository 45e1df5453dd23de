"""Run directories: which may be started, continued and opened, and what is said of those that may
not.
"""

import dataclasses
import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from nas import logs, measurements, runs, search, steps, training
from nas.config import PRECISIONS, TrainingConfig
from nas.data import text
from nas.data.text import Corpus
from nas.scored import FILE
from tests.helpers import (
    CHECKPOINTS,
    assert_same_bits,
    assert_same_run,
    fill,
    mounted,
    scored,
    tiny,
)
from tests.run_directory.one_run import CONFIG, fails, start, unchanged


def test_a_finished_run(finished):
    run = runs.open_run(finished)
    assert run.config == CONFIG
    settings = CONFIG.search
    scored = (
        (settings.epochs - settings.warmup_epochs)
        * settings.controller_steps
        * settings.architectures
    )
    assert run.progress == {"epoch": 3, "shared": 0, "controller": 0, "architectures": scored}
    assert run.metadata["data_dir"] == os.path.abspath("somewhere") and run.metadata["command"]
    assert set(run.metadata["versions"]) == {*runs.PACKAGES, "python", "device"}
    assert len(run.metrics()) == len(logs.read(finished)) == 18 + 8 + 3
    initial = steps.initial_state(CONFIG, steps.components(CONFIG)).strategy.params["policy"]
    assert_same_bits(run.untrained_policy_params(), initial)
    assert np.any(np.asarray(run.policy_params["start"]) != np.asarray(initial["start"]))
    assert run.valid_batches().tokens.shape == (2, 4, 6)  # 40 tokens in windows of 4 x 5
    assert run.valid_batches(whole=True).tokens.shape == (5, 4, 6)  # 30 tokens a row


def test_opening_writes_nothing(finished):
    with unchanged(finished):
        runs.open_run(finished)


def test_a_finished_run_is_kept(workdir, finished, capfd):
    with unchanged(workdir / "checkpoints"):
        runs.finish(CONFIG, workdir, parallel="jit")
    assert capfd.readouterr() == ("", "")
    assert_same_run(CONFIG, workdir, finished)


def test_an_unfinished_run_is_finished(workdir, finished, capfd):
    shutil.rmtree(workdir / "checkpoints" / "33")
    runs.finish(CONFIG, workdir, parallel="jit")
    assert capfd.readouterr().err == f"searching: {workdir}\n"
    assert_same_run(CONFIG, workdir, finished)


def test_a_run_whose_last_checkpoint_is_damaged_is_not_finished(workdir, finished, capfd):
    next((workdir / "checkpoints" / "33" / "progress").glob("metadata")).write_bytes(b"")
    assert runs.open_run(workdir).progress["epoch"] == 2
    runs.finish(CONFIG, workdir, parallel="jit")
    lines = [line.partition(" in ")[0] for line in capfd.readouterr().err.splitlines()]
    assert set(lines) == {"checkpoint 33", f"searching: {workdir}"}
    assert_same_run(CONFIG, workdir, finished)


def test_another_configuration(workdir):
    other = tiny(seed=3, search={"epochs": 2}, strategy={"supervised": "next_decision"})
    with unchanged(workdir / "checkpoints"), unchanged(workdir / "tensorboard"):
        for function in (start, runs.finish):
            message = fails(function, other, workdir)
            assert message == (
                f"--workdir: {workdir} holds a run of another configuration: seed: 0 -> 3; "
                "strategy.supervised: 'reconstruct' -> 'next_decision'; search.epochs: 3 -> 2"
            )
    assert json.loads((workdir / runs.CONFIG).read_text()) == dataclasses.asdict(CONFIG)


def test_more_epochs_and_what_changes_no_number_are_no_other_configuration(workdir, tmp_path):
    """A finished run goes on, to the numbers of one that was asked for as many from the start."""
    other = tiny(search={"epochs": 4, "keep": 5}, evaluation={"architectures": 7})
    assert not runs.is_finished(other, workdir)
    start(other, workdir)
    start(other, tmp_path / "whole")
    assert logs.read(workdir)[-1]["epoch"] == 3
    assert_same_run(other, workdir, tmp_path / "whole")
    assert json.loads((workdir / runs.CONFIG).read_text()) == dataclasses.asdict(other)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("jax_enable_x64", True, "must be off"),
        ("jax_default_prng_impl", "rbg", "the run was started with 'threefry2x32', now it is"),
    ],
)
def test_settings_of_jax_that_change_numbers(workdir, variable, value, reason):
    before = getattr(jax.config, variable)
    jax.config.update(variable, value)
    try:
        with unchanged(workdir):
            for function in (lambda: runs.open_run(workdir), lambda: start(CONFIG, workdir)):
                told = fails(function)
                assert told.startswith(f"{variable.upper()}: ") and reason in told
    finally:
        jax.config.update(variable, before)


def test_other_data_than_the_run_was_started_with(workdir, monkeypatch):
    monkeypatch.setattr(
        text, "load_corpus", lambda *args, **kwargs: Corpus(*[np.ones(200, np.int32)] * 3, ())
    )
    with unchanged(workdir):
        assert "this is not the data that the run was started with" in fails(start, CONFIG, workdir)
        assert "not the data that" in fails(lambda: runs.open_run(workdir).splits)


def test_a_checkpoint_of_another_configuration(workdir):
    """Of the same shapes: nothing but what is written in it tells."""
    other = tiny(network={"learning_rate": 2.0})
    (workdir / runs.CONFIG).unlink()
    with unchanged(workdir / "checkpoints"):
        message = fails(start, other, workdir)
        assert (
            message
            == "the checkpoint is of another configuration: network.learning_rate: 1.0 -> 2.0"
        )
        assert fails(runs.open_run, workdir) == message


def test_settings_that_do_not_go_together_leave_no_directory(tmp_path):
    config = tiny(policy={"name": "factorised"})
    assert "strategy.supervised: the policy has no hidden state" in fails(
        start, config, tmp_path / "run"
    )
    assert not list(tmp_path.iterdir())


def test_rows_that_cannot_be_divided_leave_no_directory(tmp_path):
    message = fails(start, CONFIG, tmp_path / "run", parallel="pmap")
    assert message == "config field data.batch: 4 rows cannot be divided over 8 devices"
    assert not list(tmp_path.iterdir())


def test_too_few_tokens_leave_no_directory(tmp_path):
    assert "too few" in fails(start, tiny(data={"steps": 60}), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_second_process(workdir, monkeypatch):
    with (workdir / runs.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("process 7 of node3", file=lock, flush=True)
        with unchanged(workdir):
            assert fails(start, CONFIG, workdir) == (
                f"--workdir: {workdir} is in use by another process (process 7 of node3); if its "
                f"host is gone, delete {workdir / 'lock'}"
            )
    named = []
    monkeypatch.setattr(
        search, "run", lambda *_, **__: named.append((workdir / runs.LOCK).read_text())
    )
    start(CONFIG, workdir)
    assert named == [f"process {os.getpid()} of {platform.node()}\n"]
    assert (workdir / runs.LOCK).read_text() == ""


def test_a_lock_ends_with_its_process(workdir):
    code = (
        f"import fcntl, os; fcntl.flock(open({str(workdir / runs.LOCK)!r}, 'w'), fcntl.LOCK_EX); "
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    start(CONFIG, workdir)


@pytest.mark.parametrize("name", ["absent", "empty", "file"])
def test_what_is_no_run_directory(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with unchanged(tmp_path):
        path = tmp_path / name
        assert (
            fails(runs.open_run, path)
            == f"--workdir: {path} is not a run directory (it has no config.json)"
        )
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "file"}


def test_a_run_without_a_checkpoint(workdir):
    message = (
        f"--workdir: {workdir} has no checkpoint yet; let the search reach the end of an epoch"
    )
    for step in CHECKPOINTS:
        shutil.rmtree(workdir / "checkpoints" / str(step))
    with unchanged(workdir):
        assert fails(runs.open_run, workdir) == message
    (workdir / "checkpoints").rmdir()
    assert fails(runs.open_run, workdir) == message
    assert not (workdir / "checkpoints").exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b'{"seed": -1}', b'{"nodes": 3}', b'{"colour": 1}']
)
def test_a_damaged_configuration(workdir, content):
    (workdir / runs.CONFIG).write_bytes(content)
    with unchanged(workdir):
        for message in (fails(runs.open_run, workdir), fails(start, CONFIG, workdir)):
            assert "config.json" in message


def test_damaged_metadata_is_written_again(workdir):
    (workdir / runs.METADATA).write_bytes(b'{"comm')
    assert fails(runs.open_run, workdir).startswith(f"{workdir / runs.METADATA} is damaged: ")
    (workdir / runs.METADATA).unlink()
    assert f"{workdir / runs.METADATA}: no such file" in fails(runs.open_run, workdir)
    start(CONFIG, workdir)
    assert runs.open_run(workdir).metadata["versions"]


def test_all_checkpoints_damaged(workdir):
    for path in (workdir / "checkpoints").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    with unchanged(workdir / "checkpoints"):
        for function in (lambda: runs.open_run(workdir), lambda: start(CONFIG, workdir)):
            assert fails(function).startswith(
                f"all checkpoints in {workdir / 'checkpoints'} are damaged, and the run cannot"
            )


@pytest.mark.parametrize(
    ("damage", "kept"),
    [("missing", 0), ("empty", 0), ("foreign", 0), ("cut short", 31), ("of a shorter run", 10)],
)
def test_a_run_goes_on_without_the_architectures_that_it_scored(workdir, damage, kept, capfd):
    path = workdir / FILE
    saved, content = scored(workdir), path.read_bytes()
    path.unlink()
    if damage == "cut short":
        assert len(saved["rewards"]) == 32
        path.write_bytes(content[:-5])
    elif damage == "empty":
        path.touch()
    elif damage == "foreign":
        with path.open("wb") as file:
            np.save(file, np.arange(100))
    elif damage == "of a shorter run":
        with path.open("wb") as file:
            np.save(file, np.load(io.BytesIO(content))[:10])
    count = runs.open_run(workdir).progress["architectures"]
    plan = dataclasses.replace(CONFIG.search, epochs=CONFIG.search.epochs + 1)
    start(dataclasses.replace(CONFIG, search=plan), workdir)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")]
    (line,) = told
    assert line.startswith(f"warning: {path} lacks {count - kept} of {count} architectures")
    found = scored(workdir)
    for name, column in saved.items():
        np.testing.assert_array_equal(found[name][:kept], column[:kept])
    lost = slice(kept, count)
    assert (found["decisions"][lost] == -1).all() and np.isnan(found["rewards"][lost]).all()
    assert (found["decisions"][count:] >= 0).all() and np.isfinite(found["rewards"][count:]).all()
    assert len(found["rewards"]) == len(found["decisions"]) > count == len(saved["rewards"])


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        assert fails(start, CONFIG, path).startswith(f"--workdir: cannot write to {path}: ")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("")
    assert (
        fails(start, CONFIG, tmp_path / "run")
        == f"cannot make the folder {tmp_path / 'run' / 'checkpoints'}: File exists"
    )


@pytest.fixture
def disk(tmp_path):
    """The folder of a file system of some kilobytes, and a function that makes it read-only."""
    with mounted(tmp_path / "disk", 600) as make_read_only:
        yield tmp_path / "disk", make_read_only


def test_a_directory_that_cannot_be_written(disk, finished, capfd):
    disk, make_read_only = disk
    shutil.copytree(finished, disk / "run")
    assert make_read_only()
    assert (
        fails(start, CONFIG, disk / "run")
        == f"--workdir: cannot write to {disk / 'run'}: Read-only file system"
    )
    run = runs.open_run(disk / "run")
    assert fails(measurements.measure, run, untrained=False).startswith("cannot write ")
    assert capfd.readouterr() == ("", "")
    assert_same_run(CONFIG, disk / "run", finished)


def test_a_disk_that_fills_during_the_run(disk, finished, capfd):
    disk, _ = disk
    shutil.copytree(finished, disk / "run")
    for step in CHECKPOINTS[1:]:
        shutil.rmtree(disk / "run" / "checkpoints" / str(step))
    ballast = fill(disk)
    message = fails(start, CONFIG, disk / "run")
    assert (
        message.startswith(("cannot write ", "cannot save checkpoint ", "--workdir: cannot write "))
        and "No space" in message
    )
    assert capfd.readouterr().err == ""
    ballast.unlink()
    start(CONFIG, disk / "run")
    assert_same_run(CONFIG, disk / "run", finished)


def test_a_search_and_a_model_from_scratch_are_told_apart(tmp_path, finished):
    scratch = dataclasses.replace(CONFIG, training=TrainingConfig(architecture="lstm", epochs=1))
    assert "training.architecture: must be empty in a search" in fails(
        start, scratch, tmp_path / "search"
    )
    assert not (tmp_path / "search").exists()
    result = runs.train(scratch, tmp_path / "model", data_dir="somewhere")
    assert "holds a model trained from scratch, not a search" in fails(
        runs.open_run, tmp_path / "model"
    )
    assert "training.architecture: 'lstm' -> ''" in fails(start, CONFIG, tmp_path / "model")
    assert "training.architecture: '' -> 'lstm'" in fails(runs.train, scratch, finished)
    with unchanged(tmp_path / "model"):
        assert runs.train(scratch, tmp_path / "model") == result


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_alone_is_trained_as_exactly_as_its_configuration_says(
    precision, tmp_path, monkeypatch
):
    asked = []

    def stopped(*args):
        asked.append(jax.config.jax_default_matmul_precision)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run", stopped)
    scratch = TrainingConfig(architecture="lstm", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        runs.train(dataclasses.replace(CONFIG, precision=precision, training=scratch), tmp_path)
    assert asked == [PRECISIONS[precision]]


def test_a_search_by_evolution_has_no_controller(tmp_path):
    strategy = {"name": "evolution", "population": 8, "tournament": 3}
    config = tiny(search={"epochs": 1, "warmup_epochs": 0}, strategy=strategy)
    start(config, tmp_path / "run")
    run, found = runs.open_run(tmp_path / "run"), scored(tmp_path / "run")
    # Alive are the youngest of all that were scored, wherever the ring begins.
    population = run.state.strategy.population
    assert population.scored == len(found["rewards"]) == 4 * 4
    alive, youngest = (
        sorted(zip(map(tuple, decisions.tolist()), rewards.tolist(), strict=True))
        for decisions, rewards in (
            (np.asarray(population.decisions), np.asarray(population.rewards)),
            (found["decisions"][-8:], found["rewards"][-8:]),
        )
    )
    assert alive == youngest
    assert "is a search by evolution, which has no controller" in fails(measurements.measure, run)


BEST = {"source": "best", "capacity": 3, "refresh_size": 1, "batch": 2}
WITH_ARCHIVES = {
    "evolution": {"name": "evolution", "population": 8, "tournament": 3, "archive": 12},
    "local_search": {"name": "local_search", "archive": 12},
    "best": {"supervised": "likelihood", "archive": 12, "mutations": 0.5, "memory": BEST},
    "untrained": {"archive": 12, "screening": "untrained"},
    "value": {"archive": 12, "screening": "value"},
}


@pytest.mark.parametrize("name", WITH_ARCHIVES)
def test_what_was_scored_is_kept_with_the_run(name, tmp_path):
    config = tiny(search={"epochs": 2, "warmup_epochs": 0}, strategy=WITH_ARCHIVES[name])
    start(config, tmp_path / "run")
    archive, found = (
        runs.open_run(tmp_path / "run").state.strategy.archive,
        scored(tmp_path / "run"),
    )
    assert archive.scored == len(found["rewards"]) == 2 * 4 * 4
    held, last = (
        {tuple(row) for row in np.asarray(rows).tolist()}
        for rows in (archive.decisions, found["decisions"][-12:])
    )
    assert held == last
