"""Checkpoints: written atomically by orbax in a thread while the run goes on, verified by a SHA-256
over every leaf when they are read.

A storage error can show up as an exception or, as easily, as wrong numbers. The digest turns both
into "this checkpoint is damaged", and the checkpoint before it is used instead.
"""

import concurrent.futures
import hashlib
import json
import logging
import pathlib
import re
import sys
import tempfile
import time
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from nas.errors import UserError, one_line
from nas.files import replacing

FOLDER = "checkpoints"
_MANIFEST = "files.json"  # size and CRC-32 of a checkpoint's files when it was saved


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, workdir: pathlib.Path, keep: int = 1):
        """Args: keep: number of newest checkpoints that are kept.

        Raises:
          UserError: the folder cannot be made.
        """
        for name in ("absl", "asyncio"):  # their tracebacks only repeat what is raised
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # One process reads and writes: orbax must not wait for the others.
        alone = jax.process_index()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            enable_async_checkpointing=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=str(alone)
            ),
        )
        self._folder = workdir.resolve() / FOLDER
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self._folder}: {error.strerror}") from error
        self._alias = _plain_name(self._folder)
        folder = pathlib.Path(self._alias.name, FOLDER) if self._alias else self._folder
        self._manager = ocp.CheckpointManager(folder, options=options)
        self._damaged = []  # steps of damaged checkpoints that `restore` skipped
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._saving: concurrent.futures.Future | None = None
        self._copy: Any = None  # memory for the state that is being saved
        self._begun = time.monotonic()  # time of the last save; before the first, of this object
        _hide_late_reads()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first.

        Raises:
          UserError: as `wait`.
        """
        self.wait()
        return sorted(self._manager.all_steps())

    def reserve(self, template: Any) -> None:
        """Begins to allocate the memory that `save` copies the state to, which takes time.

        Args:
          template: a pytree of arrays or shapes like the state that will be saved.
        """
        self.wait()
        self._saving = self._thread.submit(self._reserve, template)

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Begins to save a pytree of arrays and a JSON-able dictionary. They replace a checkpoint
        of the same step, and damaged ones.

        The arrays are copied before this returns; a thread writes the copy.

        Raises:
          UserError: as `wait`, for the save before this one.
        """
        self.wait()
        if self._copy is None or _shapes(self._copy) != _shapes(state):
            self._reserve(state)
        jax.tree.map(np.copyto, self._copy, state)
        self._begun = time.monotonic()
        self._saving = self._thread.submit(self._write, step, self._copy, progress)

    def wait(self) -> None:
        """Waits until the save that was begun is on disk.

        Raises:
          UserError: the disk is full or the folder cannot be written; older checkpoints stay
            intact.
        """
        saving, self._saving = self._saving, None
        if saving:
            saving.result()

    def age(self) -> float:
        """Seconds since the last save began."""
        return time.monotonic() - self._begun

    def check(self) -> None:
        """Raises what a finished save has raised, as `wait` does, without waiting."""
        if self._saving and self._saving.done():
            self.wait()

    def _reserve(self, template):
        self._copy = jax.tree.map(lambda leaf: np.full(leaf.shape, 0, leaf.dtype), template)

    def _write(self, step, state, progress):
        try:
            # orbax saves no step below its newest one.
            for old in {step, *self._damaged}.intersection(self._manager.all_steps()):
                self._manager.delete(old)
            self._damaged = []
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave(
                        {"progress": progress, "sha256": digest(state, progress)}
                    ),
                ),
            )
            self._manager.wait_until_finished()
            _write_manifest(self._folder / str(step))
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot save checkpoint {step} in {self._folder}: {one_line(error)}"
            ) from error

    def restore(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest intact checkpoint as (state, progress); None if there is no checkpoint.

        A checkpoint is damaged if one of its files has changed or is missing, or if its contents do
        not match their SHA-256. It is skipped, with a message on standard error.

        Args:
          template: a pytree of arrays or shapes with the structure that was saved.

        Raises:
          UserError: all checkpoints are damaged, or an intact one cannot be read.
        """
        shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
        damaged = self._damaged = []
        for step in reversed(self.steps()):
            try:
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(shapes), progress=ocp.args.JsonRestore()
                    ),
                )
                state, saved = restored["state"], restored["progress"]
                if digest(state, saved["progress"]) != saved["sha256"]:
                    raise ValueError("its contents do not match their SHA-256")
            except Exception as error:  # orbax raises any kind; the files show whether it is damage
                if _is_whole(self._folder / str(step)):
                    reason = f"{type(error).__name__}: {one_line(error)}"
                    raise UserError(
                        f"checkpoint {step} in {self._folder} is undamaged but cannot be read "
                        f"here: {reason}"
                    ) from error
                damaged.append(step)
                print(
                    f"checkpoint {step} in {self._folder} is damaged: {one_line(error)}",
                    file=sys.stderr,
                )
                continue
            return jax.tree.map(jnp.asarray, state), saved["progress"]
        if damaged:
            raise UserError(
                f"all checkpoints in {self._folder} are damaged, and the run cannot continue; "
                "start a new one with another --workdir"
            )
        return None

    def close(self) -> None:
        """Waits for the save that was begun, then releases everything.

        Raises:
          UserError: as `wait`.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._manager.close()
            if self._alias:
                self._alias.cleanup()


def _shapes(state):
    return jax.tree.structure(state), [(x.shape, x.dtype) for x in jax.tree.leaves(state)]


def digest(state: Any, progress: dict[str, Any]) -> str:
    """SHA-256 over `progress` and the paths, shapes, types and bytes of all leaves of `state`."""
    sha = hashlib.sha256(repr(sorted(progress.items())).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        leaf = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        sha.update(leaf.reshape(-1).view(np.uint8))
    return sha.hexdigest()


def _plain_name(folder: pathlib.Path) -> tempfile.TemporaryDirectory | None:
    """A temporary folder that holds a link to `folder`, for a path that tensorstore would read as a
    pattern; None if the path has no such characters.
    """
    if not re.search(r"[\[\]\\]", str(folder)):
        return None
    alias = tempfile.TemporaryDirectory(prefix="nas")
    pathlib.Path(alias.name, FOLDER).symlink_to(folder)
    return alias


def _checksums(folder: pathlib.Path) -> dict[str, list[int]]:
    """File -> its size and CRC-32, for all files of a checkpoint except the manifest."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, zlib.crc32(path.read_bytes())]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }


def _write_manifest(folder: pathlib.Path) -> None:
    checksums = json.dumps(_checksums(folder))
    with replacing(folder / _MANIFEST) as temporary:
        temporary.write_text(checksums)


def _is_whole(folder: pathlib.Path) -> bool:
    """Whether all files of a checkpoint are as they were written."""
    try:
        return json.loads((folder / _MANIFEST).read_text()) == _checksums(folder)
    except (OSError, ValueError):
        return False


def _hide_late_reads():
    """Hides the tracebacks of reads that other threads continue after one read has failed: the
    error of that one is raised.
    """
    hook = sys.unraisablehook

    def but_for_late_reads(unraisable):
        if not (
            unraisable.exc_type is RuntimeError
            and str(unraisable.exc_value) == "Event loop is closed"
        ):
            hook(unraisable)

    if getattr(hook, "__name__", "") != but_for_late_reads.__name__:
        sys.unraisablehook = but_for_late_reads
