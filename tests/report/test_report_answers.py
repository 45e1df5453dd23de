"""The summary and the answers on arms whose distances are planted: words follow from numbers."""

import math
import re

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.evaluation import correlations, overlap
from nas.evaluation.samples import SETS
from nas.evaluation.statistics import Interval
from nas.report.arms import summary, tables
from nas.supernets.recurrent.language_model import LanguageModel
from tests.report.planted import (
    DECISIONS,
    EDITS,
    NAN,
    OVERLAP,
    ROWS,
    SPACE,
    TASK,
    YARDSTICKS,
    N,
    answered,
    cells,
    default,
    planted,
    stateless,
    terminal,
    told,
    trained,
)

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_the_table_holds_the_correlations_and_what_the_paper_reports():
    arms = default(0, 0, -1)
    found = cells(summary.summary_table(TASK, arms, "command"))
    sample = arms["memory"].samples[0]["uniform"]
    distance = correlations.distances(sample.after)
    columns = {
        "common activations": overlap.common_decisions(SPACE, DECISIONS, "activation"),
        "common connections": overlap.common_decisions(SPACE, DECISIONS, "connection"),
        "edit distance": EDITS[0],
        "performance difference": overlap.feature_difference(sample.loss),
    }
    for name, column in columns.items():
        expected = spearmanr(distance, column).statistic
        assert found[name, "uniform"]["PG + memory"] == f"{expected:+z.3f}"
    published = {names: row["paper"] for names, row in found.items() if row["paper"] != "-"}
    assert published == {  # of its protocol alone
        ("paper's activations", "own"): "-0.404",
        ("performance difference", "own"): "+0.163",
    }
    protocol = tables.protocol_table(TASK, arms, "").cells()[0]
    assert found["paper's activations", "own"]["PG + memory"] == protocol[-1].text
    expected = spearmanr(-OVERLAP, columns["common activations"]).statistic
    assert found["common activations", "uniform"]["one-hot"] == f"{expected:+.3f}"


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_is_said_turns_with_the_sign(seeds):
    follows, opposed = told(default(0, 0, -1, seeds=seeds)), told(default(0, 0, 1, seeds=seeds))
    for row in (
        ("common activations", "uniform"),
        ("common connections", "uniform"),
        ("paper's activations", "own"),
    ):
        assert "the more two share, the nearer their states with PG + memory" in follows[row]
        assert "the more two share, the farther apart their states with PG + memory" in opposed[row]
        assert "more so than untrained and PG only" in follows[row]
        assert "more so than untrained and PG only" in opposed[row]
    row = ("edit distance", "uniform")
    assert "the more two differ, the farther apart their states" in follows[row]
    assert "the more two differ, the nearer their states" in opposed[row]
    reversed_roles = told(default(-1, -1, 0, seeds=seeds))["common activations", "uniform"]
    assert "no sign of it in the states with PG + memory" in reversed_roles
    assert "higher than untrained and PG only" in reversed_roles


def test_performance_is_told_from_similarity():
    arms = default(0, 0, 0) | {"memory": planted("memory", 0, 1)}
    found = told(arms)
    for which in SETS:
        said = found["performance difference", which]
        assert "the more two differ, the farther apart their states" in said
    assert "no sign of it" in found["common activations", "uniform"]
    opposed = told(arms | {"memory": planted("memory", 0, -1)})
    said = opposed["performance difference", "own"]
    assert "the more two differ, the nearer their states" in said


def test_one_seed_cannot_tell_and_several_say_whether_they_can():
    found = told(default(0, 0, -1))
    assert all(text.endswith("; one seed cannot tell.") for text in found.values())
    found = told(default(0, 0, -1, seeds=3))
    assert found["common activations", "uniform"].endswith("; 3 seeds are enough.")
    assert found["performance difference", "uniform"].endswith("; 3 seeds are too few.")


def test_alike_arms_are_not_told_apart():
    text = told(default(-1, -1, -1, seeds=3))["common activations", "uniform"]
    assert "not distinguishable from untrained and PG only" in text and "more so" not in text
    less = told(default(-5, -5, -0.1, seeds=3))["common activations", "uniform"]
    assert "less so than untrained and PG only" in less


def test_the_published_number_lies_inside_or_outside(monkeypatch):
    arms = default(0, 0, -1)
    row = ("paper's activations", "own")
    assert "; the paper's outside)" in told(arms)[row]
    number = summary.estimate(TASK, arms["memory"], ROWS.shared).estimate
    published = {"labelled edges": number}
    monkeypatch.setattr(LanguageModel, "published", published)
    arms = default(0, 0, -1)
    assert "; the paper's inside)" in told(arms)[row]
    without_memory = {key: arms[key] for key in ("untrained", "pg")}
    assert "the paper's inside" not in told(without_memory)[row]


def test_intervals_by_hand(monkeypatch):
    arms = default(0, -1, seeds=3, keys=("untrained", "pg"))
    found = arms["pg"].correlations(TASK, "uniform")[correlations.common("activation")]
    low, high = summary.estimate(TASK, arms["pg"], ROWS.common[0])[1:]
    half = 4.302653 * np.std(found, ddof=1) / math.sqrt(3)
    assert (low, high) == pytest.approx((np.mean(found) - half, np.mean(found) + half), abs=1e-6)
    # Of one seed: .1 and .1 below the difference of -.3, .2 and .2 above, the legs of right angles.
    intervals = {"PG only": Interval(-0.5, -0.6, -0.3), "untrained": Interval(-0.2, -0.4, -0.1)}
    monkeypatch.setattr(summary, "estimate", lambda space, arm, measure: intervals[arm.title])
    one = default(0, -1, keys=("untrained", "pg"))
    less = summary.difference(TASK, one["pg"], one["untrained"], ROWS.common[0])
    assert less == pytest.approx((-0.3, -0.3 - 0.1 * math.sqrt(2), -0.3 + 0.2 * math.sqrt(2)))


