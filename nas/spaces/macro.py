"""The macro space of ENAS for images (Pham et al. 2018, section 2.3): a chain of layers with skips.

Layer k reads layer k - 1 (layer 0 reads the stem) and applies its operation. To the result it may
add the outputs of the stem and of layers 0..k - 2.

Decisions: the operation of layer k, then k times whether it adds the stem, layer 0, ..., layer
k - 2: [op_0, op_1, skip, op_2, skip, skip, op_3, ...]. T = L + L (L - 1) / 2, which is 78 for the
paper's 12 layers. The text form is that of the published architectures.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from nas.config import check
from nas.spaces.space import Graphs, SearchSpace

OPERATIONS = ("conv_3x3", "sep_3x3", "conv_5x5", "sep_5x5", "avg_3x3", "max_3x3")


@dataclasses.dataclass(frozen=True)
class MacroSpace(SearchSpace):
    """A chain of `layers` layers with skips."""

    num_choices: tuple[int, ...] = dataclasses.field(init=False)
    kinds: tuple[str, ...] = dataclasses.field(init=False)
    label_names: tuple[str, ...] = dataclasses.field(
        init=False, default=(*OPERATIONS, "input", "output")
    )
    layers: int = 12

    label_kind: ClassVar[str] = "operation"
    choice_names: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "operation": OPERATIONS,
        "skip": ("no", "yes"),
    }

    def __post_init__(self):
        check("layers", self.layers >= 2, "at least 2", self.layers)
        kinds = [kind for k in range(self.layers) for kind in ("operation", *("skip",) * k)]
        choices = {"operation": len(OPERATIONS), "skip": 2}
        object.__setattr__(self, "kinds", tuple(kinds))
        object.__setattr__(self, "num_choices", tuple(choices[kind] for kind in kinds))

    def operations(self, decisions):
        """[..., L] the operation of every layer; works on numpy and traced arrays."""
        return decisions[..., self._starts()]

    def skips(self, decisions):
        """[..., L, L] int32, 1 where layer k (row) adds the stem (column 0) or layer j - 1 (column
        j); works on numpy and traced arrays.
        """
        rows, columns = np.tril_indices(self.layers, -1)
        positions = np.zeros((self.layers, self.layers), int)
        positions[rows, columns] = self._starts()[rows] + 1 + columns
        return decisions[..., positions] * np.tri(self.layers, k=-1, dtype=np.int32)

    def graphs(self, decisions, *, io: bool = True) -> tuple[Graphs, ...]:
        """Graphs with layers as nodes; with `io` the first node is the stem, and the last one, the
        output, reads the last layer.
        """
        decisions = self.validate(decisions)
        nodes = self.layers + 1  # the stem, then the layers
        adjacency = np.zeros((len(decisions), nodes, nodes), bool)
        adjacency[:, np.arange(self.layers), np.arange(1, nodes)] = True
        adjacency[:, :-1, 1:] |= self.skips(decisions).swapaxes(1, 2).astype(bool)
        labels = self.operations(decisions)
        if not io:
            return (Graphs(adjacency[:, 1:, 1:], labels),)
        adjacency = np.pad(adjacency, ((0, 0), (0, 1), (0, 1)))
        adjacency[:, -2, -1] = True
        labels = np.pad(labels, ((0, 0), (1, 1)), constant_values=self.label_names.index("input"))
        labels[:, -1] = self.label_names.index("output")
        return (Graphs(adjacency, labels),)

    def features(self, decisions) -> dict[str, np.ndarray]:
        """The number of skips."""
        return {"skips": self.skips(self.validate(decisions)).sum(axis=(1, 2))}

    def _starts(self):
        return np.cumsum(range(self.layers))
