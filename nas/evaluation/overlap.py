"""Position-aware similarities of architectures: how much two decision vectors have in common.

Functions of pairs compare the pairs within blocks of `block` architectures (None: all pairs), and
return them in the order of `nas.evaluation.blocks`.
"""

import numpy as np
from scipy.spatial.distance import pdist

from nas.evaluation.blocks import within
from nas.spaces import SearchSpace


def common_decisions(
    space: SearchSpace, decisions: np.ndarray, *kinds: str, block: int | None = None
) -> np.ndarray:
    """[P] number of positions of these kinds at which a pair decided the same; positions without a
    choice are left out.
    """
    positions = np.concatenate([space.positions(kind) for kind in kinds])
    return len(positions) - _count_different(space.validate(decisions)[:, positions], block)


def common_labelled_edges(
    space: SearchSpace, decisions: np.ndarray, *, block: int | None = None
) -> np.ndarray:
    """[P] number of edges that both of a pair have and whose head has the same label in both, over
    all parts.

    Edges are compared by the positions of their nodes. Edges from inputs count; edges to the output
    do not, since they decide nothing. This is the paper's "common activations", as its code appears
    to count them: nodes with the same parent and activation.
    """
    heads = [
        (adjacency & (labels == label)[:, None, :]).reshape(len(labels), -1)
        for adjacency, labels in space.graphs(decisions, io=True)
        for label, name in enumerate(space.label_names)
        if name != space.io_labels[-1]
    ]

    def compare(edges):
        edges = edges.astype(np.float32)
        return (edges @ edges.T)[np.triu_indices(len(edges), 1)].round().astype(int)

    return within(compare, np.concatenate(heads, axis=1), block)


def feature_difference(feature: np.ndarray, *, block: int | None = None) -> np.ndarray:
    """[P] |difference| of one number per architecture [n]."""
    column = np.asarray(feature, float)[:, None]
    return within(lambda values: pdist(values, "cityblock"), column, block)


def one_hot(space: SearchSpace, decisions: np.ndarray) -> np.ndarray:
    """[n, sum of choices] float: the decisions themselves as a vector; its L2 distance orders pairs
    by total overlap.
    """
    choices = zip(space.validate(decisions).T, space.num_choices, strict=True)
    return np.concatenate([np.eye(count)[column] for column, count in choices], axis=1)


def random_projection(
    space: SearchSpace, decisions: np.ndarray, width: int, seed: int = 0
) -> np.ndarray:
    """[n, width]: `one_hot` times a Gaussian matrix: an embedding that encodes every decision and
    has learned nothing.
    """
    encoded = one_hot(space, decisions)
    return (
        encoded
        @ np.random.default_rng(seed).standard_normal((encoded.shape[1], width))
        / np.sqrt(width)
    )


def _count_different(columns, block):
    count = columns.shape[1]
    if count == 0:  # a cell of two nodes has no connection to choose
        return within(lambda rows: np.zeros(len(rows) * (len(rows) - 1) // 2, int), columns, block)
    return within(lambda rows: np.rint(pdist(rows, "hamming") * count).astype(int), columns, block)
