"""A table of every cell of a small recurrent space, each trained alone with several seeds.

A file is CSV, plain or gzipped. Its first line is `#` and its settings as JSON, among them
`num_nodes` and `seeds`; then come the names of the columns, architecture and for every seed S
`online S`, `validation S` and `test S`; then a line an architecture, in bits a character. One
architecture of each class that computes the same is there, the canonical one, and some are there as
relabelled copies too.
"""

import csv
import dataclasses
import gzip
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from nas.data import csv_lines
from nas.data.table import ScoreTable, Unit
from nas.errors import UserError
from nas.files import replacing, writing
from nas.spaces.recurrent import RecurrentSpace

# bits a character: of the text as it is read for the last eighth of the training; of held-out text
# after it
MEASURES = ("online", "validation", "test")
BITS = Unit("bits a character", 1.0, 4)
DATA_SET = "kjv"  # the King James text, of which all cells are models
PACKAGED = {"recurrent4": pathlib.Path(__file__).parent / "tables" / "recurrent4.csv.gz"}
_WHAT = "a table of cells is a CSV file that experiments.every_cell writes"
_DIGITS = 5


@dataclasses.dataclass(frozen=True)
class CellTable:
    """What is known of all cells; R trainings of each of S seeds."""

    num_nodes: int
    seeds: tuple[int, ...]
    settings: Mapping[str, object]  # how it was made
    decisions: np.ndarray  # [R, T] int32; one of each class, canonical, then copies of some
    bits: Mapping[str, np.ndarray]  # of MEASURES -> [R, S] float64, bits a character

    @property
    def space(self) -> RecurrentSpace:
        return RecurrentSpace(num_nodes=self.num_nodes)

    def rows(self) -> np.ndarray:
        """[n] int: the row of the canonical cell of every architecture, in the order of
        `space.every()`; equal exactly for those that compute the same.
        """
        space = self.space
        row_of = {int(index): row for row, index in enumerate(space.index(self.decisions))}
        canonical = space.index(space.canonical(space.every()))
        return np.array([row_of[int(index)] for index in canonical])

    def copies(self) -> np.ndarray:
        """[P, 2] rows of a canonical cell and of its relabelled copy."""
        space = self.space
        canonical = space.index(space.canonical(self.decisions))
        own = space.index(self.decisions)
        row_of = {int(index): row for row, index in enumerate(own)}
        return np.array(
            [(row_of[int(c)], row) for row, c in enumerate(canonical) if c != own[row]], int
        ).reshape(-1, 2)


def canonical_cells(space: RecurrentSpace) -> np.ndarray:
    """int32[C, T]: one cell of each class, in the order of `space.every()`."""
    every = space.every()
    return every[np.unique(space.index(space.canonical(every)))]


def score_table(table: CellTable) -> ScoreTable:
    """The table with every architecture at its canonical cell: minus bits a character, mean over
    seeds.
    """
    rows = table.rows()
    measured = {"val": table.bits["validation"], "test": table.bits["test"]}
    scores = {
        (DATA_SET, split): -bits.mean(axis=1)[rows].astype(np.float32)
        for split, bits in measured.items()
    }
    classes = np.unique(rows, return_inverse=True)[1].astype(np.int32)
    return ScoreTable(table.space, scores, classes, BITS)


def holds_cells(path: str | os.PathLike) -> bool:
    """Whether a file begins as a table of cells does.

    Raises:
      UserError: no such file, or not text.
    """
    what = "a table is a CSV file of accuracies (nas/data/table.py) or of cells (cell_table.py)"
    return csv_lines.read_text(pathlib.Path(path), what).startswith("#")


def read_cells(path: str | os.PathLike) -> CellTable:
    """The table in a file.

    Raises:
      UserError: no such file, not text, no settings, other columns, an architecture that is not of
        the space, there twice or missing, bits that are not a positive number; names the file and
        the line or column.
    """
    path = pathlib.Path(path)
    head, _, text = csv_lines.read_text(path, _WHAT).partition("\n")
    num_nodes, seeds, settings = _settings(path, head)
    space = RecurrentSpace(num_nodes=num_nodes)
    columns = [f"{measure} {seed}" for seed in seeds for measure in MEASURES]
    rows = csv_lines.rows(path, text, first=2)
    where, header = next(rows, (f"{path}, line 2", []))
    if sorted(header) != sorted(["architecture", *columns]):
        raise UserError(
            f"{where}: columns must be architecture, {', '.join(columns)}; got "
            f"{', '.join(header) or 'none'}"
        )
    name = header.index("architecture")
    places = [header.index(column) for column in columns]
    found = {}
    for where, row in rows:
        if len(row) != len(header):
            raise UserError(f"{where}: {len(row)} fields, the header has {len(header)}")
        try:
            decisions = space.parse(row[name])
        except UserError as error:
            raise UserError(f"{where}: architecture: {error}") from None
        if (key := tuple(decisions.tolist())) in found:
            raise UserError(f"{where}: {row[name]} is there twice")
        found[key] = [_bits(where, header[place], row[place]) for place in places]
    wanted = {tuple(cell) for cell in canonical_cells(space).tolist()}
    if absent := sorted(wanted - set(found)):
        raise UserError(
            f"{path}: {len(absent):,} of {len(wanted):,} cells are missing, the first is "
            f"{space.format(absent[0])}"
        )
    ordered = sorted(found, key=lambda key: (key not in wanted, key))
    values = np.array([found[key] for key in ordered]).reshape(-1, len(seeds), len(MEASURES))
    bits = {measure: values[:, :, m] for m, measure in enumerate(MEASURES)}
    return CellTable(num_nodes, seeds, settings, np.array(ordered, np.int32), bits)


def write_cells(table: CellTable, path: str | os.PathLike) -> pathlib.Path:
    """Writes `table` as gzipped CSV, to be read by `read_cells`; the same bytes for the same table.

    Raises:
      UserError: the disk is full or the folder cannot be made or written.
    """
    path = pathlib.Path(path)
    settings = {"num_nodes": table.num_nodes, "seeds": list(table.seeds)} | dict(table.settings)
    buffer = io.StringIO()
    buffer.write(f"# {json.dumps(settings)}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    columns = [f"{measure} {seed}" for seed in table.seeds for measure in MEASURES]
    writer.writerow(["architecture", *columns])
    values = np.stack([table.bits[measure] for measure in MEASURES], axis=2)
    for decisions, row in zip(table.decisions, values.reshape(len(values), -1), strict=True):
        writer.writerow([table.space.format(decisions), *(f"{bits:.{_DIGITS}f}" for bits in row)])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(buffer.getvalue().encode(), mtime=0))
    return path


def _settings(path, head):
    try:
        settings = json.loads(head.removeprefix("#"))
        num_nodes, seeds = settings.pop("num_nodes"), tuple(settings.pop("seeds"))
        whole = all(type(number) is int and number >= 0 for number in (num_nodes, *seeds))
        if head.startswith("#") and whole and 2 <= num_nodes <= 5 and seeds:
            return num_nodes, seeds, settings
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{path}, line 1: must be # and settings as JSON with num_nodes, 2 to 5, and seeds; got "
        f"{head[:60]!r}"
    )


def _bits(where, column, text) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{where}: {column} must be bits a character, more than 0, got {text!r}")
    return value
