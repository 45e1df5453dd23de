"""The five questions of the paper: what each answer says, and the page that opens with them."""

import dataclasses
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from nas.evaluation import correlations
from nas.evaluation import statistics as st
from nas.evaluation.blocks import pairs
from nas.evaluation.samples import SETS
from nas.report.arms import answers, page, summary
from nas.report.arms.searches import best_table
from nas.report.arms.tables import study_tables
from tests.report.planted import (
    DECISIONS,
    OVERLAP,
    ROWS,
    SPACE,
    TASK,
    YARDSTICKS,
    N,
    answered,
    default,
    planted,
    stateless,
    trained,
)


def test_five_questions_each_with_one_figure_and_a_table():
    arms = default(0, 0, -1)
    found = answered(arms)
    assert [answer.question[:3] for answer in found.values()] == ["Q1.", "Q2.", "Q3.", "Q4.", "Q5."]
    names = {*study_tables(TASK, arms, ""), "best", "summary"}
    for answer in found.values():
        assert isinstance(answer.figure, Figure) and answer.table in names
        assert re.search(r"\d", answer.sentence) and answer.sentence.endswith(".")
        assert "one seed cannot tell" in answer.sentence
        assert answer.published.startswith("The paper: ")


def test_intervals_over_seeds_are_in_the_answers():
    found = answered(default(0, 0, -1, seeds=3))
    for answer in found.values():
        assert re.search(r"\[[-+]?\d[\d.]*, [-+]?\d[\d.]*\]", answer.sentence)
        assert "3 seeds" in answer.sentence


@pytest.mark.parametrize(
    ("untrained", "pg", "verdict"),
    [
        (0, 2, "More than before training"),
        (2, 1, "Less than before training"),
        (1, 0, "No sign of it"),
    ],
)
def test_encoding(untrained, pg, verdict):
    arms = {
        "untrained": planted("untrained", gain=untrained, seeds=3),
        "pg": planted("pg", gain=pg, seeds=3),
    }
    assert answered(arms)[1].sentence.startswith(f"{verdict}: with PG only")


def test_weight_sharing_is_told_against_random_search_where_it_ran():
    alone = answered(default(0, 0, -1))[2].sentence
    assert "has a perplexity of 60.0" in alone and "python -m experiments.table_search" in alone
    arms = default(0, 0, -1) | {"uniform": stateless("uniform")}
    arms["uniform"] = dataclasses.replace(arms["uniform"], best_loss=[math.log(80)])
    assert "less that of the uniform policy, has -20.0 in perplexity" in answered(arms)[2].sentence


def test_what_a_memory_forces():
    assert "More encoding" in answered(default(0, 0, -1))[3].sentence
    assert "Less encoding" in answered(default(0, -1, 0))[3].sentence
    assert "No measurable increase in encoding" in answered(default(0, -1, -1))[3].sentence
    without = answered(default(0, -1, keys=("untrained", "pg")))[3].sentence
    assert "This study cannot tell" in without and "--arms=pg,memory" in without


def test_similarity_and_performance_are_answered_with_the_signs_that_were_found():
    follows, opposed = (answered(default(0, 0, sign)) for sign in (-1, 1))
    assert "distance of states follows the paper's activations" in follows[4].sentence
    assert "distance of states runs against the paper's activations" in opposed[4].sentence
    assert "the paper's -0.404" in follows[4].sentence
    arms = default(0, 0, 0)
    assert "shows no sign of differences in performance" in answered(arms)[5].sentence
    arms["memory"] = planted("memory", 0, 1)
    found = answered(arms)[5].sentence
    assert "follows differences in performance, own samples" in found
    partial = arms["memory"].performance_tests(TASK, "uniform", "loss")[0][1].r
    assert f"{partial:+.3f} where its overlap is held fixed" in found


def write(folder, arms):
    tables = study_tables(TASK, arms, "the command")
    tables["best"] = best_table(TASK, trained(arms), YARDSTICKS, "")
    tables["summary"] = summary.summary_table(TASK, arms, "")
    return page.write_report(
        folder / "report" / "index.html",  # which no one has made
        TASK,
        arms,
        trained(arms),
        tables,
        [],
        {},
        ran="Searched: everything.",
        sentences=summary.readings(TASK, arms),
        found=answers.answers(TASK, arms, trained(arms), YARDSTICKS),
    )


def test_the_page_opens_with_the_answers_and_their_links_lead_to_tables(blank_figures, tmp_path):
    arms = default(0, 0, -1)
    page = write(tmp_path, arms).read_text()
    assert page.count("<article>") == 5
    assert page.index("Q5.") < page.index("<nav") < page.index("<table")
    links, anchors = re.findall(r'href="#([^"]+)"', page), re.findall(r'id="([^"]+)"', page)
    assert set(links) <= set(anchors) and len(set(anchors)) == len(anchors)
    assert len([link for link in links if link.startswith("table-")]) == 5
    for article in re.findall(r"<article>.*?</article>", page, re.DOTALL):
        assert article.count("<img") == 1 and article.count("href=") == 1
    folder = tmp_path / "report"
    header = (folder / "summary.csv").read_text().partition("\n")[0]
    assert header == "measure,set,untrained,PG only,PG + memory,one-hot,paper"
    names = {path.name for path in folder.iterdir()}
    assert {f"answer-{number}.png" for number in range(1, 6)} <= names


@pytest.mark.usefixtures("no_warnings")
def test_a_report_of_pairs_within_blocks(blank_figures, tmp_path):
    """Numbers, intervals and words are of the pairs that were compared."""
    few = correlations.edit_distances(SPACE, DECISIONS, block=N // 4)
    keys = {"untrained": 0, "pg": 0, "memory": -1}
    arms = {key: planted(key, sign, edit_distance=few) for key, sign in keys.items()}
    sample, row = arms["memory"].samples[0]["uniform"], ROWS.total
    assert sample.blocks == 4
    at = squareform(np.arange(N * (N - 1) // 2))[pairs(N, N // 4)]
    sides = pdist(sample.after)[at], OVERLAP[at]
    found = summary.estimate(TASK, arms["memory"], row)
    assert found == st.blocked_correlation(*sides, blocks=4)
    assert found.estimate == pytest.approx(spearmanr(*sides).statistic)
    compared = "24 architectures, 60 pairs within 4 blocks of 6"
    page = write(tmp_path, arms).read_text()
    assert f"Of each set: {compared}." in page
    assert f"{compared}: those of a block are permuted among themselves." in page
    assert f"{compared}; state after the last decision" in page


def test_what_takes_long_is_computed_once(blank_figures, tmp_path, monkeypatch):
    calls = []

    def counted(name, function):
        def called(*arguments, **options):
            calls.append(name)
            return function(*arguments, **options)

        return called

    for name in ("mantel_and_partial", "bootstrap_correlation"):
        monkeypatch.setattr(st, name, counted(name, getattr(st, name)))
    protocol = counted("protocol", correlations.paper_protocol)
    monkeypatch.setattr(correlations, "paper_protocol", protocol)
    monkeypatch.setattr(correlations, "correlations", counted("states", correlations.correlations))
    arms = default(0, 0, -1)
    write(tmp_path, arms)
    pairs = len(arms) * len(SETS)
    assert calls.count("mantel_and_partial") == pairs and calls.count("protocol") == len(arms)
    assert calls.count("bootstrap_correlation") == len(arms) * (len(ROWS.table) + 1)
    yardsticks = 2 * (len(arms) + 1)  # of own samples of each arm, and of the uniform set
    assert calls.count("states") == pairs + yardsticks
