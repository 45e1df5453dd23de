"""Tables of the evidence study on three architectures whose correlations are known by hand, and on
policies that are.
"""

import math

import numpy as np
import pytest

from nas.data.text import Text
from nas.evaluation import correlations, overlap
from nas.evaluation.samples import SETS, Behaviour, Sample
from nas.report.arms import tables
from nas.report.arms.arm import MeasuredArm, common_performance, performance
from nas.report.arms.tables import study_tables
from tests.helpers import recurrent_task

TASK = recurrent_task(4)
SPACE = TASK.space  # choices 4, 1, 4, 2, 4, 3, 4
T, K = SPACE.num_decisions, SPACE.max_choices
# Pairs have 3, 1, 0 activations and 1, 1, 0 connections in common: total overlaps 4, 2, 0.
THREE = np.array([[0, 0, 1, 0, 2, 2, 3], [0, 0, 2, 0, 2, 1, 3], [3, 0, 1, 1, 0, 2, 1]], np.int32)
EDITS = correlations.edit_distances(SPACE, THREE)
FALLING, HALF, RISING = (
    [0, -1, 2],
    [0, 1, 3],
    [3, 0, 1],
)  # states on a line: Spearman with total overlap -1, -.5, +1
NAN = float("nan")


def sample(states, loss=(4.0, 4.5, 4.75), common=(NAN, NAN, NAN)):
    states = np.array(states, float).reshape(3, -1)
    return Sample(THREE, states, states, np.array(loss), np.array(common), EDITS)


def behaviour(n=60, log_probs=None, states=None, continued=None, own=None):
    decisions = np.random.default_rng(0).integers(0, SPACE.num_choices, (n, T)).astype(np.int32)
    uniform = np.broadcast_to(
        np.log(SPACE.choice_mask() / np.array(SPACE.num_choices)[:, None] + 1e-300), (n, T, K)
    )
    log_probs = uniform if log_probs is None else log_probs
    states = overlap.one_hot(SPACE, decisions) if states is None else states
    continued = decisions[:50].reshape(10, 5, T) if continued is None else continued
    return Behaviour(
        decisions if own is None else own,
        log_probs,
        decisions,
        uniform,
        states,
        np.zeros((T, T)),
        continued,
    )


def arm(title, states, *, best=NAN, **options):
    """An arm with a seed for each list of states, the same in both sets."""
    samples = [dict.fromkeys(SETS, sample(line, **options)) for line in states]
    return MeasuredArm(title, samples, [behaviour()] * len(states), [best] * len(states))


def stateless(title, seeds=3):
    return arm(title, [np.zeros((3, 0))] * seeds)


def rows(table):
    """First cells -> the others, as they are printed; first cells are as many as it takes to tell
    rows apart.
    """
    texts = [[cell.text for cell in row] for row in table.cells()]
    first = next(k for k in range(1, 5) if len({tuple(row[:k]) for row in texts}) == len(texts))
    names = [column.name for column in table.columns[first:]]
    return {
        row[0] if first == 1 else tuple(row[:first]): dict(zip(names, row[first:], strict=True))
        for row in texts
    }


@pytest.fixture(scope="module")
def arms():
    return {
        "untrained": arm("untrained", [HALF, HALF, HALF]),
        "pg": arm("PG only", [RISING, HALF, RISING], best=math.log(66)),
        "memory": arm("PG + memory", [FALLING, FALLING, HALF], best=math.log(73)),
        "uniform": stateless("uniform policy"),
        "collapsed": arm("collapsed", [[1, 1, 1], FALLING, FALLING]),
    }


def test_correlations_are_means_over_seeds_with_t_intervals(arms):
    found = rows(tables.correlations_table(TASK, arms, "uniform", "command"))
    # -1, -1, -.5: deviation .2887, so 4.3027 * .2887 / sqrt(3) = .717 about -.833.
    assert found["PG + memory"]["total overlap"] == "-0.833 ± 0.717"
    assert found["untrained"]["total overlap"] == "-0.500 ± 0.000"
    assert found["untrained"]["common activations"] == "-0.500 ± 0.000"
    # Distances 1, 3, 2 of HALF; perplexities differ by .5, .75, .25: ranks 1 3 2 and 2 3 1,
    # differences 1, 0, -1.
    assert found["untrained"][performance(TASK)] == "+0.500 ± 0.000"
    assert set(found["uniform policy"].values()) == {"no state"}
    assert found["collapsed"]["total overlap"] == "undefined in 1 of 3 seeds"
    assert found["PG + memory"][common_performance(TASK)] == "not measured"


