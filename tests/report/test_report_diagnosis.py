"""The report on one controller, where what it must say is known."""

import math

import networkx as nx
import numpy as np
import pytest

from nas.evaluation import correlations, overlap
from nas.evaluation.conditioning import Conditioning
from nas.evaluation.probes import Probe
from nas.report import diagnosis
from nas.report.diagnosis import Controller
from nas.spaces.nasbench201 import NASBench201Space
from nas.spaces.recurrent import RecurrentSpace

SPACE = RecurrentSpace(num_nodes=4)
DECISIONS = (
    np.random.default_rng(0)
    .integers(0, SPACE.num_choices, (24, SPACE.num_decisions))
    .astype(np.int32)
)


def measures(space, decisions):
    edits = correlations.edit_distances(space, decisions)
    return correlations.measures(space, decisions, edits=edits)


def rows(table):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.cells()}


def test_measures_of_a_recurrent_cell_by_hand():
    # Parents of nodes 1 to 3: 0 0 2, 0 0 1 and 0 1 2; activations 0 1 2 3, 0 2 2 3 and 3 1 0 1.
    decisions = np.array([[0, 0, 1, 0, 2, 2, 3], [0, 0, 2, 0, 2, 1, 3], [3, 0, 1, 1, 0, 2, 1]])
    found = measures(SPACE, decisions)
    assert found["common activations"].tolist() == [3, 1, 0] and found[
        "common connections"
    ].tolist() == [1, 1, 0]
    assert found["total overlap"].tolist() == [4, 2, 0] and found["edit distance"].tolist() == [
        1,
        6,
        7,
    ]


def test_measures_of_another_space():
    space = NASBench201Space()
    decisions = np.array([[1, 2, 3, 4, 3, 2], [1, 2, 3, 4, 3, 3], [3, 3, 3, 3, 3, 3]])
    found = measures(space, decisions)
    assert list(found) == [
        "common operations",
        "total overlap",
        "paper's operations",
        *correlations.EDIT_DISTANCES,
    ]
    assert found["common operations"].tolist() == [5, 2, 3]
    a, b = (space.to_graphs(row)[0] for row in decisions[[0, 2]])
    free = nx.graph_edit_distance(a, b, node_match=lambda u, v: u["label"] == v["label"])
    assert found["edit distance, input and output free"][1] == free


def test_embeddings_that_are_the_decisions_and_those_that_are_the_performance():
    performance = np.random.default_rng(1).normal(size=24)
    values = measures(SPACE, DECISIONS) | {
        diagnosis.PERFORMANCE: overlap.feature_difference(performance)
    }
    knows = Controller(DECISIONS, overlap.one_hot(SPACE, DECISIONS), None, performance)
    found = rows(diagnosis.correlations_table(values, SPACE, knows, ""))
    assert found["total overlap"][:3] == ["-1.000", "[-1.000, -1.000]", "0.0001"]
    assert found["common activations"][0] == found["common activations"][3]
    tells = Controller(DECISIONS, performance[:, None], None, performance)
    assert (
        rows(diagnosis.correlations_table(values, SPACE, tells, ""))[diagnosis.PERFORMANCE][0]
        == "+1.000"
    )
    *_, one_hot, projected = rows(diagnosis.correlations_table(values, SPACE, tells, ""))[
        "total overlap"
    ]
    assert one_hot == "-1.000" and -0.7 < float(projected) < -0.1  # one dimension keeps little
    performed = rows(diagnosis.performance_table(values, SPACE, tells, ""))
    assert performed["distance of embeddings"][::2] == ["+1.000", "0.0001"]
    assert performed["distance of embeddings, total overlap fixed"][0] == "+1.000"
    constant = Controller(DECISIONS, np.ones((24, 2)), None, None)
    assert (
        rows(diagnosis.correlations_table(values, SPACE, constant, ""))["total overlap"][:3]
        == ["undefined"] * 3
    )


def test_only_the_first_architectures_are_compared(monkeypatch):
    monkeypatch.setattr(diagnosis, "COMPARED", 12)
    values = measures(SPACE, DECISIONS[:12])
    embeddings = np.concatenate(
        [overlap.one_hot(SPACE, DECISIONS[:12]), np.zeros((12, sum(SPACE.num_choices)))]
    )
    table = diagnosis.correlations_table(
        values, SPACE, Controller(DECISIONS, embeddings, None, None), ""
    )
    assert rows(table)["total overlap"][0] == "-1.000" and table.notes[0].startswith(
        "12 architectures"
    )


def test_tables_by_position():
    """Seven positions, of which the second has no choice."""
    accuracy, majority = (
        np.array([1.0, 1, 0.5, 0.75, 0.25, 0.5, 1]),
        np.array([0.5, 1, 0.25, 0.5, 0.25, 0.5, 0.5]),
    )
    table = diagnosis.probes_table(SPACE, Probe(accuracy, majority), "")
    assert rows(table)["3"] == ["connection", "2", "0.750", "0.500", "+0.250"] and "1" not in rows(
        table
    )
    assert rows(table)["all"][2:] == ["0.667", "0.417", "+0.250"]  # 4 / 6 and 2.5 / 6
    divergence, entropy = np.array([0, 0, 0.1, 0.2, 0, 0, 0.3]), np.array([1.0, 0, 1, 0.5, 1, 1, 1])
    table = diagnosis.conditioning_table(
        SPACE, Conditioning(divergence, entropy, divergence + entropy), ""
    )
    assert rows(table)["3"] == ["connection", "2", "0.500", "0.2000"] and rows(table)["all"][
        2:
    ] == ["5.500", "0.6000"]


@pytest.mark.parametrize("complete", [False, True])
def test_the_page(complete, blank_figures, tmp_path):
    log_probs = np.broadcast_to(
        np.where(SPACE.choice_mask(), 0.0, -math.inf), (24, *SPACE.choice_mask().shape)
    )
    log_probs = log_probs - np.log(np.array(SPACE.num_choices))[:, None]
    extra = (log_probs, np.arange(24.0)) if complete else (None, None)
    controller = Controller(DECISIONS, np.random.default_rng(2).normal(size=(24, 6)), *extra)
    tables = diagnosis.write_report(
        tmp_path / "out" / "index.html", SPACE, controller, "the command"
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {
        "correlations.csv",
        "correlations.md",
        "probes.csv",
        "probes.md",
        "distance-overlap.png",
        "distance-edit_distance.png",
        "index.html",
    }
    expected |= {"embeddings-components.png", "embeddings-probes.png"}
    if complete:
        added = "performance", "conditioning"
        expected |= {f"{name}{of}" for name in added for of in (".csv", ".md")}
        expected |= {"distance-performance.png"}
        expected |= {"policy-conditioning.png", "policy-certainty.png"}
    assert names == expected and len(tables) == (4 if complete else 2)
    assert (tmp_path / "out" / "index.html").read_text().count("<img") == sum(
        name.endswith(".png") for name in names
    )
