"""The architectures that a search has scored: architectures.npy, one record each. Imports no JAX.

    found = numpy.load("architectures.npy")
    found["decisions"]  # [n, T] int32
    found["reward"]  # [n] float32

The file grows with the search, in the order of scoring. A run that continues first cuts off the
records that it will score again.
"""

import os
import pathlib
import sys

import numpy as np

from nas.files import writing

FILE = "architectures.npy"


class Scored:
    """Appends to the file of a run directory."""

    def __init__(self, workdir: pathlib.Path, num_decisions: int, count: int):
        """Opens the file and keeps its first `count` records.

        Missing records are filled in with decisions -1 and reward nan, and a warning says so.

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        self._path, self._count = workdir / FILE, count
        self._dtype = np.dtype([("decisions", "<i4", (num_decisions,)), ("reward", "<f4")])
        with writing(self._path):
            there = min(count, self._records())
            self._file = self._path.open("r+b" if there else "w+b")
            self._write_header()
            self._file.truncate(self._file.tell() + there * self._dtype.itemsize)
            self._file.seek(0, os.SEEK_END)
            if lost := count - there:
                print(
                    f"warning: {self._path} lacks {lost:,} of {count:,} architectures that the run "
                    "has scored; in the file their decisions are -1 and their rewards nan",
                    file=sys.stderr,
                )
                nothing = np.full(lost, -1, self._dtype)
                nothing["reward"] = np.nan
                self._file.write(nothing.tobytes())
            self._file.flush()

    def append(self, decisions: np.ndarray, rewards: np.ndarray) -> None:
        """Appends architectures [n, T] with rewards [n].

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        records = np.empty(len(rewards), self._dtype)
        records["decisions"], records["reward"] = decisions, rewards
        with writing(self._path):
            self._file.write(records.tobytes())
            self._file.flush()
            self._count += len(records)
            self._file.seek(0)
            self._write_header()  # after the records that it counts
            self._file.seek(0, os.SEEK_END)
            self._file.flush()

    def close(self) -> None:
        with writing(self._path):
            self._file.close()

    def _records(self):
        """Number of whole records in the file; 0 if there is no file or it is of another kind."""
        try:
            with self._path.open("rb") as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    return 0
                if np.lib.format.read_array_header_1_0(file)[2] != self._dtype:
                    return 0
                rest = os.fstat(file.fileno()).st_size - file.tell()
        except (FileNotFoundError, ValueError):
            return 0
        return rest // self._dtype.itemsize

    def _write_header(self):
        """Writes the header for the current number of records; numpy pads it for any number."""
        descr = np.lib.format.dtype_to_descr(self._dtype)
        shape = {"descr": descr, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, shape)
