"""A report as one HTML file: figures embedded, no script, nothing fetched. It opens from a file
with no network.

Blocks appear in the order in which they are added. Every string is escaped; none is read as markup.
"""

import base64
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import matplotlib
import PIL.Image
from matplotlib.figure import Figure

from nas.files import write_atomic
from nas.report.tables import Table, TableCell

_SVG_BYTES = 60_000  # an SVG larger than this becomes a PNG, if that is half as large or less
_DPI = 192  # dots per inch of raster images: twice the 96 of a browser
# colours of a PNG: a third of the bytes of full colour, and no visible difference in a plot
_COLORS = 128
_CARDS_PER_ROW = {2: 2, 4: 2}  # number of figures -> figures in a row; otherwise three


class _Image(NamedTuple):
    source: str  # data URI
    width: int  # CSS pixels at natural size
    height: int
    alt: str


class Report:
    """Collects blocks, then writes the page.

    >>> report = Report("Two arms", "What the memory changes.")
    >>> report.section("Result")
    >>> report.table(table)
    >>> report.figure(figure, "Distances against common activations.", "Scatter plot, falling")
    >>> report.write("report/index.html")
    """

    def __init__(self, title: str, summary: str = ""):
        self._title = title
        self._summary = _paragraphs(summary)
        self._answers: list[dict] = []
        self._blocks: list[dict] = []

    def answer(
        self,
        question: str,
        sentence: str,
        figure: Figure,
        *,
        alt: str,
        table: str,
        published: str = "",
        caption: str = "",
    ) -> None:
        """A question with its answer. Answers open the page, in the order in which they are added.

        Args:
          figure: a single one, as for `figure`.
          alt: as for `figure`.
          table: anchor of the table that holds the numbers.
          published: what the paper says of it.
          caption: what the figure shows.
        """
        texts = {"question": question, "sentence": sentence, "published": published}
        image = _embed(figure, alt)
        self._answers.append({**texts, "caption": caption, "image": image, "table": table})

    def section(self, heading: str) -> None:
        """Starts a section; sections are listed at the top of the page."""
        self._add("section", heading=heading, anchor=f"section-{1 + len(self._sections())}")

    def text(self, text: str) -> None:
        """Paragraphs, separated by empty lines."""
        self._add("text", paragraphs=_paragraphs(text))

    def items(self, sentences: Sequence[str]) -> None:
        """A list of sentences."""
        self._add("items", sentences=list(sentences))

    def table(self, table: Table, anchor: str = "") -> None:
        """A table with its notes and the command that makes it; links to `anchor` lead to it."""
        rows = list(zip(table.rows, table.cells(), strict=True))
        self._add("table", table=table, rows=rows, anchor=anchor)

    def figure(
        self, figures: Figure | Sequence[Figure], caption: str, alt: str | Sequence[str]
    ) -> None:
        """One figure, or several under one caption: side by side where there is room, else one
        below another.

        Args:
          figures: matplotlib figures; each becomes SVG, or PNG where the SVG is large.
          caption: printed below.
          alt: text for readers who cannot see the image, one for each figure.
        """
        if isinstance(figures, Figure):
            figures, alt = [figures], [alt]
        images = [_embed(figure, text) for figure, text in zip(figures, alt, strict=True)]
        self._add(
            "figure", images=images, caption=caption, per_row=_CARDS_PER_ROW.get(len(images), 3)
        )

    def commands(self, commands: Sequence[str]) -> None:
        """Shell commands, each in its own box; long ones wrap."""
        self._add("commands", commands=list(commands))

    def details(self, mapping: Mapping[str, object]) -> None:
        """Names and values: versions, hardware, settings."""
        self._add("details", items=[(str(name), str(value)) for name, value in mapping.items()])

    def write(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the page to `path`, whole or not at all. The same blocks give the same bytes.

        Raises:
          ValueError: the table of an answer is not on the page.
        """
        blocks = [block for block in self._blocks if block["kind"] == "table"]
        tables = {block["anchor"]: block["table"].title for block in blocks}
        linked = [answer["table"] for answer in self._answers]
        if missing := [anchor for anchor in linked if anchor not in tables]:
            raise ValueError(f"answers link to tables that are not there: {', '.join(missing)}")
        page = _ENVIRONMENT.get_template("page.html").render(
            title=self._title,
            summary=self._summary,
            answers=self._answers,
            tables=tables,
            blocks=self._blocks,
            sections=self._sections(),
        )
        return write_atomic(path, page)

    def _add(self, kind: str, **block) -> None:
        self._blocks.append({"kind": kind, **block})

    def _sections(self) -> list[dict]:
        return [block for block in self._blocks if block["kind"] == "section"]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _typeset(cell: TableCell) -> str:
    return _true_minus(cell.text) if cell.kind == "number" else cell.text


def _prose(sentence: str) -> str:
    """A sentence with numbers in it: true minus signs, and no line break inside an interval."""
    whole = "\N{NO-BREAK SPACE}"
    return re.sub(r"\[[^]]*\]", lambda found: found[0].replace(" ", whole), _true_minus(sentence))


def _true_minus(text: str) -> str:
    return re.sub(r"(?<!\w)-(?=[\d.])", "\N{MINUS SIGN}", text)


def _tokens(command: str) -> list[str]:
    """Words and the white space between them, in turn: lines break at white space, not inside
    `--flag`.
    """
    return re.split(r"(\s+)", command)


def _embed(figure: Figure, alt: str) -> _Image:
    """The figure as a data URI. An image, not inline markup: identifiers of two drawings cannot
    clash.
    """
    # With these settings a figure gives the same bytes every time.
    with matplotlib.rc_context({"svg.hashsalt": "nas", "svg.fonttype": "path"}):
        kind, data = "svg+xml", _render(figure, "svg", dpi=_DPI, metadata={"Date": None})
    figure.set_layout_engine("none")  # keeps the layout: to compute it takes as long as to draw
    if len(data) > _SVG_BYTES:
        png = io.BytesIO()
        image = PIL.Image.open(io.BytesIO(_render(figure, "png", dpi=_DPI))).convert("RGB")
        image.quantize(_COLORS, dither=PIL.Image.Dither.NONE).save(png, "PNG", optimize=True)
        if len(png.getvalue()) <= len(data) / 2:
            kind, data = "png", png.getvalue()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return _Image(f"data:image/{kind};base64,{base64.b64encode(data).decode()}", width, height, alt)


def _render(figure, file_format, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, facecolor="white", **options)
    return buffer.getvalue()


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"typeset": _typeset, "prose": _prose, "tokens": _tokens}
