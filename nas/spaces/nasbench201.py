"""The cell of NAS-Bench-201 (Dong & Yang, ICLR 2020): four points, an operation on each of the six
edges between them.

Decisions: the operations of edges (0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), T = 6; point 0 is
the input, point 3 the output, and a point is the sum of the edges that end in it. The space is
small enough to be enumerated: 5^6 = 15,625 decision vectors.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from nas.errors import UserError
from nas.spaces.space import ABSENT, Graphs, SearchSpace

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_NONE, _SKIP = 0, 1  # indices in OPERATIONS
_POINTS = 4
_ZERO = "#"


@dataclasses.dataclass(frozen=True)
class NASBench201Space(SearchSpace):
    """Six edges, five operations."""

    num_choices: tuple[int, ...] = dataclasses.field(
        init=False, default=(len(OPERATIONS),) * len(EDGES)
    )
    kinds: tuple[str, ...] = dataclasses.field(init=False, default=("operation",) * len(EDGES))
    label_names: tuple[str, ...] = dataclasses.field(
        init=False, default=(*OPERATIONS, "input", "output")
    )

    label_kind: ClassVar[str] = "operation"
    choice_names: ClassVar[Mapping[str, tuple[str, ...]]] = {"operation": OPERATIONS}

    def format(self, decisions) -> str:
        """The benchmark's text form of one decision vector:
        `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.
        """
        names = iter([OPERATIONS[choice] for choice in self.validate(decisions)[0]])
        return "+".join(
            "|" + "".join(f"{next(names)}~{tail}|" for tail in range(head))
            for head in range(1, _POINTS)
        )

    def parse(self, text: str) -> np.ndarray:
        """int32[T] from the benchmark's text form; the exact inverse of `format`.

        Raises:
          UserError: another form, or an unknown operation; names the position.
        """
        names = [
            token.partition("~")[0]
            for part in text.split("+")
            for token in part.strip("|").split("|")
        ]
        if len(names) == len(EDGES):
            for position, name in enumerate(names):
                if name not in OPERATIONS:
                    raise UserError(
                        f"position {position}: unknown operation {name!r}; there are "
                        f"{', '.join(OPERATIONS)}"
                    )
            decisions = np.array([OPERATIONS.index(name) for name in names], np.int32)
            if self.format(decisions) == text:
                return decisions
        raise UserError(
            f"an architecture is written |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got {text!r}"
        )

    def official_class(self, decisions) -> np.ndarray:
        """int32[n]: the class, 0..6465, under the benchmark's own rule.

        Two cells are in one class if their expressions are equal. An expression is written from the
        input on, with skip_connect left out and what `none` nullifies as 0; summands that are 0
        stay.
        """
        return _classes(drop_zeros=False)[self.index(self.validate(decisions))]

    def canonical_class(self, decisions) -> np.ndarray:
        """int32[n]: the class, 0..5389, under the rule of `official_class` with summands that are 0
        left out.
        """
        return _classes(drop_zeros=True)[self.index(self.validate(decisions))]

    def graphs(self, decisions, *, io: bool = True) -> tuple[Graphs, ...]:
        """Cells in line form: a node per edge, labelled by its operation; an arrow where one edge
        ends and another begins.

        Edges that are `none`, that the input does not reach or that do not reach the output are no
        nodes.
        With `io` the first node is the input and the last the output; a cell that computes nothing
        has only these two, unconnected.
        """
        decisions = self.validate(decisions)
        tails, heads = np.array(EDGES).T
        present = decisions != _NONE
        reached, needed = (np.zeros((len(decisions), _POINTS), bool) for _ in range(2))
        reached[:, 0] = needed[:, -1] = True
        # In the order of their heads, so that what an edge reads is settled before it.
        for edge in range(len(EDGES)):
            reached[:, heads[edge]] |= present[:, edge] & reached[:, tails[edge]]
        for edge in np.argsort(-tails, kind="stable"):
            needed[:, tails[edge]] |= present[:, edge] & needed[:, heads[edge]]
        alive = present & reached[:, tails] & needed[:, heads]
        labels = np.where(alive, decisions, ABSENT).astype(np.int32)
        adjacency = (heads[:, None] == tails)[None] & alive[:, :, None] & alive[:, None, :]
        if not io:
            return (Graphs(adjacency, labels),)
        adjacency = np.pad(adjacency, ((0, 0), (1, 1), (1, 1)))
        adjacency[:, 0, 1:-1] = alive & (tails == 0)
        adjacency[:, 1:-1, -1] = alive & (heads == _POINTS - 1)
        labels = np.pad(labels, ((0, 0), (1, 1)), constant_values=self.label_names.index("input"))
        labels[:, -1] = self.label_names.index("output")
        return (Graphs(adjacency, labels),)


@functools.cache
def _classes(drop_zeros: bool) -> np.ndarray:
    """int32[15625]: the class of every decision vector, numbered by first appearance."""
    numbers: dict[str, int] = {}
    cells = itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))
    return np.array(
        [numbers.setdefault(_expression(cell, drop_zeros), len(numbers)) for cell in cells],
        np.int32,
    )


def _expression(cell, drop_zeros) -> str:
    points, choices = ["0"], iter(cell)
    for head in range(1, _POINTS):
        summands = sorted(_summand(points[tail], next(choices)) for tail in range(head))
        if drop_zeros:
            summands = [summand for summand in summands if summand != _ZERO] or [_ZERO]
        points.append("+".join(summands))
    return points[-1]


def _summand(point, choice) -> str:
    if choice == _NONE or point == _ZERO:
        return _ZERO
    return point if choice == _SKIP else f"({point})@{choice}"
