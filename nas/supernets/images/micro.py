"""The network of the micro space: cells of two kinds, whose architectures share filters.

A third and two thirds of the way through there is a reduction cell: it doubles the channels, height
and width are halved before it, and it computes as the normal cells do. The filters of an operation
belong to (cell, block, which of the block's two, what it reads): there are none for what it can
never read. Separable operations are relu, depthwise, pointwise and bn, twice. The output of a cell
is a pointwise convolution of relu of its loose ends, and bn.

Before the blocks read them, inputs of another size than the last cell are halved, and those with
other channels go through a pointwise convolution (melodyguan/enas calls it calibration). The same
network serves the search and the training of what it found; the authors' code trains another one.

Decisions are traced: one compilation serves every architecture.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nas.config import check
from nas.spaces.micro import OPERATIONS, MicroSpace
from nas.supernets.images import layers, native_networks
from nas.supernets.images.classifier import Classifier
from nas.supernets.images.layers import Filter, Norm, Reduction, Separable
from nas.supernets.images.wiring import ImageShape, Use, Wiring
from nas.types import Array

_USES = ("sep_3x3", "sep_5x5", "", "", "")

prepare = native_networks.prepare


class Pairs(NamedTuple):
    """Separable convolutions, two in a row."""

    filters: Separable  # depth [rows, 2, size, size, C], point [rows, 2, C, C]
    norm: Norm  # [rows, 2, C]


class Cell(NamedTuple):
    """Weights of a cell of one architecture; where they are shared, the pairs have a row for
    everything that an operation of a block can read.
    """

    before: Reduction | None  # halves the last output, in a reduction cell
    inputs: tuple[Reduction | Filter | None, Filter | None]  # brings the inputs to one shape
    sep_3x3: Pairs  # 2 B rows
    sep_5x5: Pairs
    leave: Filter  # kernel [B + 2, C, C], a row for every input and block


class Weights(NamedTuple):
    stem: Filter  # kernel [3, 3, channels of images, 3 C]
    cells: tuple[Cell, ...]
    head: Array  # [C, classes]


@dataclasses.dataclass(frozen=True)
class MicroNetwork(Classifier):
    """A `nas.tasks.Network`."""

    cells: int  # number of normal cells; the two reduction cells come on top

    def __post_init__(self):
        super().__post_init__()
        check("cells", self.cells >= 1, "at least 1", self.cells)

    def wiring(self, space: MicroSpace, shape: ImageShape) -> Wiring:
        return Wiring("micro", *_functions(space, self.channels, self.cells, shape))


def _functions(space, channels, normal_cells, shape):
    reducing = (normal_cells // 3, 2 * (normal_cells // 3) + 1)
    total, blocks = normal_cells + 2, space.blocks
    firsts = [sum(b + 2 for b in range(block)) for block in range(blocks + 1)]

    def init(key: Array) -> Weights:
        width, cells = channels, []
        stem_key, head_key, *keys = jax.random.split(key, total + 2)
        inputs = [(3 * channels, 0), (3 * channels, 0)]  # channels, how often it was halved
        for cell, cell_key in enumerate(keys):
            parts = iter(jax.random.split(cell_key, 8))
            before = None
            if cell in reducing:
                width *= 2
                (last, halved) = inputs[1]
                before = layers.reduction(next(parts), (), last, width)
                inputs = [inputs[1], (width, halved + 1)]
            alike = []
            for have, halved in inputs:
                if halved != inputs[1][1]:
                    alike.append(layers.reduction(next(parts), (), have, width))
                elif have != width:
                    kernel = layers.kernel(next(parts), have, width, fan_in=have)
                    alike.append(Filter(kernel, layers.norm(width)))
                else:
                    alike.append(None)
            leave = layers.kernel(next(parts), blocks + 2, width, width, fan_in=2 * width)
            pairs = [_pairs(next(parts), 2 * firsts[-1], size, width) for size in (3, 5)]
            leave = Filter(leave, layers.norm(width))
            cells.append(Cell(before, tuple(alike), *pairs, leave))
            inputs = [inputs[1], (width, inputs[1][1])]
        stem = layers.kernel(
            stem_key, 3, 3, shape.channels, 3 * channels, fan_in=9 * shape.channels
        )
        head = layers.kernel(head_key, width, shape.classes, fan_in=4 * width)
        return Weights(Filter(stem, layers.norm(3 * channels)), tuple(cells), head)

    template = jax.eval_shape(init, jax.random.key(0))

    def use(decisions: Array) -> Weights:
        reads, operations = space.reads(decisions), space.operations(decisions)
        whole = Use(None, jnp.array(True))
        # A row of the shared pairs belongs to (block, which of its two operations, what it reads).
        start = [[2 * firsts[b] + half * (b + 2) for half in (0, 1)] for b in range(blocks)]

        def cell(number, weights):
            kind = int(number in reducing)
            rows = (jnp.array(start, jnp.int32) + reads[kind]).reshape(-1)
            chosen = operations[kind].reshape(-1)
            loose = _loose(reads[kind], blocks) > 0
            of = jax.tree.map(lambda _: whole, weights)
            pairs = [
                jax.tree.map(lambda _, name=name: Use(rows, chosen == OPERATIONS.index(name)), tree)
                for name, tree in (("sep_3x3", weights.sep_3x3), ("sep_5x5", weights.sep_5x5))
            ]
            kernel = Use(jnp.arange(blocks + 2, dtype=jnp.int32), loose)
            return of._replace(
                sep_3x3=pairs[0], sep_5x5=pairs[1], leave=of.leave._replace(kernel=kernel)
            )

        cells = tuple(cell(number, weights) for number, weights in enumerate(template.cells))
        stem = jax.tree.map(lambda _: whole, template.stem)
        return Weights(stem, cells, whole)

    def features(used: Weights, decisions: Array, images: Array) -> Array:
        """[B, C] what the head reads: scans over the operations of a cell, which share a buffer."""
        reads, operations = space.reads(decisions), space.operations(decisions)
        last = layers.normalise(layers.convolve(images, used.stem.kernel), used.stem.norm)
        before = last
        for number, cell in enumerate(used.cells):
            kind = int(number in reducing)
            if cell.before is not None:
                before, last = last, layers.reduce(last, cell.before)
            inputs = tuple(map(_alike, (before, last), cell.inputs))
            before, last = last, _cell(cell, reads[kind], operations[kind], inputs)
        return jnp.mean(jax.nn.relu(last), axis=(1, 2))

    def program(decisions: Array) -> tuple[Array, ...]:
        return space.reads(decisions), space.operations(decisions), jnp.int32(total)

    def multiply_adds(decisions) -> float:
        """For one image, forward: of the chosen operations and of all that surrounds them."""
        operations = space.operations(decisions)
        loose = space.loose_ends(decisions)[0].sum(axis=1)
        width, side = channels, shape.size
        found = side**2 * 9 * shape.channels * 3 * channels
        for number, cell in enumerate(template.cells):
            kind = int(number in reducing)
            if cell.before is not None:
                width, side = 2 * width, -(-side // 2)
                found += side**2 * sum(leaf.size for leaf in (cell.before.even, cell.before.odd))
            for of in cell.inputs:
                if of is not None:
                    matrices = (of.kernel,) if isinstance(of, Filter) else (of.even, of.odd)
                    found += side**2 * sum(leaf.size for leaf in matrices)
            per_pixel = {
                "sep_3x3": 2 * (9 + width) * width,
                "sep_5x5": 2 * (25 + width) * width,
                "avg_3x3": 9 * width,
                "max_3x3": 9 * width,
                "identity": 0,
            }
            chosen = operations[kind].reshape(-1)
            found += side**2 * sum(per_pixel[OPERATIONS[operation]] for operation in chosen)
            found += side**2 * loose[kind] * width**2
        return found + width * shape.classes

    return init, use, features, program, multiply_adds, template


def _pairs(key, rows, size, width):
    depth, point = jax.random.split(key)
    filters = Separable(
        layers.kernel(depth, rows, 2, size, size, width, fan_in=size**2),
        layers.kernel(point, rows, 2, width, width, fan_in=width),
    )
    return Pairs(filters, layers.norm(rows, 2, width))


def _loose(reads, blocks):
    """[B + 2] float32, 1 where no block reads an input or block."""
    return jnp.ones(blocks + 2).at[reads.reshape(-1)].set(0.0)


def _alike(x, by):
    if by is None:
        return x
    x = jax.nn.relu(x)
    if isinstance(by, Reduction):
        return layers.reduce(x, by)
    return layers.normalise(x @ by.kernel, by.norm)


def _cell(cell, reads, operations, inputs):
    blocks = len(reads)
    zeros = jnp.zeros((blocks, *inputs[0].shape))
    nodes = jnp.concatenate([jnp.stack(inputs), zeros])

    def operation(nodes, x):
        place, read, operation, sep_3x3, sep_5x5 = x
        found = jax.lax.dynamic_index_in_dim(nodes, read, keepdims=False)
        out = _chosen(operation, found, {"sep_3x3": sep_3x3, "sep_5x5": sep_5x5})
        return nodes.at[place].add(out), None

    places = jnp.repeat(jnp.arange(blocks, dtype=jnp.int32) + 2, 2)
    steps = places, reads.reshape(-1), operations.reshape(-1), cell.sep_3x3, cell.sep_5x5
    nodes, _ = jax.lax.scan(operation, nodes, steps)
    kernel = cell.leave.kernel * _loose(reads, blocks)[:, None, None]
    out = jnp.einsum("nbhwc,ncd->bhwd", jax.nn.relu(nodes), kernel)
    return layers.normalise(out, cell.leave.norm)


def _pair(x, by: Pairs):
    for half in range(2):
        filters, norm = jax.tree.map(lambda leaf: leaf[half], by)  # noqa: B023
        x = layers.normalise(layers.separable(jax.nn.relu(x), filters), norm)
    return x


_chosen = layers.choose(
    (
        _pair,
        _pair,
        lambda x, _: layers.average(x),
        lambda x, _: layers.maximum(x),
        lambda x, _: x,
    ),
    _USES,
)