@pytest.mark.parametrize(
    ("interval", "side"),
    [((1, 0.5, 2), 1), ((-1, -2, -0.5), -1), ((1, -1, 3), 0), ((1, NAN, NAN), None)],
)
def test_directions(interval, side):
    assert summary.direction(Interval(*interval)) == side


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_terminal_shows_thirty_lines_of_a_hundred_columns(seeds):
    arms = default(0, 0, -1, seeds=seeds)
    lines = terminal(arms).splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 100
    assert lines[0].startswith("Searched, ") and lines[-1].startswith("report: ")
    text = " ".join(terminal(arms).split())
    for shown in (
        "PG only",
        "PG + memory",
        "untrained",
        "-0.404",
        "+0.163",
        "unigram 243.3",
        "bigram 56.1",
    ):
        assert shown in text
    assert all(sentence in text for sentence in summary.readings(TASK, arms))
    assert not any(re.search(r"\[[^]]*$", line) for line in lines)  # none ends in an interval


def test_arms_for_which_there_is_no_room_are_in_the_report():
    names = ["fixed", "uniform_memory", "memory without anything else", "entropy"]
    arms = default(0, 0, -1, seeds=2) | {name: planted(name, seeds=2) for name in names}
    narrow = summary.summary_table(TASK, arms, "command", width=summary.WIDTH)
    columns = [column.name for column in narrow.columns]
    assert columns[2:5] == ["untrained", "PG only", "PG + memory"]
    left_out = [name for name in names if name not in columns]
    assert left_out and f"In the report: {'; '.join(left_out)}." in narrow.notes
    lines = terminal(arms).splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 100
    whole = [column.name for column in summary.summary_table(TASK, arms, "command").columns]
    assert set(names) < set(whole)


@pytest.mark.parametrize("key", ["pg", "memory", "fixed"])
def test_a_run_of_one_arm(key):
    arms = default(0, -1, keys=("untrained", key))
    lines = terminal(arms).splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 100
    text = told(arms)["common activations", "uniform"]
    assert f"with {arms[key].title} (" in text and "more so than untrained;" in text
    assert len(answered(arms)) == 5


def test_an_arm_without_a_state_is_named_and_nothing_else():
    arms = default(0, 0, -1) | {"uniform": stateless("uniform")}
    table = summary.summary_table(TASK, arms, "command", width=summary.WIDTH)
    assert "uniform policy" not in [column.name for column in table.columns]
    assert "Without a hidden state: uniform policy." in table.notes
    assert told(arms) == told(default(0, 0, -1))


def test_no_arm_with_a_state():
    arms = {key: stateless(key) for key in ("untrained", "uniform")}
    (sentence,) = summary.readings(TASK, arms)
    assert "no distances to read" in sentence
    table = cells(summary.summary_table(TASK, arms, ""))
    assert {row["one-hot"] for row in table.values()} == {"no state"}
    found = answered(arms)
    assert all("hidden state, so" in found[number].sentence for number in (1, 4, 5))
    assert "This study cannot tell" in found[3].sentence


@pytest.mark.parametrize("seeds", [1, 3])
def test_states_that_are_all_alike_are_undefined(seeds):
    constant = np.ones((N, 3))
    arms = default(0, -1, seeds=seeds, keys=("untrained", "pg"))
    arms["memory"] = planted("memory", seeds=seeds, after=constant, before=constant)
    assert all("undefined with PG + memory" in text for text in told(arms).values())
    table = cells(summary.summary_table(TASK, arms, ""))
    assert {row["PG + memory"] for row in table.values()} == {"undefined"}
    assert max(map(len, terminal(arms).splitlines())) <= 100
    assert "undefined" in answered(arms)[4].sentence


def test_a_perplexity_that_is_not_finite():
    arms = default(0, 0, -1)
    arms["memory"] = planted("memory", -1, loss=np.full(N, NAN))
    found = told(arms)
    assert "undefined with PG + memory" in found["performance difference", "own"]
    assert "the nearer their states" in found["common activations", "uniform"]
    assert "undefined" in answered(arms)[5].sentence


def test_best_cells_are_compared_with_the_best_yardstick():
    arms = {"pg": planted("pg", perplexity=60), "memory": planted("memory", perplexity=50)}
    text = summary.best_cells(TASK, trained(arms), YARDSTICKS)
    assert "PG only 60.0, PG + memory 50.0; unigram 243.3, bigram 56.1" in text
    assert text.endswith("; PG + memory better than the bigram.")
    alone = summary.best_cells(TASK, trained({"pg": arms["pg"]}), YARDSTICKS)
    assert "no cell is better than the bigram" in alone
    many = summary.best_cells(
        TASK, trained({str(i): planted(str(i)) for i in range(7)}), YARDSTICKS
    )
    assert "4 more in the report" in many
