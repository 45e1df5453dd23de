"""The micro space of ENAS for images (Pham et al. 2018, section 2.4): a normal and a reduction
cell.

A block is the sum of two operations, each of which reads the output of one of the two cells before
or of an earlier block. Blocks and inputs that nothing reads make the output of the cell.

Decisions: for each of the two cells, and block b = 0..B - 1, [read, operation, read, operation]
with read in 0..b + 1: the cell before the last, the last cell, block 0, ... T = 8 B, which is 40
for the paper's five blocks. The text form is that of the published architectures.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from nas.config import check
from nas.spaces.space import Graphs, SearchSpace

OPERATIONS = ("sep_3x3", "sep_5x5", "avg_3x3", "max_3x3", "identity")
INPUTS = ("cell before", "last cell")


@dataclasses.dataclass(frozen=True)
class MicroSpace(SearchSpace):
    """Two cells of `blocks` blocks."""

    num_choices: tuple[int, ...] = dataclasses.field(init=False)
    kinds: tuple[str, ...] = dataclasses.field(init=False)
    label_names: tuple[str, ...] = dataclasses.field(
        init=False, default=(*OPERATIONS, *INPUTS, "output")
    )
    blocks: int = 5

    label_kind: ClassVar[str] = "operation"
    choice_names: ClassVar[Mapping[str, tuple[str, ...]]] = {"operation": OPERATIONS}
    io_labels: ClassVar[tuple[str, ...]] = (*INPUTS, "output")
    part_names: ClassVar[tuple[str, ...]] = ("normal cell", "reduction cell")

    def __post_init__(self):
        check("blocks", self.blocks >= 1, "at least 1", self.blocks)
        choices = [c for b in range(self.blocks) for c in (b + 2, len(OPERATIONS)) * 2]
        object.__setattr__(self, "num_choices", tuple(choices * len(self.part_names)))
        kinds = ("connection", "operation") * (2 * self.blocks * len(self.part_names))
        object.__setattr__(self, "kinds", kinds)

    def reads(self, decisions):
        """[..., 2, B, 2] what both operations of every block of either cell read; works on numpy
        and traced arrays.
        """
        return self._halves(decisions)[..., 0]

    def operations(self, decisions):
        """[..., 2, B, 2] the operations; works on numpy and traced arrays."""
        return self._halves(decisions)[..., 1]

    def loose_ends(self, decisions: np.ndarray) -> np.ndarray:
        """bool[n, 2, B + 2]: which inputs and blocks of either cell no block reads."""
        reads = self.reads(self.validate(decisions))
        ends = np.arange(self.blocks + 2)
        return (reads.reshape(*reads.shape[:2], -1, 1) != ends).all(axis=2)

    def graphs(self, decisions, *, io: bool = True) -> tuple[Graphs, ...]:
        """The cells in line form: a node per operation, two for each block. What reads a block has
        edges from both. With `io` the inputs come first, and the output is last.
        """
        decisions = self.validate(decisions)
        return tuple(
            self._graph(self.reads(decisions)[:, cell], self.operations(decisions)[:, cell], io)
            for cell in range(len(self.part_names))
        )

    def features(self, decisions) -> dict[str, np.ndarray]:
        """The number of loose ends of either cell."""
        counts = self.loose_ends(decisions).sum(axis=2)
        return {f"loose ends, {name}": counts[:, i] for i, name in enumerate(self.part_names)}

    def copies(self, decisions, n: int, rng: np.random.Generator) -> np.ndarray:
        """[m, T] architectures that differ in the order of the blocks (each must follow what it
        reads) and in the order of the two operations of a block.
        """
        cells = self._halves(self.validate(decisions)[0])
        found = {}
        for _ in range(20 * n):  # if there are few copies, each is met several times
            copy = np.concatenate([self._reordered(cell, rng).ravel() for cell in cells])
            found.setdefault(copy.tobytes(), copy)
            if len(found) == n:
                break
        return np.stack(list(found.values()))

    def _halves(self, decisions):
        return decisions.reshape(*decisions.shape[:-1], len(self.part_names), self.blocks, 2, 2)

    def _reordered(self, cell, rng):
        """[B, 2, 2] the same cell with its blocks, and the operations of each, in random order."""
        place = {0: 0, 1: 1}  # input or block of `cell` -> its place in the copy
        copy = []
        while len(copy) < self.blocks:
            ready = [
                b
                for b in range(self.blocks)
                if b + 2 not in place and set(cell[b, :, 0]) <= {*place}
            ]
            block = int(rng.choice(ready))
            halves = [(place[int(read)], operation) for read, operation in cell[block]]
            copy.append(halves if rng.random() < 0.5 else halves[::-1])
            place[block + 2] = len(copy) + 1
        return np.array(copy, np.int32)

    def _graph(self, reads, operations, io):
        n, inner = len(reads), 2 * self.blocks
        reads = reads.reshape(n, inner)  # what node k reads; it belongs to block k // 2
        adjacency = np.zeros((n, inner + 3, inner + 3), bool)
        rows, heads = np.arange(n)[:, None], np.arange(inner) + 2  # inputs are nodes 0 and 1
        for half in (0, 1):
            tails = np.where(reads < 2, reads, 2 + 2 * (reads - 2) + half)
            adjacency[rows, tails, heads] = True
        adjacency[:, :-1, -1] = ~adjacency[:, :-1, 2:-1].any(axis=2)
        first, second, last = (self.label_names.index(name) for name in self.io_labels)
        ends = np.tile([first, second], (n, 1)), np.full((n, 1), last)
        labels = np.concatenate([ends[0], operations.reshape(n, inner), ends[1]], axis=1)
        graphs = Graphs(adjacency, labels.astype(np.int32))
        return graphs if io else Graphs(adjacency[:, 2:-1, 2:-1], graphs.labels[:, 2:-1])
