"""Tables of cells: what is written is read, and everything that can be wrong with a file."""

import dataclasses
import gzip
import json

import numpy as np
import pytest
from scipy.stats import entropy

from experiments.cells.recipe import CONFIGS
from nas.data import cell_table
from nas.data.cell_table import MEASURES, CellTable
from nas.data.characters import king_james
from nas.errors import UserError
from nas.spaces.recurrent import RecurrentSpace

SPACE = RecurrentSpace(num_nodes=3)
CANONICAL = cell_table.canonical_cells(SPACE)
SEEDS = (0, 7)
COPY = "0 0 3 0 1"  # of 0 0 1 0 3: two children of node 0, numbered otherwise


def table(**changed):
    decisions = np.stack([*CANONICAL, SPACE.parse(COPY)])
    rng = np.random.default_rng(0)
    values = {m: rng.uniform(2, 3, (len(decisions), 2)).round(5) for m in MEASURES}
    return CellTable(3, SEEDS, {"recipe": {"steps": 8}}, decisions, values)


def lines(tmp_path):
    """A valid table, settings and header first."""
    path = cell_table.write_cells(table(), tmp_path / "table.csv.gz")
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def told(tmp_path, rows):
    path = tmp_path / "changed.csv"
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError) as error:
        cell_table.read_cells(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))
    return str(error.value)


def test_what_is_written_is_read(tmp_path):
    written = table()
    path = cell_table.write_cells(written, tmp_path / "new" / "table.csv.gz")
    found = cell_table.read_cells(path)
    assert (found.num_nodes, found.seeds) == (3, SEEDS)
    assert found.settings == {"recipe": {"steps": 8}}
    np.testing.assert_array_equal(found.decisions, written.decisions)
    for measure in MEASURES:
        np.testing.assert_array_equal(found.bits[measure], written.bits[measure])


def test_the_same_table_is_the_same_bytes(tmp_path):
    first, again = (
        cell_table.write_cells(table(), tmp_path / name).read_bytes() for name in ("a", "b")
    )
    assert first == again


def test_rows_and_columns_may_come_in_any_order(tmp_path):
    settings, header, *rows = lines(tmp_path)
    order = np.random.default_rng(1).permutation(len(rows))
    turned = [",".join(reversed(row.split(","))) for row in (header, *(rows[i] for i in order))]
    path = tmp_path / "turned.csv"
    path.write_text("\n".join([settings, *turned]))
    found, expected = cell_table.read_cells(path), table()
    np.testing.assert_array_equal(found.decisions, expected.decisions)
    np.testing.assert_array_equal(found.bits["test"], expected.bits["test"])


def test_every_architecture_has_the_row_of_its_canonical_cell(tmp_path):
    found = table()
    rows = found.rows()
    assert len(rows) == 128 and rows.max() == len(CANONICAL) - 1 == 103
    every = SPACE.every()
    np.testing.assert_array_equal(found.decisions[rows], SPACE.canonical(every))
    assert rows[SPACE.index(SPACE.parse(COPY))] == rows[SPACE.index(SPACE.parse("0 0 1 0 3"))]
    assert found.copies().tolist() == [[rows[SPACE.index(SPACE.parse(COPY))], 104]]


def test_scores_by_hand():
    found = table()
    for measure in ("validation", "test"):
        found.bits[measure][:] = np.arange(len(found.decisions))[:, None] + [0.5, 1.5]
    found.bits["test"][:] += 1000
    scores = cell_table.score_table(found)
    assert scores.space == SPACE and scores.data_sets == ("kjv",) and scores.different == 104
    assert scores.unit.name == "bits a character"
    # Those of the canonical cell, also where the copy itself was trained.
    for text in ("0 0 1 0 3", COPY):
        index = SPACE.index(SPACE.parse(text))
        row = found.rows()[SPACE.index(SPACE.parse("0 0 1 0 3"))]
        assert scores.scores["kjv", "val"][index] == -(row + 1)
        assert scores.scores["kjv", "test"][index] == -(row + 1001)
    rewards = scores.rewards("kjv")
    assert rewards.dtype == np.float32 and rewards.shape == (128,)
    np.testing.assert_array_equal(rewards, scores.scores["kjv", "val"])
    # Copies have equal values, so that a class is its mean.
    np.testing.assert_array_equal(scores.class_mean("kjv", "test"), scores.scores["kjv", "test"])
    own = SPACE.index(SPACE.canonical(SPACE.every()))
    same = own[:, None] == own[None]
    np.testing.assert_array_equal(scores.classes[:, None] == scores.classes[None], same)


