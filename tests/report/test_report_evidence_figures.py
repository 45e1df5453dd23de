"""Figures of the evidence study draw the numbers that they are given; the page holds all of them,
each also as a file.
"""

import dataclasses
import functools
import math

import numpy as np
import pytest

from nas.evaluation import correlations, overlap
from nas.evaluation.samples import SETS, Behaviour, Sample
from nas.report.arms.arm import MeasuredArm
from nas.report.arms.page import write_report
from nas.report.arms.searches import Searched, best_table
from nas.report.arms.tables import study_tables
from nas.report.panels import (
    Curve,
    Panel,
    densities,
    fractions,
    heat_map,
    projections,
    stacked_curves,
)
from nas.spaces.nasbench201 import NASBench201Space
from tests.helpers import figure_texts, recurrent_task

TASK = recurrent_task(4)
SPACE = TASK.space
NAN = float("nan")


pytestmark = pytest.mark.usefixtures("no_warnings")

texts = functools.partial(figure_texts, width=390 / 96)  # a telephone: 390 px


def test_curves_are_means_with_intervals():
    values = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 3.0]])
    curves = [
        Curve("own samples", np.array([0, 2]), values, "b"),
        Curve("majority", np.array([0, 2]), values[:1], "r", dashed=True),
    ]
    figure = stacked_curves(
        "PG + memory",
        [Panel(curves, "accuracy", (0, 5)), Panel(curves[:1], "entropy (nats)")],
        "position",
    )
    upper, lower = figure.axes
    np.testing.assert_allclose(upper.lines[0].get_xydata(), [[0, 1], [2, 3]])
    low, high = upper.collections[0].get_paths()[0].get_extents().intervaly
    half = 4.302653 / math.sqrt(3)  # the deviation of 2, 4, 3 is 1
    assert (low, high) == pytest.approx((min(1, 3 - half), 3 + half), abs=1e-5)
    assert upper.get_ylim() == (0, 5) and lower.get_ylim()[0] <= 0
    written = texts(figure)
    assert (
        written.count("own samples") == 1
        and "entropy (nats)" in written
        and written.count("position") == 1
    )


@pytest.mark.parametrize(
    "values",
    [[[NAN, NAN, NAN]], [[0.0, 0.0, 0.0]] * 3, [[NAN, 1.0, 2.0], [NAN, 1.0, 3.0]], [[1e-9] * 3]],
)
def test_curves_of_extreme_input(values):
    texts(
        stacked_curves(
            "a name of many words " * 3,
            [Panel([Curve("", np.arange(3), np.array(values), "b")], "nats")],
            "lag",
        )
    )


def test_heat_map_shows_every_cell_on_a_scale_from_zero_to_one():
    values = np.array([[0.25, NAN, 0.75], [0.5, NAN, 0.5]])
    figure = heat_map("PG", values, x_label="position", y_label="sample", label="probability")
    mesh = figure.axes[0].collections[0]
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), NAN), values)
    assert mesh.get_clim() == (0, 1) and figure.axes[0].yaxis_inverted()
    assert "probability" in texts(figure)


def test_projections_are_principal_components():
    rng = np.random.default_rng(0)
    line = np.outer(
        rng.normal(size=30), [3.0, 4.0]
    )  # one direction: distances along it are distances on the axis
    figure = projections(
        "PG", line, {"log perplexity (nats)": np.arange(30.0), "fraction tanh": rng.random(30)}
    )
    x = figure.axes[0].collections[0].get_offsets()[:, 0]
    np.testing.assert_allclose(np.abs(x - x[0]), np.linalg.norm(line - line[0], axis=1), atol=1e-9)
    written = texts(figure)
    assert "first component (100% of the variance)" in written and "fraction tanh" in written


@pytest.mark.parametrize("embedding", [np.zeros((5, 3)), np.ones((5, 1)), np.eye(5)])
def test_projections_of_extreme_input(embedding):
    colorings = {"a": np.array([1.0, NAN, np.inf, 2.0, 3.0]), "b": np.full(5, NAN), "c": np.ones(5)}
    figure = projections("PG", embedding, colorings)
    assert (
        len(figure.axes[0].collections[0].get_offsets()) == 3
        and len(figure.axes[0].collections[1].get_offsets()) == 2
    )
    texts(figure)


def test_density_counts_every_pair_and_draws_medians():
    x, distance = np.array([1, 1, 1, 2, 2, 4]), np.array([1.0, 2.0, 6.0, 3.0, 5.0, 2.0])
    figure = densities({"PG": (x, distance)}, x_label="overlap", y_label="distance (L2)")
    ax = figure.axes[0]
    counts = np.ma.filled(ax.collections[0].get_array(), 0)
    np.testing.assert_array_equal(np.nansum(counts, axis=0), [3, 2, 0, 1])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 2], [2, 4], [4, 2]])
    assert "pairs" in texts(figure)


def test_densities_side_by_side_have_one_scale():
    x, few, many = np.zeros(9), np.arange(9.0), np.zeros(9)
    figure = densities({"a": (x, few), "b": (x, many)}, x_label="x", y_label="y")
    first, second = (ax.collections[0] for ax in figure.axes[:2])
    assert first.norm is second.norm and first.norm.vmax == 9
    assert all(part in figure_texts(figure, 7.0) for part in ("a", "b", "pairs"))


