"""Relabelled copies of a recurrent cell: the same function with its nodes numbered otherwise.

Node 0 stays, and parents keep their place before children. Under shared weights the copies use
different matrices.
"""

import numpy as np

from nas.spaces.recurrent import RecurrentSpace


def relabelled(
    space: RecurrentSpace, decisions: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """[m, T] different copies of decisions [T], each of all that there are equally likely; m < n
    where there are fewer.

    A numbering is drawn by taking, of the nodes whose parent is numbered, each with a chance in
    proportion to the number of its descendants and itself: every numbering of a tree is then
    equally likely (Knuth's hook lengths). Numberings that give the same decisions are equally many
    for each copy.
    """
    decisions = space.validate(decisions)[0]
    parents = space.parents(decisions)
    sizes = np.ones(space.num_nodes)
    for node in range(space.num_nodes - 1, 0, -1):
        sizes[parents[node - 1]] += sizes[node]
    copies = {}
    for _ in range(_TRIES * n):
        copy = _renumber(space, decisions, _order(parents, sizes, rng))
        copies.setdefault(copy.tobytes(), copy)
        if len(copies) == n:
            break
    return np.stack(list(copies.values()))


_TRIES = 20  # draws a copy that is asked for


def _order(parents, sizes, rng):
    """[N] nodes in a random order that starts with 0 and has parents before children."""
    order = [0]
    ready = np.flatnonzero(parents == 0) + 1
    while len(ready):
        node = rng.choice(ready, p=sizes[ready] / sizes[ready].sum())
        order.append(int(node))
        ready = np.concatenate([ready[ready != node], np.flatnonzero(parents == node) + 1])
    return order


def _renumber(space, decisions, order):
    """The decisions [T] of the cell whose node k is node order[k] of the given one."""
    copy = np.empty_like(decisions)
    space.activations(copy)[:] = space.activations(decisions)[order]
    space.parents(copy)[:] = np.argsort(order)[space.parents(decisions)[np.array(order[1:]) - 1]]
    return copy
