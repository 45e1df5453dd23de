"""Data sets that TFDS prepares on first use and keeps, without TensorFlow.

TFDS is imported when a data set is loaded.
"""

import contextlib
import io
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nas.errors import UserError, one_line

T = TypeVar("T")


def load(
    what: str,
    builder_class: type,
    read: Callable[[Mapping[str, Any]], T],
    *,
    data_dir: str | None,
    **options,
) -> T:
    """What `read` makes of the splits of a data set, which is prepared with `options` if need be.

    Args:
      what: for messages, such as "corpus kjv".
      builder_class: a TFDS builder, of an importable module.
      read: {split: source of examples} -> result; raises UserError if they differ from what was
        prepared.
      data_dir: where TFDS keeps prepared data; None: its own default.

    Raises:
      UserError: it cannot be prepared there, or what was prepared is damaged.
    """
    import tensorflow_datasets as tfds

    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    folder, kind = data_dir / builder_class.name / str(builder_class.VERSION), what.split()[0]
    again = "prepare it anew in another folder, --data_dir=FOLDER"
    with _quiet():
        if not folder.exists():
            _prepare(kind, builder_class, folder, data_dir=str(data_dir), **options)
            print(f"prepared the {what} in {folder}", file=sys.stderr, flush=True)
        try:
            if not (folder / "dataset_info.json").exists():  # TFDS would take it for an old format
                raise UserError("dataset_info.json is missing")
            return read(builder_class(data_dir=str(data_dir)).as_data_source())
        except UserError as error:  # other data than was prepared, or pieces are missing
            raise UserError(
                f"the prepared {kind} in {folder} is damaged ({one_line(error)}); {again}"
            ) from error
        except Exception as error:  # TFDS and what it reads with raise errors of many kinds
            raise UserError(
                f"the prepared {kind} in {folder} cannot be read: {type(error).__name__}: "
                f"{one_line(error)}; if the files have changed, {again}"
            ) from error


def _prepare(kind, builder_class, folder, **options):
    # TFDS writes beside `folder` and renames at the end: a killed process leaves no `folder`. Of
    # two processes that prepare at the same time one fails to rename, which does no harm.
    try:
        builder_class(**options).download_and_prepare(file_format="array_record")
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError if the disk is full
        if not folder.exists():
            raise UserError(f"cannot prepare the {kind} in {folder}: {one_line(error)}") from error


@contextlib.contextmanager
def _quiet():
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
