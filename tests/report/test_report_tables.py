import csv

import numpy as np
import pytest

from nas.report.tables import Column, Empty, Row, Table


def make_table():
    return Table(
        "Correlations",
        [
            Column("Policy"),
            Column("Common activations", 3, signed=True),
            Column("Perplexity", 1),
            Column("Edit distance", 3),
        ],
        [
            Row(["PG, only", -0.4044, 66.25, Empty()]),
            Row(["PG + memory", np.float32(0.25), np.int64(73), Empty("another study")]),
            Row(["Chance", -0.0001, float("nan"), -1.5], reference=True),
        ],
        notes=["100 architectures."],
        command="python -m launch.evaluate --workdir runs/a",
    )


def test_numbers_are_formatted_by_column():
    text = [[cell.text for cell in row] for row in make_table().cells()]
    assert text == [
        ["PG, only", "-0.404", "66.2", "not computed"],
        ["PG + memory", "+0.250", "73.0", "another study"],
        ["Chance", "+0.000", "undefined", "-1.500"],
    ]


def test_a_small_number_is_not_shown_as_nothing():
    columns = [Column("p", 4), Column("change", 4, True)]
    rows = [[0.00004, 0.00004], [0.00005, -0.00004], [0.0, 0.0]]
    cells = Table("small", columns, [Row(row) for row in rows]).cells()
    assert [cell[0].text for cell in cells] == ["<0.0001", "0.0001", "0.0000"]
    assert {cell[1].text for cell in cells} == {"+0.0000"}


def test_kinds_tell_numbers_from_empty_cells():
    assert [[cell.kind for cell in row] for row in make_table().cells()] == [
        ["text", "number", "number", "empty"],
        ["text", "number", "number", "empty"],
        ["text", "number", "empty", "number"],
    ]


def test_text_aligns_numbers_and_rules_off_reference_rows():
    lines = make_table().text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("PG, only"))
    first, second, rule, chance = lines[start : start + 4]
    assert (
        first.index("-0.404") + len("-0.404")
        == second.index("+0.250") + len("+0.250")
        == chance.index("+0.000") + 6
    )
    assert set(rule) <= {"-", " "}
    assert lines[0] == "Correlations"
    assert lines[-2:] == [
        "100 architectures.",
        "Made by: python -m launch.evaluate --workdir runs/a",
    ]


def test_the_body_is_the_text_without_what_is_said_of_it():
    table = make_table()
    assert table.body() in table.text()
    assert not any(said in table.body() for said in (table.title, *table.notes, table.command))


def test_csv_holds_the_same_cells(tmp_path):
    table = make_table()
    with open(table.csv(tmp_path / "new" / "table.csv"), newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["Policy", "Common activations", "Perplexity", "Edit distance"]
    assert rows == [[cell.text for cell in row] for row in table.cells()]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.csv"]


def test_markdown_is_a_table_of_github():
    assert (
        make_table().markdown()
        == """**Correlations**

| Policy | Common activations | Perplexity | Edit distance |
| --- | ---: | ---: | ---: |
| PG, only | -0.404 | 66.2 | not computed |
| PG + memory | +0.250 | 73.0 | another study |
| Chance | +0.000 | undefined | -1.500 |

100 architectures.

Made by: `python -m launch.evaluate --workdir runs/a`
"""
    )


def test_markdown_keeps_bars_within_their_cells():
    table = Table("Sizes", [Column("|a|"), Column("p", 4)], [Row(["x|y", 0.00004])])
    assert (
        table.markdown()
        == r"""**Sizes**

| \|a\| | p |
| --- | ---: |
| x\|y | <0.0001 |
"""
    )


def test_a_saved_table_is_csv_and_markdown(tmp_path):
    table = make_table()
    table.save(tmp_path / "new", "table")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"table.csv", "table.md"}
    assert (tmp_path / "new" / "table.csv").read_text() == table.csv(tmp_path / "t").read_text()
    assert (tmp_path / "new" / "table.md").read_text() == table.markdown()


@pytest.mark.parametrize(
    "cells, message", [(["a"], "1 cells for 2 columns"), (["a", None], "column 'x' holds None")]
)
def test_bad_rows_are_named(cells, message):
    with pytest.raises(ValueError, match=f"table 'T', row 1: .*{message}"):
        Table("T", [Column("a"), Column("x", 2)], [Row(["fine", 1.0]), Row(cells)])


def test_table_without_rows():
    assert "Policy" in Table("T", [Column("Policy"), Column("x", 2)], []).text()