def test_yardsticks(arms):
    found = rows(tables.correlations_table(TASK, arms, "uniform", ""))
    assert found["one-hot decisions"]["total overlap"] == "-1.000 ± 0.000"
    assert "random projection" in found
    ceiling = found["equal weights, in expectation"]
    # Variances: activations 4 * 3/16 = .75; connections 1/4 + 2/9 = .4722; sqrt(.75 / 1.2222),
    # sqrt(.4722 / 1.2222).
    assert (
        ceiling["common activations"],
        ceiling["common connections"],
        ceiling["total overlap"],
    ) == (
        "-0.783",
        "-0.622",
        "-1.000",
    )
    own = rows(tables.correlations_table(TASK, arms, "own", ""))
    assert own["paper (PG + memory)"][correlations.labelled_edges(SPACE)] == "-0.404"
    assert own["paper (PG + memory)"][performance(TASK)] == "+0.163"
    yardsticks = rows(tables.yardsticks_table(TASK, arms, ""))
    assert len(yardsticks) == 2 * len(arms)
    assert yardsticks["one-hot decisions: uniform policy"]["total overlap"] == "-1.000 ± 0.000"


def test_the_ceiling_is_what_a_large_uniform_sample_shows():
    task = recurrent_task(12)
    space = task.space
    decisions = np.random.default_rng(0).integers(0, space.num_choices, (600, space.num_decisions))
    kinds = {"common activations": "activation", "common connections": "connection"}
    total = overlap.common_decisions(space, decisions, *kinds.values())
    table = tables.correlations_table(task, {"untrained": large(space)}, "uniform", "")
    for measure, kind in kinds.items():
        seen = np.corrcoef(total, overlap.common_decisions(space, decisions, kind))[0, 1]
        assert float(rows(table)["equal weights, in expectation"][measure]) == pytest.approx(
            -seen, abs=0.01
        )


def large(space, n=8):
    """An untrained arm of one seed in a larger space."""
    decisions = np.random.default_rng(1).integers(0, space.num_choices, (n, space.num_decisions))
    edits = correlations.edit_distances(space, decisions)
    one = Sample(
        decisions, overlap.one_hot(space, decisions), None, np.arange(n), np.arange(n), edits
    )
    return MeasuredArm("untrained", [dict.fromkeys(SETS, one)], [], [NAN])


def test_the_paper_s_protocol_by_hand(arms):
    found = rows(tables.protocol_table(TASK, arms, ""))
    row = found["edit distance, first approximation", "Spearman", "L2"]
    # States FALLING are 1, 2, 3 apart, HALF 1, 3, 2. Of 6, 6 and 5 edges the pairs have 4, 4 and 3
    # in common by position: the approximations are 4, 3, 5.
    assert row["untrained"] == "-0.500 ± 0.000"
    assert (
        row["PG + memory"] == "+0.167 ± 1.434"
    )  # .5, .5, -.5: deviation .5774, 4.3027 * .5774 / sqrt(3)
    paper = {
        key: row["paper (PG + memory)"]
        for key, row in found.items()
        if row["paper (PG + memory)"] != "-"
    }
    assert paper == {
        ("paper's activations", "Spearman", "L2"): "-0.404",
        ("perplexity, |difference|", "Spearman", "L2"): "+0.163",
    }
    assert "uniform policy" not in row  # it has no state


def test_primary_differences_by_hand(arms):
    table = tables.primary_table(TASK, arms, "")
    found = rows(table)
    assert set(found) == {
        ("PG + memory", reference, measure)
        for reference in ("untrained", "PG only")
        for measure in ("total overlap", "common activations")
    }
    row = found["PG + memory", "untrained", "total overlap"]
    # Differences -.5, -.5, 0: mean -.3333, deviation .2887, t = -2 with 2 degrees of freedom: p = 1
    # - 2 / sqrt(6) = .1835.
    assert (row["difference"], row["95 % interval"]) == ("-0.333", "[-1.050, +0.384]")
    assert (row["effect (d_z)"], row["p"]) == ("-1.15", "0.1835")
    # Against PG: -2, -.5, -1.5, mean -1.3333, deviation .7638, t = -3.0237: p = 1 - 3.0237 /
    # sqrt(3.0237^2 + 2) = .0942.
    row = found["PG + memory", "PG only", "common activations"]
    assert (row["difference"], row["p"]) == ("-1.333", "0.0942")
    # Four tests, the two against PG come first: 4 * .0942 for both; then 2 * .1835 = .3670, raised
    # to what came before.
    assert {names[1]: row["p, Holm"] for names, row in found.items()} == {
        "PG only": "0.3767",
        "untrained": "0.3767",
    }
    assert any("these 4 tests" in note for note in table.notes)


