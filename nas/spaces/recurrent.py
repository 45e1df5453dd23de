"""The recurrent cell of ENAS (Pham et al. 2018, section 2.1): N nodes, each with an activation and
one earlier node as parent.

Decisions: [f_0, p_1, f_1, p_2, f_2, ..., p_{N-1}, f_{N-1}], T = 2N - 1; p_i in 0..i-1, so that p_1
is a constant.
"""

import dataclasses

import numpy as np

from nas.config import check
from nas.spaces.space import Graphs, SearchSpace

ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")


@dataclasses.dataclass(frozen=True)
class RecurrentSpace(SearchSpace):
    """The recurrent cell of `num_nodes` nodes; its attributes follow from that number."""

    num_choices: tuple[int, ...] = dataclasses.field(init=False)
    kinds: tuple[str, ...] = dataclasses.field(init=False)
    label_names: tuple[str, ...] = dataclasses.field(
        init=False, default=(*ACTIVATIONS, "input", "output")
    )
    num_nodes: int = 12

    def __post_init__(self):
        check("num_nodes", self.num_nodes >= 2, "at least 2", self.num_nodes)
        count = len(ACTIVATIONS)
        object.__setattr__(
            self, "num_choices", (count, *(c for i in range(1, self.num_nodes) for c in (i, count)))
        )
        object.__setattr__(
            self, "kinds", ("activation", *("connection", "activation") * (self.num_nodes - 1))
        )

    def activations(self, decisions):
        """[..., N] activation of every node; works on numpy and traced arrays."""
        return decisions[..., 0::2]

    def parents(self, decisions):
        """[..., N - 1] parent of nodes 1..N-1; works on numpy and traced arrays."""
        return decisions[..., 1::2]

    def loose_ends(self, decisions) -> np.ndarray:
        """bool[n, N]: nodes that no other node reads; the output is their mean."""
        return ~self.graphs(decisions, io=False).adjacency.any(axis=2)

    def graphs(self, decisions, *, io: bool = True) -> Graphs:
        """Cell graphs; with `io` node 0 is the input, which node f_0 reads, and the last the
        output, which reads loose ends.
        """
        decisions = self.validate(decisions)
        n, nodes = len(decisions), self.num_nodes
        inner = np.zeros((n, nodes, nodes), bool)
        inner[np.arange(n)[:, None], self.parents(decisions), np.arange(1, nodes)] = True
        activations = self.activations(decisions)
        if not io:
            return Graphs(inner, activations)
        adjacency = np.pad(inner, ((0, 0), (1, 1), (1, 1)))
        adjacency[:, 0, 1] = True
        adjacency[:, 1:-1, -1] = ~inner.any(axis=2)
        labels = np.pad(
            activations, ((0, 0), (1, 1)), constant_values=self.label_names.index("input")
        )
        labels[:, -1] = self.label_names.index("output")
        return Graphs(adjacency, labels)
