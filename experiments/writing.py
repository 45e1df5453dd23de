"""How a driver says what it found: printed, as CSV, Markdown and PNG, and as one page."""

import json
import pathlib
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from nas import runs
from nas.errors import UserError
from nas.files import writing
from nas.report.html import Report
from nas.report.tables import Table


class Written:
    """Prints tables and sentences, writes tables as CSV and Markdown, figures as PNG; the report at
    the end.
    """

    def __init__(self, folder: pathlib.Path, command: str, title: str, summary: str):
        self._folder, self._command, self._report = folder, command, Report(title, summary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir: cannot write to {folder}: {error.strerror}") from error

    def section(self, heading: str, printed: Mapping[str, Table]) -> None:
        """A section of tables; their file names are the keys."""
        self._report.section(heading)
        for name, table in printed.items():
            print(table.text(), flush=True)
            table.save(self._folder, name)
            self._report.table(table)

    def answer(
        self, question: str, sentence: str, drawn: Sequence[tuple[str, Figure, str]]
    ) -> None:
        """A question, its sentence and its figures: file name, figure, caption."""
        print(f"{question}\n{sentence}\n", flush=True)
        self._report.section(question)
        self._report.text(sentence)
        for name, figure, caption in drawn:
            with writing(path := self._folder / f"{name}.png"):
                figure.savefig(path, dpi=200)
            self._report.figure(figure, caption, caption)

    def finish(self, described: Mapping[str, object]) -> None:
        """Writes the report."""
        self._report.section("Command and versions")
        self._report.commands([self._command])
        self._report.details(runs.versions() | {"settings": json.dumps(described)})
        print(f"report: {self._report.write(self._folder / 'report' / 'index.html')}")
