"""The image networks written down plainly in numpy, one architecture at a time: the oracle of every
other form of them.
"""

import numpy as np

_MACRO = ("conv_3x3", "sep_3x3", "conv_5x5", "sep_5x5", "avg_3x3", "max_3x3")
_MICRO = ("sep_3x3", "sep_5x5", "avg_3x3", "max_3x3", "identity")


def macro_logits(weights, decisions, images, layers):
    """[B, classes] of weights that are shared, `nas.supernets.images.macro.Weights`."""
    outputs = [_bn(_conv(images, weights.stem.kernel), weights.stem.norm)]
    numbers, reductions = iter(int(d) for d in decisions), iter(weights.reductions)
    for k in range(layers):
        operation = next(numbers)
        skips = [next(numbers) for _ in range(k)]
        row = 6 * k + operation
        name = _MACRO[operation]
        x = _relu(_bn(outputs[k] @ weights.enter.kernel[row], _at(weights.enter.norm, row)))
        if name.startswith("conv"):
            x = _conv(x, getattr(weights, name)[k])
        elif name.startswith("sep"):
            of = getattr(weights, name)
            x = _depthwise(x, of.depth[k]) @ of.point[k]
        else:
            x = _pool(x, name)
        if operation < 4:
            x = _relu(_bn(x, _at(weights.leave, row)))
        x = x + sum(output for output, skip in zip(outputs, skips, strict=False) if skip)
        outputs.append(_bn(x, _at(weights.join, k)))
        if k + 1 in (layers // 3, 2 * layers // 3):
            by = next(reductions)
            outputs = [
                _reduce(x, by.even[j], by.odd[j], _at(by.norm, j)) for j, x in enumerate(outputs)
            ]
    return outputs[-1].mean(axis=(1, 2)) @ weights.head


def micro_logits(weights, decisions, images, blocks, normal_cells):
    """[B, classes] of weights that are shared, `nas.supernets.images.micro.Weights`."""
    kinds = np.asarray(decisions).reshape(2, blocks, 2, 2)
    before = last = _bn(_conv(images, weights.stem.kernel), weights.stem.norm)
    reducing = (normal_cells // 3, 2 * (normal_cells // 3) + 1)
    for number, cell in enumerate(weights.cells):
        if number in reducing:
            by = cell.before
            before, last = last, _reduce(last, by.even, by.odd, by.norm)
        nodes = [_alike(x, by) for x, by in zip((before, last), cell.inputs, strict=True)]
        unread, row = set(range(blocks + 2)), 0
        for b, block in enumerate(kinds[int(number in reducing)]):
            total = 0
            for read, operation in block:
                unread.discard(int(read))
                name, x = _MICRO[operation], nodes[read]
                if name.startswith("sep"):
                    of = getattr(cell, name)
                    for half in (0, 1):
                        x = _depthwise(_relu(x), of.filters.depth[row + read][half])
                        x = x @ of.filters.point[row + read][half]
                        x = _bn(x, _at(_at(of.norm, row + read), half))
                elif name != "identity":
                    x = _pool(x, name)
                total = total + x
                row += b + 2
            nodes.append(total)
        out = sum(_relu(nodes[i]) @ cell.leave.kernel[i] for i in unread)
        before, last = last, _bn(out, cell.leave.norm)
    return _relu(last).mean(axis=(1, 2)) @ weights.head


def cross_entropy(logits, labels):
    """[] mean over images."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - picked))


def _at(norm, row):
    return type(norm)(norm.scale[row], norm.offset[row])


def _relu(x):
    return np.maximum(x, 0)


def _bn(x, norm):
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * norm.scale + norm.offset


def _shifts(x, size, value=0.0):
    """(row, column, x seen from there) of every place of a window."""
    border = size // 2
    around = ((0, 0), (border, border), (border, border), (0, 0))
    padded = np.pad(x, around, constant_values=value)
    _, height, width, _ = x.shape
    for row in range(size):
        for column in range(size):
            yield row, column, padded[:, row : row + height, column : column + width]


def _conv(x, kernel):
    return sum(seen @ kernel[row, column] for row, column, seen in _shifts(x, len(kernel)))


def _depthwise(x, kernel):
    return sum(seen * kernel[row, column] for row, column, seen in _shifts(x, len(kernel)))


def _pool(x, name):
    if name == "max_3x3":
        return np.max([seen for _, _, seen in _shifts(x, 3, -np.inf)], axis=0)
    total = sum(seen for _, _, seen in _shifts(x, 3))
    return total / sum(seen for _, _, seen in _shifts(np.ones_like(x), 3))


def _reduce(x, even, odd, norm):
    shifted = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    halves = x[:, ::2, ::2] @ even, shifted[:, ::2, ::2] @ odd
    return _bn(np.concatenate(halves, axis=-1), norm)


def _alike(x, by):
    if by is None:
        return x
    if hasattr(by, "even"):
        return _reduce(_relu(x), by.even, by.odd, by.norm)
    return _bn(_relu(x) @ by.kernel, by.norm)
