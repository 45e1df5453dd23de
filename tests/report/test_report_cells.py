import itertools

import networkx as nx
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nas.report.cells import cell_drawing
from nas.report.layout import layered
from nas.spaces.recurrent import RecurrentSpace


class GraphSpace:
    """A space with one architecture."""

    def __init__(self, graph):
        self.graph = graph
        self.label_names = tuple(sorted({label for _, label in graph.nodes(data="label")}))

    io_labels = ("input", "output")

    def to_graphs(self, decisions, *, io=True):
        return (self.graph,)


def skips():
    """Twelve layers in a row with random skips, every edge u < v with probability .4."""
    graph, rng = nx.path_graph(14, nx.DiGraph), np.random.default_rng(0)
    graph.add_edges_from(
        (u, v) for u, v in itertools.combinations(range(14), 2) if rng.random() < 0.4
    )
    labels = ["input", *(f"{('convolution', 'pooling')[i % 2]}_3x3" for i in range(12)), "output"]
    nx.set_node_attributes(graph, dict(enumerate(labels)), "label")
    return GraphSpace(graph), None


def lonely():
    graph = nx.DiGraph()
    graph.add_nodes_from((name, {"label": "none"}) for name in "ab")
    return GraphSpace(graph), None


def cell(*decisions):
    return RecurrentSpace((len(decisions) + 1) // 2), np.array(decisions)


def draw(space, decisions, title=None):
    (graph,) = space.to_graphs(decisions)
    return cell_drawing(graph, space.label_names, space.io_labels, title)


CELLS = {
    "two nodes": cell(0, 0, 1),
    "chain": cell(0, *(d for i in range(1, 12) for d in (i - 1, i % 4))),
    "star": cell(3, *(d for _ in range(1, 12) for d in (0, 3))),
    "paper": cell(0, 0, 0, 1, 1, 2, 1, 2, 0, 2, 0, 5, 1, 1, 0, 6, 1, 8, 1, 8, 1, 8, 1),
    "skips": skips(),
    "no edges": lonely(),
}


def boxes(figure):
    figure.canvas.draw()
    ax = figure.axes[0]
    return {
        box.get_gid(): box.get_path().get_extents()
        for box in ax.patches
        if isinstance(box, FancyBboxPatch)
    }


@pytest.mark.parametrize("name", CELLS)
def test_one_box_a_node_and_one_arrow_an_edge(name):
    space, decisions = CELLS[name]
    (graph,) = space.to_graphs(decisions, io=True)
    ax = draw(space, decisions, name).axes[0]
    drawn = [patch.get_gid() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    arrows = [patch.get_gid() for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert sorted(drawn) == sorted(f"node-{node}" for node in graph)
    assert sorted(arrows) == sorted(f"edge-{u}-{v}" for u, v in graph.edges)
    labels = [text.get_text().split()[-1] for text in ax.texts if text.get_weight() != "bold"]
    assert sorted(labels) == sorted(label for _, label in graph.nodes(data="label"))


@pytest.mark.parametrize("name", CELLS)
def test_nothing_overlaps_and_letters_stay_legible_at_400_pixels(name):
    space, decisions = CELLS[name]
    figure = draw(space, decisions, name)
    found = boxes(figure)
    for a, b in itertools.combinations(found.values(), 2):
        assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
    ax = figure.axes[0]
    (x0, x1), (y1, y0) = ax.get_xlim(), ax.get_ylim()
    assert all(
        x0 <= box.x0 and box.x1 <= x1 and y0 <= box.y0 and box.y1 <= y1 for box in found.values()
    )
    renderer = figure.canvas.get_renderer()
    for text in ax.texts:
        extent = text.get_window_extent(renderer).transformed(ax.transData.inverted())
        if text.get_weight() != "bold":
            assert any(box.x0 <= extent.x0 and extent.x1 <= box.x1 for box in found.values())
    assert 8 * 96 / 72 * min(1, 400 / (96 * figure.get_size_inches()[0])) >= 8  # pixels


@pytest.mark.parametrize("name", CELLS)
def test_edges_meet_only_their_own_boxes(name):
    space, decisions = CELLS[name]
    figure = draw(space, decisions)
    found = boxes(figure)
    for arrow in (patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)):
        ends = {f"node-{end}" for end in arrow.get_gid().split("-")[1:]}
        for vertices in arrow.get_path().to_polygons(closed_only=False):
            steps = np.linspace(0, 1, 20)[:, None, None]
            points = ((1 - steps) * vertices[:-1] + steps * vertices[1:]).reshape(-1, 2)
            for gid, box in found.items():
                inside = (points > [box.x0 + 0.1, box.y0 + 0.1]) & (
                    points < [box.x1 - 0.1, box.y1 - 0.1]
                )
                assert gid in ends or not inside.all(axis=1).any()


def test_random_cells_do_not_overlap():
    space, rng = RecurrentSpace(12), np.random.default_rng(0)
    for _ in range(8):
        found = boxes(draw(space, rng.integers(0, space.num_choices)))
        for a, b in itertools.combinations(found.values(), 2):
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0


def test_nodes_are_numbered_as_in_the_decisions():
    ax = draw(*cell(3, 0, 1, 1, 2)).axes[0]
    assert sorted(text.get_text() for text in ax.texts) == [
        "0 sigmoid",
        "1 relu",
        "2 identity",
        "input",
        "output",
    ]


def test_layers_follow_the_longest_path():
    graph = nx.DiGraph([("in", "a"), ("a", "b"), ("in", "b"), ("b", "out"), ("in", "out")])
    layout = layered(graph, dict.fromkeys(graph, 10.0), gap=5)
    assert layout.layer == {"in": 0, "a": 1, "b": 2, "out": 3}
    assert {edge: len(lanes) for edge, lanes in layout.lanes.items() if lanes} == {
        ("in", "b"): 1,
        ("in", "out"): 2,
    }
    assert min(layout.across.values()) >= 0 and max(layout.across.values()) <= layout.breadth


def test_a_tree_has_no_crossings_and_a_chain_is_straight():
    layout = layered(nx.path_graph(12, nx.DiGraph), dict.fromkeys(range(12), 10.0), gap=5)
    assert np.ptp(list(layout.across.values())) < 1e-6
    tree = nx.DiGraph([(0, 1), (0, 2), (1, 3), (2, 4), (1, 5), (2, 6)])
    across = layered(tree, dict.fromkeys(tree, 10.0), gap=5).across
    assert len({across[a] < across[b] for a, b in ((1, 2), (3, 4), (5, 6), (3, 6), (5, 4))}) == 1


def test_a_cycle_is_refused():
    with pytest.raises(nx.NetworkXUnfeasible):
        layered(nx.cycle_graph(3, nx.DiGraph), dict.fromkeys(range(3), 10.0), gap=5)