def test_a_table_of_cells_is_told_by_its_first_line(tmp_path):
    path = cell_table.write_cells(table(), tmp_path / "table.csv.gz")
    assert cell_table.holds_cells(path)
    (tmp_path / "other.csv").write_text("architecture,cifar10-val\n")
    assert not cell_table.holds_cells(tmp_path / "other.csv")


def test_the_packaged_table():
    """All cells of 4 nodes by the full recipe; their losses lie between those of a model of the
    text's single characters and of nothing that is known of it.
    """
    found = cell_table.read_cells(cell_table.located("recurrent4"))
    assert found.num_nodes == 4 and found.seeds == (0, 1, 2)
    assert found.settings["recipe"] == dataclasses.asdict(CONFIGS["full"][1])
    assert len(found.copies()) == 48 and len(found.decisions) == 752 + 48
    types = np.bincount(king_james().splits["train"]) / len(king_james().splits["train"])
    for bits in found.bits.values():
        assert bits.min() > 1.5 and bits.max() < entropy(types, base=2)
    assert cell_table.PACKAGED["recurrent4"].stat().st_size <= 100_000


# What is wrong with a file.


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no such file; a table of cells is a CSV file"):
        cell_table.read_cells(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "head",
    [
        "",
        "architecture,online 0",
        "# no JSON",
        "# []",
        '# {"num_nodes": 3}',
        '# {"num_nodes": "3", "seeds": [0]}',
        '# {"num_nodes": 3, "seeds": []}',
        '# {"num_nodes": 3, "seeds": 4}',
        '# {"num_nodes": 12, "seeds": [0]}',
        '{"num_nodes": 3, "seeds": [0, 7]}',
    ],
)
def test_wrong_settings(tmp_path, head):
    message = told(tmp_path, [head, *lines(tmp_path)[1:]])
    assert "line 1: must be # and settings as JSON with num_nodes, 2 to 5, and seeds" in message


@pytest.mark.parametrize(
    "header", ["architecture,online 0", "", "architecture,online 0,validation 0,test 0,more 1"]
)
def test_wrong_columns(tmp_path, header):
    settings, _, *rows = lines(tmp_path)
    message = told(tmp_path, [settings, header] if not header else [settings, header, *rows])
    assert "line 2: columns must be architecture, online 0, validation 0, test 0, on" in message


def test_seeds_of_the_settings_are_those_of_the_columns(tmp_path):
    _, *rest = lines(tmp_path)
    settings = json.dumps({"num_nodes": 3, "seeds": [0, 8]})
    assert "validation 8, test 8; got" in told(tmp_path, [f"# {settings}", *rest])


def test_missing_cells(tmp_path):
    rows = lines(tmp_path)
    kept = rows[:5] + rows[6:9] + rows[10:]
    first = rows[5].split(",")[0]
    assert f"2 of 104 cells are missing, the first is {first}" in told(tmp_path, kept)


def test_a_copy_stands_for_no_cell(tmp_path):
    rows = [row for row in lines(tmp_path) if not row.startswith("0 0 1 0 3,")]
    assert "1 of 104 cells are missing, the first is 0 0 1 0 3" in told(tmp_path, rows)


def test_repeated_cells(tmp_path):
    rows = lines(tmp_path)
    assert "line 108: 0 0 0 0 1 is there twice" in told(tmp_path, [*rows, rows[3]])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0 0 4 0 0", "position 2 (activation): 4 is not in 0..3"),
        ("0 0 0 0", "a decision vector of this space has 5 numbers, got 4"),
        ("tanh", "position 0: 'tanh' is not a whole number"),
    ],
)
def test_unknown_architectures(tmp_path, text, part):
    rows = lines(tmp_path)
    rows[4] = ",".join([text, *rows[4].split(",")[1:]])
    message = told(tmp_path, rows)
    assert "line 5: architecture: " in message and part in message


@pytest.mark.parametrize("value", ["0", "-2.1", "nan", "inf", "", "low"])
def test_values_that_are_no_bits(tmp_path, value):
    rows = lines(tmp_path)
    fields = rows[6].split(",")
    fields[5] = value
    rows[6] = ",".join(fields)
    wanted = f"line 7: validation 7 must be bits a character, more than 0, got {value!r}"
    assert wanted in told(tmp_path, rows)


def test_too_few_or_too_many_fields(tmp_path):
    rows = lines(tmp_path)
    for changed, count in ((rows[7].rpartition(",")[0], 6), (rows[7] + ",2", 8)):
        message = told(tmp_path, [*rows[:7], changed, *rows[8:]])
        assert f"line 8: {count} fields, the header has 7" in message


def test_what_is_not_text(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines(tmp_path)).encode())[:-500])
    with pytest.raises(UserError, match="damaged or cut off"):
        cell_table.read_cells(path)
