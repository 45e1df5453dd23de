import functools

import matplotlib
import numpy as np
import pytest

from nas.report.figures import Metric, Panel, bars_with_intervals, distance_scatter, training_curves
from tests.helpers import figure_texts

NAN = float("nan")


pytestmark = pytest.mark.usefixtures("no_warnings")

texts = functools.partial(figure_texts, width=7.01)  # a page


def cloud(points=200):
    rng = np.random.default_rng(0)
    return rng.integers(0, 9, points), rng.random(points)


def test_scatter_shows_every_pair_and_the_median_per_value():
    x, y = np.array([1, 1, 1, 2, 2]), np.array([1.0, 2.0, 6.0, 3.0, 5.0])
    figure = distance_scatter([Panel("PG only", x, y, -0.4044)], x_label="common activations")
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.collections[0].get_offsets()[:, 1], y)
    spread = ax.collections[0].get_offsets()[:, 0] - x
    assert 0 < np.abs(spread).max() <= 0.3
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 2], [2, 4]])
    written = texts(figure)
    assert "PG only" in written and "common activations" in written and "embedding distance (L2)" in written
    assert "Spearman \N{GREEK SMALL LETTER RHO} \N{MINUS SIGN}0.404" in written and "5 pairs" in written


def test_scatter_of_a_continuous_x_is_not_spread():
    x, y = np.random.default_rng(1).random((2, 300))
    (ax,) = distance_scatter([Panel("PG", x, y, 0.0)], x_label="difference of log perplexity (nats)").axes
    np.testing.assert_array_equal(ax.collections[0].get_offsets()[:, 0], x)
    assert len(ax.lines[-1].get_xdata()) == 12


@pytest.mark.parametrize(
    "x, y",
    [
        ([3], [0.5]),
        ([0.25], [0.5]),
        ([3] * 9, np.arange(9.0)),
        (np.arange(9), [0.5] * 9),
        ([2] * 5, [0.0] * 5),
        ([1, 2], [1e-12, 1e12]),
    ],
)
def test_scatter_of_extreme_input(x, y):
    assert "undefined" in texts(distance_scatter([Panel("PG", np.array(x), np.array(y), NAN)], x_label="x"))


def test_scatter_says_what_is_not_finite():
    x, y = np.array([1.0, NAN, 2.0, 3.0]), np.array([1.0, 2.0, np.inf, 4.0])
    assert "2 pairs\n2 not finite, left out" in texts(distance_scatter([Panel("PG", x, y, 0.5)], x_label="x"))
    panels = [Panel("none", np.array([]), np.array([]), NAN), Panel("all bad", x * NAN, y, NAN), Panel("good", *cloud(), 0.5)]
    written = texts(distance_scatter(panels, x_label="x", share_y=True))
    assert written.count("no finite pairs") == 2 and "4 not finite" in written


def test_panels_keep_their_order_and_wrap_into_rows():
    figure = distance_scatter([Panel(f"arm {i}", *cloud(), 0.1) for i in range(5)], x_label="x", columns=3)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"arm {i}" for i in range(5)]
    texts(figure)


def test_long_titles_are_broken():
    written = texts(distance_scatter([Panel("a name of many words " * 4, *cloud(), 0.1)], x_label="x"))
    assert max(len(line) for line in written.splitlines()) < 45


def curves():
    steps = np.arange(100)
    falling = 100.0 / (1 + steps)
    return {"PG only": {"loss": (steps, falling)}, "PG + memory": {"loss": (steps, 2 * falling), "extra": (steps, falling)}}


def test_curves_draw_one_line_an_arm_and_one_panel_a_metric():
    figure = training_curves(
        curves(), [Metric("loss", "perplexity", log=True), Metric("extra", "loss (nats)"), Metric("gone", "x")]
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
    figure = training_curves({"PG": {"m": (np.arange(6), values)}}, [Metric("m", "m")], window=3)
    raw, smooth = figure.axes[0].lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    np.testing.assert_allclose(smooth.get_ydata(), [1.5, 3.0, 4.0, 4.5, NAN, 9.0])
    written = texts(figure)
    assert "running mean of 3" in written and "1 not finite, left out" in written


@pytest.mark.parametrize("log, window", [(False, 1), (False, 50), (True, 1), (True, 50)])
@pytest.mark.parametrize(
    "values", [[5.0], [5.0] * 9, [NAN] * 4, [NAN, 2.0, NAN], [-1.0, 0.0, 1.0, 1e9], [60.0, 66.0, 73.0], []]
)
def test_curves_of_extreme_input(values, log, window):
    data = {"PG": {"m": (np.arange(len(values)), np.array(values))}, "empty": {}}
    written = texts(training_curves(data, [Metric("m", "m (nats)", log)], window=window))
    assert ("left out" in written) == bool((~np.isfinite(values)).any() or (log and (np.array(values) <= 0).any()))


def test_bars_reach_their_values_and_references_are_named():
    names, values = ["untrained", "PG only", "no policy"], [-0.24, 0.19, NAN]
    figure = bars_with_intervals(
        names, values, [-0.3, NAN, NAN], [-0.1, NAN, NAN], label="Spearman", references={"paper": -0.404, "chance": NAN}
    )
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == values[:2]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    written = texts(figure)
    assert "paper: \N{MINUS SIGN}0.404" in written and "chance: undefined" in written and written.count("undefined") == 2


@pytest.mark.parametrize("values", [[0.0], [NAN, NAN], [1e6, -1e-6], [0.5] * 30])
def test_bars_of_extreme_input(values):
    names = [f"an arm with a rather long name, number {i}" for i in range(len(values))]
    texts(bars_with_intervals(names, values, values, values, label="r"))


def test_settings_of_matplotlib_are_left_as_they_were():
    before = dict(matplotlib.rcParams)
    texts(distance_scatter([Panel("PG", *cloud(), 0.1)], x_label="x"))
    assert dict(matplotlib.rcParams) == before
