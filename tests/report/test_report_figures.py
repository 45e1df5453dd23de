import functools

import matplotlib
import numpy as np
import pytest

from nas.report.figures import Logged, bars_with_intervals, training_curves
from tests.helpers import figure_texts

NAN = float("nan")


pytestmark = pytest.mark.usefixtures("no_warnings")

texts = functools.partial(figure_texts, width=7.01)  # a page


def curves():
    steps = np.arange(100)
    falling = 100.0 / (1 + steps)
    return {
        "PG only": {"loss": (steps, falling)},
        "PG + memory": {"loss": (steps, 2 * falling), "extra": (steps, falling)},
    }


def test_curves_draw_one_line_an_arm_and_one_panel_a_metric():
    figure = training_curves(
        curves(),
        [
            Logged("loss", "perplexity", log=True),
            Logged("extra", "loss (nats)"),
            Logged("gone", "x"),
        ],
    )
    loss, extra, gone = figure.axes
    assert [line.get_label() for line in loss.lines] == ["PG only", "PG + memory"]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), curves()["PG only"]["loss"][1])
    assert [line.get_label() for line in extra.lines] == ["PG + memory"]
    assert loss.lines[1].get_color() == extra.lines[0].get_color() != loss.lines[0].get_color()
    assert loss.get_yscale() == "log" and extra.get_yscale() == "linear"
    written = texts(figure)
    assert "loss (nats)" in written and "update" in written and written.count("not recorded") == 1


def test_smoothing_is_stated_and_keeps_the_values():
    values = np.array([0.0, 3.0, 6.0, 3.0, NAN, 9.0])
    figure = training_curves({"PG": {"m": (np.arange(6), values)}}, [Logged("m", "m")], window=3)
    raw, smooth = figure.axes[0].lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    np.testing.assert_allclose(smooth.get_ydata(), [1.5, 3.0, 4.0, 4.5, NAN, 9.0])
    written = texts(figure)
    assert "running mean of 3" in written and "1 not finite, left out" in written


@pytest.mark.parametrize("log, window", [(False, 1), (False, 50), (True, 1), (True, 50)])
@pytest.mark.parametrize(
    "values",
    [[5.0], [5.0] * 9, [NAN] * 4, [NAN, 2.0, NAN], [-1.0, 0.0, 1.0, 1e9], [60.0, 66.0, 73.0], []],
)
def test_curves_of_extreme_input(values, log, window):
    data = {"PG": {"m": (np.arange(len(values)), np.array(values))}, "empty": {}}
    written = texts(training_curves(data, [Logged("m", "m (nats)", log)], window=window))
    assert ("left out" in written) == bool(
        (~np.isfinite(values)).any() or (log and (np.array(values) <= 0).any())
    )


def test_bars_reach_their_values_and_references_are_named():
    names, values = ["untrained", "PG only", "no policy"], [-0.24, 0.19, NAN]
    figure = bars_with_intervals(
        names,
        values,
        [-0.3, NAN, NAN],
        [-0.1, NAN, NAN],
        label="Spearman",
        references={"paper": -0.404, "chance": NAN},
    )
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == values[:2]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    written = texts(figure)
    assert (
        "paper: \N{MINUS SIGN}0.404" in written
        and "chance: undefined" in written
        and written.count("undefined") == 2
    )


@pytest.mark.parametrize("values", [[0.0], [NAN, NAN], [1e6, -1e-6], [0.5] * 30])
def test_bars_of_extreme_input(values):
    names = [f"an arm with a rather long name, number {i}" for i in range(len(values))]
    texts(bars_with_intervals(names, values, values, values, label="r"))


def test_settings_of_matplotlib_are_left_as_they_were():
    before = dict(matplotlib.rcParams)
    texts(bars_with_intervals(["PG"], [0.5], [0.4], [0.6], label="r"))
    assert dict(matplotlib.rcParams) == before
