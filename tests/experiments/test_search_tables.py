"""Tables and curves of the search study by hand."""

import math

import numpy as np
import scipy.stats

from experiments.search import tables
from experiments.search.tables import Found, Scratch
from tests.helpers import recurrent_task

TASK = recurrent_task(3)
METRIC = TASK.metric


def scratch(valid, test):
    return Scratch(
        np.array(valid),
        np.array(test),
        np.array(valid)[:, None] * [math.e, 1.0],
        np.full(len(valid), 5.0),
        np.full(len(valid), np.nan),
    )


def found(title, test, **others):
    fields = dict.fromkeys(("best", "mean"), np.array(test)) | {"unique": np.full(len(test), 7)}
    curve = np.array([[10.0, 20, 30], [1, 2, 3], [9, 8, 7]])
    return Found(
        title, scratch=scratch(test, test), curves=[curve] * len(test), **(fields | others)
    )


def controls(valid, test):
    again = scratch(valid, np.array(test) + [2.0, 4.0][: len(test)])
    return {tables.DRAWN: scratch(valid, test), tables.AGAIN: again}


def test_the_table_of_strategies():
    every = {
        "pg": found("PG", [9.0, 11.0], best=np.array([5.0, 7.0])),
        "uniform": found("random", [8.0, 8.0]),
    }
    others = controls([20.0, 20.0], [30.0, 30.0])
    seconds = {tables.AGAIN: np.array([3.0, 5.0])}
    table = tables.search_table(
        TASK,
        every,
        others,
        seconds,
        samples=9,
        epochs=1,
        yardsticks=[{"bigram": 56.1}, {"bigram": 57.25}],
        command="",
    )
    rows, notes = table.cells(), " ".join(table.notes)
    assert [cell.text for cell in rows[0]] == [
        "PG",
        "6.0 ± 12.7",
        *["10.0 ± 12.7"] * 3,
        "7 ± 0",
        "3 ± 0",
    ]
    assert [cell.text for cell in rows[1]][1:5] == ["8.0 ± 0.0"] * 4
    assert [cell.text for cell in rows[2]][1:] == ["-", "-", "20.0 ± 0.0", "30.0 ± 0.0", "-", "-"]
    assert rows[3][-1].text == "4 ± 13"
    assert "two seeds: standard deviation 2.24 on test" in notes  # the root of (4 + 16) / 2 / 2
    assert "56.1 on validation, 57.2 on test" in notes
    table = tables.differences_table(METRIC, every, others, "")
    assert [cell.text for cell in table.cells()[0]] == [
        "PG",
        "-2.0 ± 12.7",
        *["+2.0 ± 12.7"] * 3,
        "from 10 seeds on",
    ]
    assert [cell.text for cell in table.cells()[1]][3:5] == ["+12.0 ± 0.0", "+22.0 ± 0.0"]
    said = tables.answer(METRIC, every, others)
    assert (
        "PG +2.0 ± 12.7" in said
        and "a cell drawn at random, not searched +22.0 ± 0.0" in said
        and "random +0" not in said
    )


def test_p_values_from_ten_seeds_on():
    rng = np.random.default_rng(0)
    random, near, far = (rng.normal(mean, 1, 10) for mean in (50, 50, 53))
    every = {
        "near": found("near", near),
        "uniform": found("random", random),
        "far": found("far", far),
    }
    rows = tables.differences_table(METRIC, every, {"drawn": scratch(random, random)}, "").rows
    p = [scipy.stats.ttest_rel(arm, random).pvalue for arm in (near, far)]
    assert p[1] < p[0] / 2
    assert [row.cells[0] for row in rows[:2]] == ["near", "far"]
    np.testing.assert_allclose(
        [row.cells[-1] for row in rows[:2]], [p[0], 2 * p[1]]
    )  # Holm, of two tests


def test_one_seed_has_no_interval():
    every = {"pg": found("PG", [9.0]), "uniform": found("random", [8.0])}
    others = controls([20.0], [30.0])
    rows = tables.search_table(
        TASK, every, others, {}, samples=9, epochs=1, yardsticks=[{}, {}], command=""
    ).cells()
    assert [cell.text for cell in rows[0]][1:] == [*["9.0"] * 4, "7", "3"]
    assert "PG +1;" in tables.answer(METRIC, every, others)


def test_curves_of_training_from_scratch():
    every = {"pg": found("PG", [9.0, 9.0]), "uniform": found("random", [8.0, 8.0])}
    others = {
        tables.AGAIN: scratch([6.0, 6.0], [1.0, 1.0]),
        "LSTM, as many": scratch([7.0, 7.0], [1.0, 1.0]),
    }
    lines = tables.scratch_figure(METRIC, every, others).axes[0].lines
    assert [(one.get_label(), one.is_dashed()) for one in lines] == [
        ("PG", False),
        ("random", False),
        ("LSTM", True),
    ]
    for one, last in zip(lines, (9, 8, 7), strict=True):
        np.testing.assert_allclose(one.get_xydata(), [[1, last * np.e], [2, last]])


def test_curves_start_after_the_warmup():
    every = {"pg": found("PG", [9.0, 9.0]), "uniform": found("random", [8.0, 8.0])}
    drawn = tables.curves_figure(METRIC, every, warmup_epochs=1)
    for name, x in {"curves_steps": [20, 30], "curves_time": [2, 3]}.items():
        lines = drawn[name].axes[0].lines
        assert [one.get_label() for one in lines] == ["PG", "random"]
        for one in lines:
            np.testing.assert_array_equal(one.get_xydata(), np.transpose([x, [8, 7]]))