def test_what_is_not_primary_is_exploratory_and_not_adjusted(arms):
    table = tables.exploratory_table(TASK, arms, "")
    assert {names[:2] for names in rows(table)} == {
        ("PG only", "untrained"),
        ("collapsed", "untrained"),
        ("collapsed", "PG only"),
    }
    assert (
        "p, Holm" not in [column.name for column in table.columns] and "Exploratory" in table.title
    )
    assert rows(table)["collapsed", "untrained", "total overlap"]["difference"] == "undefined"


def test_the_primary_family_has_at_most_ten_tests(arms):
    every = dict(arms) | dict.fromkeys(
        ("memory", "memory_next", "fixed", "entropy"), arms["memory"]
    )
    every = {
        key: MeasuredArm(key, some.samples, some.behaviours, some.best_loss)
        for key, some in every.items()
    }
    assert len(tables.primary_table(TASK, every, "").rows) == 8


def test_one_seed_has_no_interval_and_no_test(arms):
    single = {
        key: MeasuredArm(some.title, some.samples[:1], some.behaviours[:1], some.best_loss[:1])
        for key, some in arms.items()
    }
    found = rows(tables.primary_table(TASK, single, ""))[
        "PG + memory", "untrained", "total overlap"
    ]
    assert found.pop("difference") == "-0.500" and set(found.values()) == {"one seed"}
    assert (
        rows(tables.correlations_table(TASK, single, "own", ""))["PG + memory"]["total overlap"]
        == "-1.000"
    )
    performance = rows(tables.performance_table(TASK, single, "uniform", ""))["untrained", "own"]
    assert (performance["states"], performance["no correlation beyond"]) == ("+0.500", "one seed")


def test_performance_by_hand():
    """Perplexities differ by .5, .75, .25; total overlaps are 4, 2, 0; distances of HALF 1, 3, 2,
    of FALLING 1, 2, 3.
    """
    arms = {"untrained": arm("untrained", [HALF, HALF, FALLING])}
    found = rows(tables.performance_table(TASK, arms, "uniform", ""))
    row = found["untrained", "own"]
    # Correlations .5, .5, -.5: mean .1667, deviation .5774, 4.3027 / 3 = 1.434, and 2.9200 / 3 =
    # .9733 beyond the mean.
    assert row["states"] == "+0.167 ± 1.434"
    assert row["no correlation beyond"] == "1.140"
    # Ranks of overlaps 3, 2, 1: with performance .5. Partial: HALF (.5 + .5 * .5) / .75 = 1;
    # FALLING (-.5 + .5) / 0 undefined.
    assert row["total overlap"] == "+0.500 ± 0.000"
    assert row["states, overlap fixed"] == "undefined in 1 of 3 seeds"
    # Six orders of three architectures: distances 1, 3, 2 in any order give |r| >= .5 always.
    assert row["p (Mantel)"] == "1.0000 [1.0000, 1.0000]"
    assert row["diverged cells"] == "0 of 9" and row["states, without them"] == row["states"]
    assert set(found["untrained", "common"].values()) == {"not measured"}


def test_partial_correlation_by_hand():
    arms = {"untrained": arm("untrained", [HALF])}
    row = rows(tables.performance_table(TASK, arms, "own", ""))["untrained", "own"]
    assert row["states, overlap fixed"] == "+1.000"  # (.5 + .5 * .5) / (1 - .25)


def test_diverged_cells_are_counted_and_not_hidden():
    """Five architectures on a line; the states of four follow the perplexity, the fifth has
    diverged and lies among them.
    """
    decisions = np.random.default_rng(2).integers(0, SPACE.num_choices, (5, T))
    edits = correlations.edit_distances(SPACE, decisions)
    values = np.array([4.0, 4.1, 4.3, 4.7, 9.0])
    states = np.array([4.0, 4.1, 4.3, 4.7, 4.2])[:, None]

    def row(loss, vocabulary):
        task = TASK._replace(data=Text(vocabulary=max(3, vocabulary)))
        one = Sample(decisions, states, states, loss, loss, edits)
        arms = {"untrained": MeasuredArm("untrained", [dict.fromkeys(SETS, one)], [], [NAN])}
        return rows(tables.performance_table(task, arms, "uniform", ""))["untrained", "common"]

    found = row(values, 4000)
    assert found["diverged cells"] == "1 of 5" and found["states, without them"] == "+1.000"
    assert float(found["states"]) < 0.5
    assert row(values, 10_000)["diverged cells"] == "0 of 5"  # log 10,000 = 9.21
    values[4] = NAN
    assert row(values, 10_000) | {
        "states, without them": "+1.000",
        "diverged cells": "1 of 5",
    } == row(values, 10_000)
    assert row(values, 10_000)["states"] == "undefined"
    assert row(values, 3)["states, without them"] == "undefined"  # all have diverged


