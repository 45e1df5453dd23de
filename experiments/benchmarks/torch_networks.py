"""The image networks once more, as one would write them in PyTorch, to time ours against.

Weights are those of `nas.supernets.images`; an architecture's losses are the same up to rounding. A
tensor is [B, C, H, W].
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nas.spaces.macro import OPERATIONS as MACRO
from nas.spaces.micro import OPERATIONS as MICRO
from nas.supernets.images import macro, micro

Loss = Callable[[np.ndarray, torch.Tensor, torch.Tensor], torch.Tensor]


def macro_network(weights: macro.Weights, layers: int) -> tuple[list[torch.Tensor], Loss]:
    """Parameters, and (decisions [T], images, labels) -> [] mean cross-entropy."""
    shelf = _Shelf()
    stem = shelf.filter(weights.stem)
    rows = len(MACRO) * layers
    enter, leave = shelf.filters(weights.enter, rows), shelf.norms(weights.leave, rows)
    join = shelf.norms(weights.join, layers)
    kernels = {
        name: [shelf.kernel(kernel) for kernel in getattr(weights, name)]
        for name in ("conv_3x3", "conv_5x5")
    }
    kernels |= {
        name: shelf.separables(getattr(weights, name), layers) for name in ("sep_3x3", "sep_5x5")
    }
    reductions = [shelf.reductions(by) for by in weights.reductions]
    head = shelf.tensor(weights.head)
    ends = layers // 3, 2 * layers // 3

    def loss(decisions, images, labels):
        outputs = [_filter(images, *stem)]
        numbers, halvings = iter(decisions.tolist()), iter(reductions)
        for k in range(layers):
            operation = next(numbers)
            name, row = MACRO[operation], operation + len(MACRO) * k
            x = F.relu(_filter(outputs[k], *enter[row]))
            if name.startswith("conv"):
                x = _convolve(x, kernels[name][k])
            elif name.startswith("sep"):
                x = _separable(x, *kernels[name][k])
            else:
                x = _pool(x, name)
            if not name.endswith(("avg_3x3", "max_3x3")):
                x = F.relu(_normalise(x, *leave[row]))
            for output in outputs[:k]:
                if next(numbers):
                    x = x + output
            outputs.append(_normalise(x, *join[k]))
            if k + 1 in ends:
                outputs = [_reduce(x, *by) for x, by in zip(outputs, next(halvings), strict=True)]
        return F.cross_entropy(outputs[-1].mean(dim=(2, 3)) @ head, labels)

    return shelf.parameters, loss


def micro_network(weights: micro.Weights, blocks: int) -> tuple[list[torch.Tensor], Loss]:
    """The same of a micro network, as `macro_network`."""
    shelf = _Shelf()
    stem = shelf.filter(weights.stem)
    cells = []
    for cell in weights.cells:
        rows = len(cell.sep_3x3.norm.scale)
        pairs = {
            name: (
                shelf.pairs(getattr(cell, name).filters, rows),
                [shelf.norms(_row(getattr(cell, name).norm, i), 2) for i in range(rows)],
            )
            for name in ("sep_3x3", "sep_5x5")
        }
        before = cell.before and shelf.reduction(cell.before)
        inputs = [by and shelf.alike(by) for by in cell.inputs]
        leave = [shelf.kernel(kernel) for kernel in cell.leave.kernel]
        cells.append((before, inputs, pairs, leave, shelf.norm(cell.leave.norm)))
    head = shelf.tensor(weights.head)

    def loss(decisions, images, labels):
        kinds = decisions.reshape(2, blocks, 2, 2).tolist()
        before = last = _filter(images, *stem)
        for halving, inputs, pairs, leave, norm in cells:
            if halving:
                before, last = last, _reduce(last, *halving)
            nodes = [_alike(x, by) for x, by in zip((before, last), inputs, strict=True)]
            unread, row = set(range(blocks + 2)), 0
            for b, block in enumerate(kinds[halving is not None]):
                total = 0
                for read, operation in block:
                    unread.discard(read)
                    name, x = MICRO[operation], nodes[read]
                    if name.startswith("sep"):
                        filters, norms = pairs[name]
                        for half in (0, 1):
                            x = _separable(F.relu(x), *filters[row + read][half])
                            x = _normalise(x, *norms[row + read][half])
                    elif name != "identity":
                        x = _pool(x, name)
                    total = total + x
                    row += b + 2
                nodes.append(total)
            loose = sorted(unread)
            joined = F.relu(torch.cat([nodes[i] for i in loose], dim=1))
            kernel = torch.cat([leave[i] for i in loose], dim=1)
            before, last = last, _normalise(_convolve(joined, kernel), *norm)
        return F.cross_entropy(F.relu(last).mean(dim=(2, 3)) @ head, labels)

    return shelf.parameters, loss


class _Shelf:
    """Makes parameters from arrays of weights, and keeps them all."""

    def __init__(self):
        self.parameters = []

    def tensor(self, array: Any) -> torch.Tensor:
        self.parameters.append(torch.tensor(np.asarray(array), requires_grad=True))
        return self.parameters[-1]

    def kernel(self, array):
        """[out, in, height, width] from [height, width, in, out] or [in, out]."""
        array = np.asarray(array)
        array = array.reshape(1, 1, *array.shape) if array.ndim == 2 else array
        return self.tensor(np.ascontiguousarray(array.transpose(3, 2, 0, 1)))

    def depth(self, array):
        array = np.asarray(array).transpose(2, 0, 1)
        return self.tensor(np.ascontiguousarray(array[:, None]))

    def norm(self, norm):
        return self.tensor(norm.scale), self.tensor(norm.offset)

    def norms(self, norm, rows):
        return [self.norm(_row(norm, i)) for i in range(rows)]

    def filter(self, by):
        return self.kernel(by.kernel), *self.norm(by.norm)

    def filters(self, by, rows):
        return [self.filter(_row(by, i)) for i in range(rows)]

    def separables(self, by, rows):
        return [(self.depth(by.depth[i]), self.kernel(by.point[i])) for i in range(rows)]

    def pairs(self, by, rows):
        return [self.separables(_row(by, i), 2) for i in range(rows)]

    def reduction(self, by):
        return self.kernel(by.even), self.kernel(by.odd), *self.norm(by.norm)

    def reductions(self, by):
        return [self.reduction(_row(by, i)) for i in range(len(by.even))]

    def alike(self, by):
        return self.reduction(by) if hasattr(by, "even") else self.filter(by)


def _row(tree, i):
    return type(tree)(*(leaf[i] if hasattr(leaf, "shape") else _row(leaf, i) for leaf in tree))


def _convolve(x, kernel, groups=1):
    return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=groups)


def _normalise(x, scale, offset):
    return F.batch_norm(x, None, None, scale, offset, training=True, eps=1e-5)


def _filter(x, kernel, scale, offset):
    return _normalise(_convolve(x, kernel), scale, offset)


def _separable(x, depth, point):
    return _convolve(_convolve(x, depth, groups=x.shape[1]), point)


def _pool(x, name):
    if name == "max_3x3":
        return F.max_pool2d(x, 3, stride=1, padding=1)
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _reduce(x, even, odd, scale, offset):
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [F.conv2d(x, even, stride=2), F.conv2d(shifted, odd, stride=2)]
    return _normalise(torch.cat(halves, dim=1), scale, offset)


def _alike(x, by):
    if by is None:
        return x
    return _reduce(F.relu(x), *by) if len(by) == 4 else _filter(F.relu(x), *by)
