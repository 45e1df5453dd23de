"""What a search space is: a fixed sequence of decisions, and the labelled graph that they describe.

A space is frozen and hashable, so that it can be closed over by jitted functions. Everything
downstream works on decision vectors `int32[n, T]`; a new space implements `graphs` and inherits the
rest.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from nas.errors import UserError

if TYPE_CHECKING:
    import networkx

ABSENT = -1  # the label of a row that holds no node
MAX_NODES = 16  # most nodes of a graph for which exact edit distances can be computed


class Graphs(NamedTuple):
    """Labelled directed graphs of n architectures, or of one part of each, padded to M nodes."""

    adjacency: np.ndarray  # [n, M, M] bool; [a, i, j]: an edge from node i to node j
    labels: np.ndarray  # [n, M] int32; index into `label_names`, ABSENT where there is no node


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A sequence of T categorical decisions.

    Attributes:
      num_choices: number of choices of each decision; length T.
      kinds: what each decision decides, such as "activation", "connection"; length T.
      label_names: names of the node labels that `graphs` uses.
      label_kind: the kind whose choices label the nodes.
      choice_names: kind -> names of its choices, where they have any.
      io_labels: labels whose nodes match only nodes of the same label; the last one, the output's,
        decides nothing.
      part_names: names of the parts that are compared separately, such as "normal cell"; each has a
        graph.
    """

    num_choices: tuple[int, ...]
    kinds: tuple[str, ...]
    label_names: tuple[str, ...]
    label_kind: ClassVar[str]
    choice_names: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    io_labels: ClassVar[tuple[str, ...]] = ("input", "output")
    part_names: ClassVar[tuple[str, ...]] = ("",)

    @property
    def num_decisions(self) -> int:
        return len(self.num_choices)

    @property
    def max_choices(self) -> int:
        return max(self.num_choices)

    def positions(self, kind: str) -> np.ndarray:
        """Positions of the decisions of one kind that have a choice: a decision with one choice is
        a constant.
        """
        return np.array(
            [
                t
                for t, (k, c) in enumerate(zip(self.kinds, self.num_choices, strict=True))
                if k == kind and c > 1
            ],
            np.int32,
        )

    def choice_mask(self) -> np.ndarray:
        """bool[T, K]: which of the K = max_choices columns are choices of position t."""
        return np.arange(self.max_choices)[None, :] < np.array(self.num_choices)[:, None]

    def every(self) -> np.ndarray:
        """int32[n, T]: all decision vectors of a space that is small enough to be enumerated; row k
        is the one whose `index` is k.
        """
        return np.indices(self.num_choices, np.int32).reshape(self.num_decisions, -1).T

    def index(self, decisions):
        """[...] int32 row of each decision vector [..., T] in `every`; works on numpy and traced
        arrays.
        """
        place = np.cumprod((1, *self.num_choices[:0:-1]), dtype=np.int32)[::-1]
        return decisions @ place

    def sample_uniform(self, key, n: int):
        """int32[n, T] decision vectors, each choice equally likely."""
        import jax  # here, so that tools that only read decisions run without JAX
        import jax.numpy as jnp

        limits = jnp.broadcast_to(jnp.array(self.num_choices, jnp.int32), (n, self.num_decisions))
        return jax.random.randint(key, limits.shape, 0, limits, jnp.int32)

    def mutate(self, key, decisions):
        """int32[n, T]: each vector [n, T] with another choice, any equally likely, at one position
        that has more than one.
        """
        import jax
        import jax.numpy as jnp

        position_key, step_key = jax.random.split(key)
        changeable = np.flatnonzero(np.array(self.num_choices) > 1).astype(np.int32)
        positions = jax.random.choice(position_key, jnp.asarray(changeable), (len(decisions),))
        choices = jnp.array(self.num_choices, jnp.int32)[positions]
        steps = jax.random.randint(step_key, positions.shape, 1, choices)
        rows, decisions = jnp.arange(len(decisions)), jnp.asarray(decisions)
        return decisions.at[rows, positions].set((decisions[rows, positions] + steps) % choices)

    def neighbours(self, decisions):
        """int32[N, T]: all vectors that differ from one vector [T] in one decision."""
        changes = [(t, step) for t, c in enumerate(self.num_choices) for step in range(1, c)]
        positions, steps = np.array(changes, np.int32).T
        moved = np.zeros((len(changes), self.num_decisions), np.int32)
        moved[np.arange(len(changes)), positions] = steps
        return (decisions[None] + moved) % np.array(self.num_choices, np.int32)[None]

    def validate(self, decisions) -> np.ndarray:
        """Returns `decisions` as int32[n, T] (a single vector becomes n = 1).

        Raises:
          UserError: wrong length, not whole numbers, or a choice out of range; names the
            architecture, the position and the value.
        """
        array = np.asarray(decisions)
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or array.shape[1] != self.num_decisions:
            raise UserError(
                f"a decision vector of this space has {self.num_decisions} numbers, got an array "
                f"of shape {np.shape(decisions)}"
            )
        if array.size and array.dtype.kind not in "iuf":
            raise UserError(f"decisions must be whole numbers, got {array.dtype}")
        if len(broken := np.argwhere(array != np.floor(array))):  # nan too
            row, position = broken[0]
            raise UserError(
                f"architecture {row}, position {position}: {array[row, position]} is not a whole "
                "number"
            )
        bad = np.argwhere((array < 0) | (array >= np.array(self.num_choices)))
        if len(bad):
            row, position = bad[0]
            raise UserError(
                f"architecture {row}, position {position} ({self.kinds[position]}): "
                f"{array[row, position]} is not in "
                f"0..{self.num_choices[position] - 1}"
            )
        return array.astype(np.int32)

    def format(self, decisions) -> str:
        """The text form of one decision vector: its integers, separated by spaces."""
        return " ".join(str(int(d)) for d in self.validate(decisions)[0])

    def parse(self, text: str) -> np.ndarray:
        """int32[T] from the text form; the exact inverse of `format`.

        Raises:
          UserError: a token that is not an integer, a wrong number of them, or one out of range.
        """
        values = []
        for position, token in enumerate(text.split()):
            if not (token.isascii() and token.isdigit()):
                raise UserError(f"position {position}: {token!r} is not a whole number")
            if len(token) > 18:  # int64 holds any 18 digits
                raise UserError(f"position {position}: {token} is too large")
            values.append(int(token))
        if len(values) != self.num_decisions:
            raise UserError(
                f"a decision vector of this space has {self.num_decisions} numbers, got "
                f"{len(values)}"
            )
        return self.validate(np.array(values, np.int64))[0]

    @property
    def largest_graph(self) -> int:
        """Most nodes that a graph may have, including input and output."""
        parts = self.graphs(np.zeros((1, self.num_decisions), np.int32))
        return max(graphs.labels.shape[1] for graphs in parts)

    def graphs(self, decisions, *, io: bool = True) -> tuple[Graphs, ...]:
        """Labelled graphs of `decisions` [n, T], one `Graphs` per part; distances of parts add up.

        Args:
          io: whether the graphs have nodes with `io_labels`.
        """
        raise NotImplementedError

    def to_graphs(self, decisions, *, io: bool = True) -> "tuple[networkx.DiGraph, ...]":
        """The parts of one architecture for networkx; nodes have a `label` and are numbered in the
        order of `graphs`.
        """
        return tuple(
            self._to_networkx(*(part[0] for part in graphs))
            for graphs in self.graphs(self.validate(decisions)[:1], io=io)
        )

    def features(self, decisions) -> dict[str, np.ndarray]:
        """name -> [n] numbers by which architectures [n, T] differ; a space may have none."""
        del decisions
        return {}

    def copies(self, decisions, n: int, rng: np.random.Generator) -> np.ndarray:
        """[m, T] distinct architectures that compute what one [T] does, under other weights.

        m < n if there are fewer; the given architecture may be among them.

        Raises:
          UserError: the space has no such copies.
        """
        del decisions, n, rng
        raise UserError(f"{type(self).__name__}: architectures of this space have no copies")

    def _to_networkx(self, adjacency, labels):
        import networkx  # here, since a search draws no graphs and starts faster without it

        graph = networkx.DiGraph()
        graph.add_nodes_from(
            (int(i), {"label": self.label_names[labels[i]]})
            for i in np.flatnonzero(labels != ABSENT)
        )
        graph.add_edges_from((int(i), int(j)) for i, j in np.argwhere(adjacency))
        return graph
