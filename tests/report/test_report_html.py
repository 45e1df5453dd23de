import base64
import html.parser
import os

import numpy as np
import pytest

from nas import files
from nas.errors import UserError
from nas.report.figures import Logged, bars_with_intervals, training_curves
from nas.report.html import Report
from nas.report.tables import Column, Empty, Row, Table

HOSTILE = (
    "<script>alert(1)</script> & \"quoted\" 'single' $x_1$ {{ 7 * 7 }} </style> http://example.org/"
)


class Page(html.parser.HTMLParser):
    """Tags with attributes, texts by tag, and the rows of tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.rows, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def text(self, tag):
        return [data for name, data in self.texts if name == tag]


def make_table(name="PG only"):
    columns = [Column("Policy"), Column("r", 3, signed=True), Column("perplexity", 1)]
    rows = [
        Row([name, -0.4044, 66.25]),
        Row(["mean", "-0.4 [-0.5, 0.3]", 60.0]),
        Row(["Paper", Empty("not reported"), 55.8], reference=True),
    ]
    return Table(
        "Results",
        columns,
        rows,
        notes=["A note."],
        command="python -m launch.evaluate --workdir=runs/a",
    )


def make_figure(points=50, label="r"):
    """A bar and a cloud of points."""
    rng = np.random.default_rng(0)
    figure = bars_with_intervals(["PG only"], [0.1], [0.0], [0.2], label=label)
    figure.axes[0].scatter(*rng.random((2, points)))
    return figure


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    report = Report("Two arms", "First.\n\nSecond.")
    report.section("Result")
    report.text("One.\n\nTwo.")
    report.table(make_table())
    report.figure(make_figure(), "A caption.", "Points")
    report.section("How")
    report.commands(["bash launch/run.sh", "python -m launch.search  --config=kjv"])
    report.details({"Python": "3.11", "seed": 0})
    return report.write(tmp_path_factory.mktemp("report") / "new" / "index.html").read_text(
        encoding="utf-8"
    )


def test_nothing_is_fetched_and_nothing_runs(page):
    parsed = Page(page)
    names = {name for name, _ in parsed.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in parsed.tags:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(key, "#").startswith(("#", "data:image/"))
        assert not any(key.startswith("on") for key in attributes)
    assert (
        "http:" not in page
        and "https:" not in page
        and "@import" not in page
        and "url(" not in page
    )


def test_blocks_are_on_the_page_in_order(page):
    parsed = Page(page)
    assert [name for name, _ in parsed.tags if name in ("h1", "h2", "table", "img", "dl")] == [
        "h1",
        "h2",
        "table",
        "img",
        "h2",
        "dl",
    ]
    assert parsed.text("p") == ["First.", "Second.", "One.", "Two.", "A note."]
    assert parsed.text("figcaption") == ["Results", "A caption."]
    assert parsed.text("dt") == ["Python", "seed"] and parsed.text("dd") == ["3.11", "0"]
    anchors = {attributes["id"] for name, attributes in parsed.tags if name == "h2"}
    assert {attributes["href"] for name, attributes in parsed.tags if name == "a"} == {
        f"#{anchor}" for anchor in anchors
    }


def test_commands_can_be_copied_as_they_are(page):
    parsed, commands = Page(page), []
    for name, data in parsed.texts:
        if name in ("pre", "span"):
            commands.append(data)
    assert "".join(commands) == "".join(
        [make_table().command, "bash launch/run.sh", "python -m launch.search  --config=kjv"]
    )


def test_table_numbers_are_those_of_text_and_csv_with_a_true_minus(page, tmp_path):
    rows = Page(page).rows
    table = make_table()
    assert rows[0] == ["Policy", "r", "perplexity"]
    assert rows[1][1] == "\N{MINUS SIGN}0.404"
    assert rows[2][1] == "\N{MINUS SIGN}0.4 [\N{MINUS SIGN}0.5, 0.3]"
    for shown, cells in zip(rows[1:], table.cells(), strict=True):
        assert [text.replace("\N{MINUS SIGN}", "-") for text in shown] == [
            cell.text for cell in cells
        ]
        assert all(cell.text in table.text() for cell in cells)
        assert all(cell.text in table.csv(tmp_path / "t.csv").read_text() for cell in cells)


def test_reference_rows_and_empty_cells_are_marked(page):
    tags = Page(page).tags
    assert [attributes.get("class") for name, attributes in tags if name == "tr"] == [
        None,
        None,
        None,
        "reference",
    ]
    assert [attributes["class"] for name, attributes in tags if name == "td"] == [
        *["number"] * 4,
        "number empty",
        "number",
    ]


def test_hostile_text_is_text(tmp_path):
    report = Report(HOSTILE, HOSTILE)
    report.section(HOSTILE)
    report.section("Second")
    report.text(HOSTILE)
    report.table(
        Table(
            HOSTILE, [Column(HOSTILE)], [Row([HOSTILE]), Row([Empty(HOSTILE)])], [HOSTILE], HOSTILE
        )
    )
    report.figure(make_figure(label=HOSTILE), HOSTILE, HOSTILE)
    report.commands([HOSTILE])
    report.details({HOSTILE: HOSTILE})
    parsed = Page(report.write(tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "script" not in {name for name, _ in parsed.tags}
    assert [name for name, _ in parsed.tags].count("style") == 1
    for tag in ("title", "h1", "h2", "p", "td", "th", "figcaption", "dt", "dd"):
        assert HOSTILE in (parsed.text(tag) + [cell for row in parsed.rows for cell in row])
    assert [attributes["alt"] for name, attributes in parsed.tags if name == "img"] == [HOSTILE]


def test_answers_open_the_page_and_lead_to_their_tables(tmp_path):
    report = Report("Answers", "What was run.")
    report.section("First")
    report.section("Second")
    report.table(make_table(), "table-results")
    report.items(["It is -0.5 [-0.6, -0.4].", HOSTILE])
    for question in ("Does it?", HOSTILE):
        sentence = "It does, by -0.4 [-0.5, -0.3]; --seeds=0,1."
        report.answer(
            question,
            sentence,
            make_figure(),
            alt="A bar",
            table="table-results",
            published=HOSTILE,
            caption=HOSTILE,
        )
    page = report.write(tmp_path / "index.html").read_text(encoding="utf-8")
    parsed = Page(page)
    assert [tag for tag, _ in parsed.tags if tag in ("article", "nav", "table", "ul")] == [
        "article",
        "article",
        "nav",
        "table",
        "ul",
    ]
    assert parsed.text("h2") == ["Does it?", HOSTILE, "First", "Second"]
    links = [attributes["href"] for name, attributes in parsed.tags if name == "a"]
    anchors = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert links[:2] == ["#table-results"] * 2 and {link[1:] for link in links} == set(anchors)
    assert parsed.text("a")[0] == make_table().title
    minus, space = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
    interval = f"[{minus}0.5,{space}{minus}0.3]"
    assert f"It does, by {minus}0.4 {interval}; --seeds=0,1." in parsed.text("p")
    assert parsed.text("li")[0] == f"It is {minus}0.5 [{minus}0.6,{space}{minus}0.4]."
    assert "script" not in {name for name, _ in parsed.tags}


def test_an_answer_whose_table_is_not_on_the_page(tmp_path):
    report = Report("Answers")
    report.answer("Does it?", "It does.", make_figure(), alt="A bar", table="table-missing")
    with pytest.raises(ValueError, match="table-missing"):
        report.write(tmp_path / "index.html")


def test_several_figures_share_a_caption(tmp_path):
    report = Report("Three")
    report.figure([make_figure()] * 3, "Three panels.", ["a", "b", "c"])
    parsed = Page(report.write(tmp_path / "index.html").read_text(encoding="utf-8"))
    assert [attributes["alt"] for name, attributes in parsed.tags if name == "img"] == [
        "a",
        "b",
        "c",
    ]
    assert parsed.text("figcaption") == ["Three panels."]
    with pytest.raises(ValueError):
        report.figure([make_figure()] * 3, "Three panels.", ["a"])


def test_images_are_vector_where_small_and_raster_where_many_points(tmp_path):
    report = Report("Sizes")
    steps = np.arange(100)
    report.figure(
        training_curves(
            {"PG": {"loss": (steps, 1.0 / (1 + steps))}}, [Logged("loss", "loss (nats)")]
        ),
        "Line.",
        "line",
    )
    report.figure(make_figure(4950), "Cloud.", "cloud")
    tags = Page(report.write(tmp_path / "index.html").read_text(encoding="utf-8")).tags
    line, cloud = (attributes for name, attributes in tags if name == "img")
    kind, data = cloud["src"].split(";base64,")
    assert line["src"].startswith("data:image/svg+xml;base64,") and kind == "data:image/png"
    width = int.from_bytes(base64.b64decode(data)[16:20], "big")  # of the PNG header
    assert width == pytest.approx(2 * int(cloud["width"]), abs=2)
    assert len(line["src"]) < 80_000 and len(cloud["src"]) < 100_000


def test_same_blocks_same_bytes(tmp_path):
    pages = []
    for name in ("a", "b"):
        report = Report("Again")
        report.figure([make_figure(), make_figure(4950)], "x", ["y", "z"])
        pages.append(report.write(tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    Report("Old").write(path)

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(UserError, match=f"^cannot write {path}: disk full$"):
        Report("New").write(path)
    assert "Old" in path.read_text(encoding="utf-8") and os.listdir(tmp_path) == ["index.html"]