def certain(choices):
    """[n, T, K] log-probabilities of a policy that takes these choices [n, T]."""
    with np.errstate(divide="ignore"):
        return np.log(np.eye(K)[choices])


def test_behaviour_of_known_policies(arms):
    n = 1000
    copied = np.zeros((n, T), int)
    copied[:, 3] = np.arange(n) % 2
    policies = {
        "untrained": behaviour(600),
        "fixed": behaviour(n, certain(np.zeros((n, T), int)), own=np.zeros((n, T), np.int32)),
        "looks back": behaviour(n, certain(copied), own=copied.astype(np.int32)),
        "no memory of it": behaviour(states=np.zeros((60, 3))),
    }
    some = {
        name: MeasuredArm(name, arms["untrained"].samples[:1], [one], [math.log(50)])
        for name, one in policies.items()
    }
    some["uniform"] = stateless("uniform policy", seeds=1)
    found = rows(tables.behaviour_table(TASK, some, ""))
    # 4 log 4 + log 2 + log 3 = 7.34 nats.
    assert (
        found["untrained"]["entropy (nats)"] == "7.34"
        and found["untrained"]["total correlation (nats)"] == "0.000"
    )
    assert (
        found["fixed"]
        | {"entropy (nats)": "0.00", "unique samples": "1", "its fraction": "undefined"}
        == found["fixed"]
    )
    # log 2, and (2 - 1) / (2 * 999) for the entropy that a finite sample misses: .6936, all that
    # there is.
    looks = found["looks back"]
    assert (looks["total correlation (nats)"], looks["its fraction"], looks["unique samples"]) == (
        "0.694",
        "1.0000",
        "2",
    )
    assert (
        found["fixed"]["best perplexity"] == "50.0"
        and found["uniform policy"]["best perplexity"] == "not trained"
    )
    assert found["uniform policy"]["probe less majority"] == "no state"
    # Decisions themselves as state are read without error; the majority of a uniform sample is
    # right once in as many choices: (4 * 3/4 + 1/2 + 2/3) / 6 = .694, the decision without choice
    # left out.
    assert float(found["untrained"]["probe less majority"]) == pytest.approx(0.694, abs=0.03)
    assert float(found["no memory of it"]["probe less majority"]) == 0


def test_identical_states():
    start, groups, size = T // 2, 8, 6
    rng = np.random.default_rng(0)
    free = rng.integers(0, SPACE.num_choices, (groups, size, T)).astype(np.int32)
    free[:, :, :start] = free[:, :1, :start]
    same = np.repeat(free[:, :1], size, axis=1)
    policies = {"untrained": free, "looks back": same}
    some = {
        name: MeasuredArm(name, [{}], [behaviour(continued=continued)], [NAN])
        for name, continued in policies.items()
    }
    table = tables.identical_states_table(TASK, some, "")
    looks, free_row = rows(table)["looks back"], rows(table)["untrained"]
    assert (looks["within"], looks["p"]) == (
        "4.00",
        "0.0001",
    )  # all four decisions from position 3 on
    assert float(free_row["p"]) > 0.01 and abs(float(free_row["difference"])) < 0.3
    pairs = [(g, h) for g in range(groups) for h in range(g)]
    between = np.mean([(same[g, 0, start:] == same[h, 0, start:]).sum() for g, h in pairs])
    assert looks["between"] == f"{between:.2f}"


def test_all_tables_say_what_made_them(arms, tmp_path):
    found = study_tables(TASK, arms, "python -m experiments.study")
    assert len(found) == 10
    for name, table in found.items():
        assert "Made by: python -m experiments.study" in table.text()
        assert len(table.csv(tmp_path / f"{name}.csv").read_text().splitlines()) == 1 + len(
            table.rows
        )