@pytest.mark.parametrize(
    "x, distance",
    [
        ([], []),
        ([NAN], [1.0]),
        ([3.0], [0.5]),
        ([0.25, 0.5, 7.0], [0.0, 0.0, 0.0]),
        ([1, 2], [1, np.inf]),
    ],
)
def test_density_of_extreme_input(x, distance):
    written = texts(densities({"PG": (np.array(x), np.array(distance))}, x_label="x", y_label="y"))
    assert ("no finite pairs" in written) == (not (np.isfinite(x) & np.isfinite(distance)).any())
    if 0 < np.isfinite(distance).sum() < len(x):
        assert "1 not finite, left out" in written


def test_fractions_by_hand():
    found = fractions(SPACE, np.array([[0, 0, 1, 0, 1, 2, 3], [2, 0, 2, 1, 2, 0, 2]]))
    assert {name: values.tolist() for name, values in found.items()} == {
        "fraction tanh": [0.25, 0],
        "fraction relu": [0.5, 0],
        "fraction identity": [0, 1],
        "fraction sigmoid": [0.25, 0],
    }
    assert len(fractions(NASBench201Space(), np.zeros((2, 6), int))) == 5


def make_arm(title, signal, width=5, seeds=2, n=12, n_drawn=40):
    """An arm whose states are `signal` times the decisions, and noise."""
    samples, behaviours = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, int(100 * signal)])
        decisions = rng.integers(0, SPACE.num_choices, (n_drawn, SPACE.num_decisions)).astype(
            np.int32
        )
        states = signal * overlap.random_projection(SPACE, decisions, width) + rng.normal(
            size=(n_drawn, width)
        )
        few, perplexity = decisions[:n], rng.normal(4, 1, n)
        edits = correlations.edit_distances(SPACE, few)
        one = Sample(few, states[:n], states[:n], perplexity, perplexity, edits)
        samples.append(dict.fromkeys(SETS, one))
        uniform = np.log(SPACE.choice_mask() / np.array(SPACE.num_choices)[:, None] + 1e-300)
        log_probs = np.broadcast_to(uniform, (n_drawn, *uniform.shape))
        influence = np.triu(rng.random((SPACE.num_decisions,) * 2), 1)
        continued = decisions[:20].reshape(4, 5, -1)
        behaviours.append(
            Behaviour(decisions, log_probs, decisions, log_probs, states, influence, continued)
        )
    return MeasuredArm(title, samples, behaviours, [4.2] * seeds)


def make_trained(title, has_memory, seeds=2):
    steps, epochs = np.arange(50), np.arange(4, 8)
    curves = dict.fromkeys(
        ("perplexity", "reward", "entropy", "supervised_loss"), (steps, 50.0 - steps / 2)
    )
    measured = {f"supervised_{name}": (epochs, 1.0 / epochs) for name in ("remembered", "fresh")}
    cell = np.zeros(SPACE.num_decisions, np.int32)
    return Searched(
        title, curves, [measured] * seeds, [cell] * seeds, [4.0] * seeds, has_memory
    )  # e^4 = 54.6


def test_perplexities_are_means_over_seeds():
    arm = make_trained("PG", False)
    arm = dataclasses.replace(arm, best_loss=[np.log(60), np.log(70)])
    found = best_table(TASK, [arm], {"bigram": 56.14}, "the command").cells()
    # Deviation 7.07, and 12.706 times 7.07 / sqrt(2).
    assert [[cell.text for cell in row] for row in found] == [
        ["PG: best cell, shared weights", "65.0 ± 63.5"],
        ["bigram", "56.1"],
    ]


def test_the_page_holds_every_table_and_figure_which_stand_beside_it(blank_figures, tmp_path):
    arms = {
        "untrained": make_arm("untrained", 0),
        "memory": make_arm("PG + memory", 1),
        "uniform": make_arm("uniform policy", 0, width=0),
    }
    trained = [make_trained("PG + memory", True), make_trained("uniform policy", False)]
    tables = study_tables(TASK, arms, "the command")
    tables["best"] = best_table(TASK, trained, {"bigram": 56.1}, "the command")
    page = write_report(
        tmp_path / "report" / "index.html",
        TASK,
        arms,
        trained,
        tables,
        ["the command"],
        {"seeds": "0,1"},
    )
    text, names = page.read_text(), {path.name for path in page.parent.iterdir()}
    assert {f"{name}{suffix}" for name in tables for suffix in (".csv", ".md")} <= names
    drawn = {name.removesuffix(".png") for name in names if name.endswith(".png")}
    with_state = {
        f"{kind}-{arm}"
        for kind in ("overlap", "edit_distance", "components", "probes")
        for arm in ("untrained", "memory")
    }
    assert drawn == with_state | {
        f"{kind}-{arm}" for kind in ("conditioning", "influence", "certainty") for arm in arms
    } | {"primary-all", "states"}
    # Four curves of training, one figure of what is remembered, two cells; states.png is not there.
    assert text.count("<img") == len(drawn) - 1 + 7 and text.count("<table") == len(tables)
    assert "PG + memory: supervised loss on remembered and on fresh sequences" in text
    assert "uniform policy: supervised loss" not in text and "uniform policy: 0 0 0 " in text
    assert "http:" not in text and "https:" not in text
    assert (page.parent / "primary-all.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_without_the_primary_arms_and_of_one_seed(blank_figures, tmp_path):
    arms = {"untrained": make_arm("untrained", 0, seeds=1), "pg": make_arm("PG only", 1, seeds=1)}
    trained = [make_trained("PG only", False, seeds=1)]
    tables = study_tables(TASK, arms, "")
    tables["best"] = best_table(TASK, trained, {"bigram": 56.1}, "")
    page = write_report(tmp_path / "index.html", TASK, arms, trained, tables, [], {})
    assert "one seed" in page.read_text() and not (tmp_path / "primary-all.png").exists()
