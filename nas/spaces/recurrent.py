"""The recurrent cell of ENAS (Pham et al. 2018, section 2.1): N nodes, each with an activation and
one earlier node as parent.

Decisions: [f_0, p_1, f_1, p_2, f_2, ..., p_{N-1}, f_{N-1}], T = 2N - 1; p_i in 0..i-1, so that p_1
is a constant.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from nas.config import check
from nas.spaces.space import Graphs, SearchSpace

ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")
_TRIES = 20  # draws for every copy that is asked for


@dataclasses.dataclass(frozen=True)
class RecurrentSpace(SearchSpace):
    """The recurrent cell of `num_nodes` nodes; its attributes follow from that number."""

    num_choices: tuple[int, ...] = dataclasses.field(init=False)
    kinds: tuple[str, ...] = dataclasses.field(init=False)
    label_names: tuple[str, ...] = dataclasses.field(
        init=False, default=(*ACTIVATIONS, "input", "output")
    )
    label_kind: ClassVar[str] = "activation"
    choice_names: ClassVar[Mapping[str, tuple[str, ...]]] = {"activation": ACTIVATIONS}
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
        (graphs,) = self.graphs(decisions, io=False)
        return ~graphs.adjacency.any(axis=2)

    def features(self, decisions) -> dict[str, np.ndarray]:
        return {"loose ends": self.loose_ends(decisions).sum(axis=1)}

    def copies(self, decisions, n: int, rng: np.random.Generator) -> np.ndarray:
        """Architectures that compute the same function with their nodes numbered differently;
        all copies are equally likely.

        Node 0 stays, and parents come before their children. The next node is drawn from those
        whose parent is numbered, with a probability in proportion to the number of its descendants
        plus one: every numbering of a tree is then equally likely (Knuth's hook lengths), and every
        copy comes from equally many numberings.
        """
        decisions = self.validate(decisions)[0]
        parents = self.parents(decisions)
        sizes = np.ones(self.num_nodes)
        for node in range(self.num_nodes - 1, 0, -1):
            sizes[parents[node - 1]] += sizes[node]
        copies = {}
        for _ in range(_TRIES * n):
            copy = self._renumbered(decisions, _order(parents, sizes, rng))
            copies.setdefault(copy.tobytes(), copy)
            if len(copies) == n:
                break
        return np.stack(list(copies.values()))

    def canonical(self, decisions) -> np.ndarray:
        """int32[n, T]: for each architecture, the one of its copies that stands for all: two
        architectures compute the same function exactly if these are equal.

        Nodes are numbered depth first, children in the order of what they and their descendants
        are.
        """
        return np.stack([self._canonical(row) for row in self.validate(decisions)])

    def _canonical(self, decisions):
        activations, parents = self.activations(decisions), self.parents(decisions)
        children = [np.flatnonzero(parents == node) + 1 for node in range(self.num_nodes)]

        def tree(node):
            """What a node and its descendants are, as a comparable value; and their order."""
            below = sorted((tree(child) for child in children[node]), key=lambda found: found[0])
            what = (int(activations[node]), tuple(found for found, _ in below))
            return what, [int(node), *(after for _, order in below for after in order)]

        return self._renumbered(decisions, tree(0)[1])

    def _renumbered(self, decisions, order):
        """The decisions [T] of the cell whose node k is node order[k] of the given one."""
        copy = np.empty_like(decisions)
        self.activations(copy)[:] = self.activations(decisions)[order]
        self.parents(copy)[:] = np.argsort(order)[self.parents(decisions)[np.array(order[1:]) - 1]]
        return copy

    def graphs(self, decisions, *, io: bool = True) -> tuple[Graphs, ...]:
        """Cell graphs; with `io` node 0 is the input, which node f_0 reads, and the last the
        output, which reads loose ends.
        """
        decisions = self.validate(decisions)
        n, nodes = len(decisions), self.num_nodes
        inner = np.zeros((n, nodes, nodes), bool)
        inner[np.arange(n)[:, None], self.parents(decisions), np.arange(1, nodes)] = True
        activations = self.activations(decisions)
        if not io:
            return (Graphs(inner, activations),)
        adjacency = np.pad(inner, ((0, 0), (1, 1), (1, 1)))
        adjacency[:, 0, 1] = True
        adjacency[:, 1:-1, -1] = ~inner.any(axis=2)
        labels = np.pad(
            activations, ((0, 0), (1, 1)), constant_values=self.label_names.index("input")
        )
        labels[:, -1] = self.label_names.index("output")
        return (Graphs(adjacency, labels),)


def _order(parents, sizes, rng):
    """[N] nodes in a random order that starts with 0 and has parents before children."""
    order = [0]
    ready = np.flatnonzero(parents == 0) + 1
    while len(ready):
        node = rng.choice(ready, p=sizes[ready] / sizes[ready].sum())
        order.append(int(node))
        ready = np.concatenate([ready[ready != node], np.flatnonzero(parents == node) + 1])
    return order
