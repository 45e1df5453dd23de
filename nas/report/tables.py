"""One description of a table for the terminal, CSV, Markdown and HTML, so that a number is
formatted in one place.
"""

import csv
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import tabulate

from nas.files import write_atomic


@dataclasses.dataclass(frozen=True)
class Empty:
    """A cell without a value; `reason` is shown in its place."""

    reason: str = "not computed"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column and the format of its numbers."""

    name: str
    digits: int | None = None  # decimals of a number column; None: a column of text
    signed: bool = False  # write + before positive numbers


class Row(NamedTuple):
    """One row. A reference row is not a result of the runs in the table: chance, a published
    number.
    """

    cells: Sequence[
        str | float | Empty
    ]  # one a column; a string in a number column is printed as it is: "-0.4 [-0.5, -0.3]"
    reference: bool = False


class TableCell(NamedTuple):
    """A formatted cell."""

    text: str
    kind: str  # text, number or empty


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: `text` for the terminal, `csv` and `markdown` for files; `nas.report.html` renders
    the same cells.

    Raises:
      ValueError: a row whose length is not the number of columns, or a cell that is neither a
        number, a string nor `Empty`.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    command: str = ""  # the command that makes the table

    def __post_init__(self):
        self.cells()

    def cells(self) -> list[list[TableCell]]:
        """Formatted cells, row by row. Not-a-number becomes an empty cell: undefined."""
        formatted = []
        for r, row in enumerate(self.rows):
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}, row {r}: {len(row.cells)} cells for "
                    f"{len(self.columns)} columns"
                )
            try:
                formatted.append(
                    [
                        _format(column, value)
                        for column, value in zip(self.columns, row.cells, strict=True)
                    ]
                )
            except TypeError as error:
                raise ValueError(f"table {self.title!r}, row {r}: {error}") from None
        return formatted

    def text(self) -> str:
        """The table in plain characters, for a terminal, with title, notes and command."""
        command = [f"Made by: {self.command}"] if self.command else []
        return "\n".join([self.title, "", self.body(), "", *self.notes, *command]).rstrip() + "\n"

    def body(self) -> str:
        """Header and rows in plain characters; a rule separates reference rows from the others."""
        lines = []
        for r, cells in enumerate(self.cells()):
            if r and self.rows[r].reference != self.rows[r - 1].reference:
                lines.append(tabulate.SEPARATING_LINE)
            lines.append([cell.text for cell in cells])
        return tabulate.tabulate(
            lines,
            headers=[column.name for column in self.columns],
            tablefmt="simple",
            disable_numparse=True,
            colalign=["left" if column.digits is None else "right" for column in self.columns]
            if lines
            else None,
            maxheadercolwidths=16,
        )

    def csv(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the header and the formatted cells to `path`; an empty cell holds its reason."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(column.name for column in self.columns)
        writer.writerows([cell.text for cell in row] for row in self.cells())
        return write_atomic(path, buffer.getvalue())

    def markdown(self) -> str:
        """The table as GitHub shows it, with title, notes and command."""
        lines = [
            [column.name for column in self.columns],
            ["---" if column.digits is None else "---:" for column in self.columns],
            *([cell.text for cell in row] for row in self.cells()),
        ]
        escaped = ([text.replace("|", r"\|") for text in line] for line in lines)
        table = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        command = [f"Made by: `{self.command}`"] if self.command else []
        return "\n\n".join([f"**{self.title}**", table, *self.notes, *command]) + "\n"

    def save(self, folder: pathlib.Path, name: str) -> None:
        """Writes NAME.csv and NAME.md."""
        self.csv(folder / f"{name}.csv")
        write_atomic(folder / f"{name}.md", self.markdown())


def _format(column: Column, value: str | float | Empty) -> TableCell:
    if isinstance(value, Empty):
        return TableCell(value.reason, "empty")
    if isinstance(value, str):
        return TableCell(value, "text" if column.digits is None else "number")
    if value is None:
        raise TypeError(f"column {column.name!r} holds None: say why with Empty(reason)")
    if math.isnan(value):
        return TableCell("undefined", "empty")
    if column.digits is None:
        return TableCell(str(value), "number")
    if not column.signed and 0 < value < 0.5 * 10.0**-column.digits:  # no p is 0
        return TableCell(f"<{10.0**-column.digits:.{column.digits}f}", "number")
    sign = "+" if column.signed else ""
    return TableCell(format(value, f"{sign}z.{column.digits}f"), "number")  # z: no -0.000
