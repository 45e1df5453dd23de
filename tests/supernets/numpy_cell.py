"""The recurrent cell in numpy, a sequence, a token and a node at a time; and problems on which it
has to agree with the network."""

from typing import NamedTuple

import jax
import numpy as np

PAPERS_CELL = [0, 0, 0, 1, 1, 2, 1, 2, 0, 2, 0, 5, 1, 1, 0, 6, 1, 8, 1, 8, 1, 8, 1]


VOCABULARY, WIDTH, ROWS, STEPS = 11, 5, 3, 4


MAX_NORM = 1.0  # some states of the problems below are longer, some are not


class Masks(NamedTuple):
    """Variational dropout of B sequences, [B, H] each: on x, on h as node 0's matrix sees it, on
    what the softmax reads.
    """

    input: np.ndarray
    hidden: np.ndarray
    output: np.ndarray


def sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


NUMPY_ACTIVATIONS = (np.tanh, lambda x: np.maximum(x, 0.0), lambda x: x, sigmoid)


def numpy_node(activation, pre, parent):
    """c * f(candidate) + (1 - c) * parent; `pre` is what the matrices give: the gate's half, then
    the candidate's.
    """
    gate, candidate = pre[: len(parent)], pre[len(parent) :]
    c = sigmoid(gate)
    return c * NUMPY_ACTIVATIONS[activation](candidate) + (1 - c) * parent


def numpy_matrices(weights, nodes):
    """(j, i) -> the matrix between these nodes; stored after node 0's: (0, 1), (0, 2), (1, 2), (0,
    3), ...
    """
    pairs = [(j, i) for i in range(1, nodes) for j in range(i)]
    return dict(zip(pairs, weights["recurrent"][1:], strict=True))


def numpy_cell(weights, decisions, x, h, mask):
    """The mean of the loose ends, for one input x and one state h."""
    f = decisions[0::2]
    parent_of = dict(enumerate(decisions[1::2], start=1))
    between = numpy_matrices(weights, len(f))
    nodes = [numpy_node(f[0], x @ weights["input"] + (h * mask) @ weights["recurrent"][0], h)]
    for i, j in parent_of.items():
        nodes.append(numpy_node(f[i], nodes[j] @ between[j, i], nodes[j]))
    return np.mean([value for i, value in enumerate(nodes) if i not in parent_of.values()], axis=0)


def numpy_loss(weights, decisions, tokens, hidden, max_norm, masks=None):
    """Mean nats a token, the states after the last input [B, H], and the norms of all states before
    clipping.
    """
    nats, last, norms = [], [], []
    for b, row in enumerate(tokens):
        h = hidden[b]
        on_input, on_hidden, on_output = (mask[b] for mask in masks) if masks else (1.0, 1.0, 1.0)
        for token, target in zip(row[:-1], row[1:], strict=True):
            h = numpy_cell(weights, decisions, weights["embedding"][token] * on_input, h, on_hidden)
            norms.append(np.linalg.norm(h))
            if max_norm and norms[-1] > max_norm:
                h = h * max_norm / norms[-1]
            logits = weights["embedding"] @ (h * on_output) + weights["bias"]
            nats.append(np.logaddexp.reduce(logits) - logits[target])
        last.append(h)
    return np.mean(nats), np.array(last), np.array(norms)


class Problem(NamedTuple):
    """Weights and data, float64."""

    weights: dict[str, np.ndarray]
    tokens: np.ndarray  # [ROWS, STEPS + 1] int32
    hidden: np.ndarray  # [ROWS, WIDTH]
    masks: Masks


def problem(nodes, seed=0, *, vocabulary=VOCABULARY, width=WIDTH, rows=ROWS, steps=STEPS):
    rng = np.random.default_rng(seed)
    weights = {
        "embedding": rng.normal(scale=0.8, size=(vocabulary, width)),
        "bias": rng.normal(size=vocabulary),
        "input": rng.normal(scale=0.8, size=(width, 2 * width)),
        "recurrent": rng.normal(scale=0.8, size=(1 + nodes * (nodes - 1) // 2, width, 2 * width)),
    }
    keep = (0.8, 0.5, 0.7)
    masks = Masks(*(rng.binomial(1, p, size=(rows, width)) / p for p in keep))
    tokens = rng.integers(vocabulary, size=(rows, steps + 1), dtype=np.int32)
    return Problem(weights, tokens, rng.normal(size=(rows, width)), masks)


def random_decisions(space, n, seed=0):
    choices = np.array(space.num_choices)
    return np.random.default_rng(seed).integers(choices, size=(n, len(choices)), dtype=np.int32)


def single_precision(tree):
    return jax.tree.map(
        lambda leaf: leaf.astype(np.float32) if leaf.dtype.kind == "f" else leaf, tree
    )
