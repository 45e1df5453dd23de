"""The summary and the answers on arms whose distances are planted: words follow from numbers."""

import dataclasses
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.samples import SETS, Behaviour, Sample
from nas.evaluation.statistics import Interval
from nas.report.arms import answers, page, summary, tables
from nas.report.arms.arm import MeasuredArm
from nas.report.arms.searches import Searched, best_table
from nas.report.arms.tables import study_tables
from nas.supernets.recurrent.language_model import LanguageModel
from tests.helpers import recurrent_task

TASK = recurrent_task(4)
SPACE = TASK.space
ROWS = summary.rows(TASK)
T, K = SPACE.num_decisions, SPACE.max_choices
N = 24  # architectures
NAN = float("nan")
YARDSTICKS = {"unigram": 243.3, "bigram, Kneser-Ney": 56.1}
DECISIONS = np.random.default_rng(0).integers(0, SPACE.num_choices, (N, T)).astype(np.int32)
EDITS = correlations.edit_distances(SPACE, DECISIONS)
OVERLAP = overlap.common_decisions(SPACE, DECISIONS, "activation", "connection")
DEFAULT = ("untrained", "pg", "memory")
TITLES = {
    "untrained": "untrained",
    "pg": "PG only",
    "memory": "PG + memory",
    "uniform": "uniform policy",
}

pytestmark = pytest.mark.usefixtures("no_warnings")


def embed(squared):
    """[n, H] points whose squared distances are these [P] and a constant: classical scaling."""
    n = len(DECISIONS)
    full = np.zeros((n, n))
    full[np.triu_indices(n, 1)] = squared
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centre @ (full + full.T) @ centre / 2)
    return vectors * np.sqrt(values - values.min())


def planted(
    key,
    by_overlap=0.0,
    by_performance=0.0,
    *,
    seeds=1,
    perplexity=60.0,
    gain=1.0,
    **changes,
):
    """An arm whose squared distances of states grow with overlap and performance difference."""
    samples, behaviours = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, *key.encode()])
        loss = rng.normal(4, 0.3, N)
        performance = overlap.feature_difference(loss)
        noise = rng.normal(0, 0.5, len(OVERLAP))
        states = embed(by_overlap * OVERLAP + 6 * by_performance * performance + noise)
        common = np.full(N, NAN)
        one = Sample(DECISIONS, states, states, loss, common, EDITS)
        samples.append(dict.fromkeys(SETS, one._replace(**changes)))
        behaviours.append(behaviour(rng, gain))
    best = NAN if key == "untrained" else math.log(perplexity)
    return MeasuredArm(TITLES.get(key, key), samples, behaviours, [best] * seeds)


def behaviour(rng, gain):
    """A uniform policy, and states that tell its decisions by `gain` times what noise hides."""
    own = rng.integers(0, SPACE.num_choices, (60, T)).astype(np.int32)
    log_probs = np.log(SPACE.choice_mask() / np.array(SPACE.num_choices)[:, None] + 1e-300)
    every = np.broadcast_to(log_probs, (len(own), T, K))
    signal = gain * overlap.one_hot(SPACE, own)
    states = signal + rng.normal(size=signal.shape)
    return Behaviour(own, every, own, every, states, np.zeros((T, T)), own[:50].reshape(10, 5, T))


def default(*signs, seeds=1, keys=DEFAULT):
    """The arms of a quick study with the signs of their overlaps."""
    return {key: planted(key, sign, seeds=seeds) for key, sign in zip(keys, signs, strict=True)}


def trained(arms):
    steps = np.arange(3)
    names = ("perplexity", "reward", "entropy", "supervised_loss")
    epochs = {f"supervised_{name}": (steps, 3.0 - steps) for name in ("remembered", "fresh")}
    return [
        Searched(
            arm.title,
            dict.fromkeys(names, (steps, 50.0 - steps)),
            [epochs] * len(arm.samples),
            [DECISIONS[0]] * len(arm.samples),
            arm.best_loss,
            "memory" in arm.title,
        )
        for key, arm in arms.items()
        if key != "untrained"
    ]


def told(arms):
    """(row, set) -> its sentence."""
    sentences = summary.readings(TASK, arms)
    return {(row.name, row.which): text for row, text in zip(ROWS.table, sentences, strict=True)}


def answered(arms):
    """Number of a question -> its answer."""
    found = answers.answers(TASK, arms, trained(arms), YARDSTICKS)
    return dict(enumerate(found, 1))


def terminal(arms, path="runs/table_correlations/kjv_quick/report/index.html"):
    table = summary.summary_table(TASK, arms, "command", width=summary.WIDTH)
    best = summary.best_cells(TASK, trained(arms), YARDSTICKS)
    ran = "Searched, 5 min 2 s in all: PG only; PG + memory (14 epochs, kjv, seed 0)."
    return summary.printed(ran, table, summary.readings(TASK, arms), best, path)


def cells(table):
    """(row, set) -> column -> cell."""
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, [cell.text for cell in row], strict=True)) for row in table.cells()]
    return {(row["measure"], row["set"]): row for row in rows}


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
    assert found["common activations", "uniform"].endswith("; 3 seeds can tell.")
    assert found["performance difference", "uniform"].endswith("; 3 seeds cannot tell.")


def test_alike_arms_are_not_told_apart():
    text = told(default(-1, -1, -1, seeds=3))["common activations", "uniform"]
    assert "not told apart from untrained and PG only" in text and "more so" not in text
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


def stateless(key, seeds=1):
    arm = planted(key, seeds=seeds)
    none = np.zeros((N, 0))
    samples = [seed["own"]._replace(after=none, before=none) for seed in arm.samples]
    samples = [dict.fromkeys(SETS, sample) for sample in samples]
    return dataclasses.replace(arm, samples=samples)


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
    assert "No more encoding that is told" in answered(default(0, -1, -1))[3].sentence
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
