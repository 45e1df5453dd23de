"""The search behind the exact graph edit distance: depth-first branch and bound over bijections,
compiled by numba.

With unit costs the smaller graph never deletes a node, so it is padded with isolated dummies until
both have n nodes, and

    distance = minimum over bijections p of
               label mismatches + |E1| + |E2| - 2 * (edges that p maps onto edges).

**Bound.** A search node has matched some pairs x -> y. For each pair (u, v) of free nodes, in half
units so that an edge can be shared between its two ends:

    C(u, v) = 2 [labels differ]
            + 2 (edges between u and a matched x) xor (edges between v and its image y), both ways
            + tail * |out(u) - out(v)| + head * |in(u) - in(v)|

with out and in the degrees among the free nodes, and tail + head = 2.

If u -> v, at least |out(u) - out(v)| edges that leave u or v have no counterpart. An edge without
counterpart has one tail and one head, so it is charged at most tail + head = 2 half units: what it
costs. Hence the cost of what is matched plus the minimum-cost assignment of C bounds every
completion from below. Trees differ in their out-degrees only: (tail, head) = (2, 0), every edge
charged to its tail, is best for cells; dense graphs do better with (1, 1). Whichever gives the root
the higher bound is kept.

**Warm start.** Matching x -> y can only raise the other entries of C (an edge to x was counted in a
difference of degrees, and is now counted exactly), so the dual prices of the assignment stay
feasible: a search node copies its parent's reduced costs, raises them and repairs the assignment. A
reduced cost also bounds what its pair adds: bound + reduced cost > limit means that no completion
with this pair improves on the best bijection so far.

**Branching** on the row (node of the first graph) or column (node of the second) with the fewest
pairs that survive this test, on sparse graphs hubs first; then cheapest pair first. Of nodes that
an automorphism swaps (twins, such as the dummies) only one is tried.

Every assignment is a bijection, so its cost is an upper bound; the root's is improved by swapping
images. Rows of C are `Lanes`.
"""

from typing import NamedTuple

import numpy as np

from nas.evaluation.compiled import compiled
from nas.evaluation.edit_distance.lanes import (
    at_most,
    below,
    equal,
    forbidden,
    load,
    lowest,
    maximum,
    minimum,
    popcount,
    smallest,
    splat,
    store,
    total,
    where,
)

# Constants that are passed to compiled functions have a type: for each literal argument numba would
# compile the function once more.
_ZERO, _ONE, _TWO = np.int64(0), np.int64(1), np.int64(2)
_HUGE = np.int64(1 << 40)
_COLUMN = 64  # added to the index of a branching line that is a column

_compiled, _inlined = compiled(), compiled(forceinline=True)


class _Graph(NamedTuple):
    """One graph of a pair; sets of nodes are bits of an int64."""

    successors: np.ndarray  # [M] int64
    predecessors: np.ndarray  # [M] int64
    # [M] int64; nodes of lower index that an automorphism swaps with this one, all others fixed
    twins: np.ndarray


class Workspace(NamedTuple):
    """Memory of one worker. Each of the M + 1 levels of the search (numbers of matched pairs) has a
    row or block of its own.
    """

    substitution: np.ndarray  # [M, lanes]; 0, 1 or half of forbidden
    # [(M + 1) M, lanes]; reduced costs, non-negative; forbidden in columns that are matched
    costs: np.ndarray
    # [2 (M + 1), lanes]; out- and in-degrees of the second graph among the free nodes
    degrees: np.ndarray
    # [M + 1, lanes]; reduced costs along the branching line, forbidden where done
    children: np.ndarray
    scratch: np.ndarray  # [2, lanes]
    columns: np.ndarray  # [M + 1, M] int64; the column that the assignment gives to each row, or -1
    rows: np.ndarray  # [M] int64; its inverse
    free_rows: np.ndarray  # [M + 1] int64 set
    free_columns: np.ndarray  # [M + 1] int64 set
    bounds: np.ndarray  # [M + 1] int64, half units
    lines: np.ndarray  # [M + 1] int64; the branching line
    matched: np.ndarray  # [2, M + 1] int64; row and column matched below this level
    hubs: np.ndarray  # [2, M] int64; how much each row or column is preferred for branching
    # [2, M] int64; successors and predecessors of the second graph, numbered as in the first
    images: np.ndarray
    mapping: np.ndarray  # [M] int64; a bijection


def make_workspace(max_nodes: int, token: np.unsignedinteger) -> Workspace:
    """A workspace for graphs of up to `max_nodes` nodes, with as many lanes as `token` has bits."""
    lanes, levels = 8 * token.itemsize, max_nodes + 1
    row_counts = (max_nodes, levels * max_nodes, 2 * levels, levels, 2)
    shapes = (
        (levels, max_nodes),
        max_nodes,
        levels,
        levels,
        levels,
        levels,
        (2, levels),
        (2, max_nodes),
        (2, max_nodes),
        max_nodes,
    )
    return Workspace(
        *(np.zeros((count, lanes), cost_dtype(token)) for count in row_counts),
        *(np.zeros(shape, np.int64) for shape in shapes),
    )


def cost_dtype(token: np.unsignedinteger) -> type:
    """The type of costs and labels that goes with `token`."""
    return np.int16 if token.itemsize == 2 else np.int32


@_compiled
def search_pairs(
    token, work, graphs, first, second, max_searched, interrupt, lower, upper, searched
):
    """Compares graphs first[k] and second[k] for every k.

    Args:
      token: np.uint16(0) for graphs of at most 16 nodes, np.uint64(0) for at most 64.
      work: a `Workspace` made with this token.
      graphs: tuple of sizes [K] int64; successors, predecessors, twins [K, M] int64; labels [K,
        lanes] of the workspace's type; the number of forced labels, which are the smallest; and the
        step between the distances that a pair can have.
      max_searched: search nodes after which a pair is left open.
      interrupt: [1] int64; another thread sets it to stop at once, with results that mean nothing.
      lower, upper: [k] int32, filled with bounds, which are equal unless the pair was left open.
      searched: [k] int64, filled with the number of search nodes.
    """
    sizes, successors, predecessors, twins, labels, num_forced, step = graphs
    for k in range(len(first)):
        i, j = first[k], second[k]
        a = _Graph(successors[i], predecessors[i], twins[i])
        b = _Graph(successors[j], predecessors[j], twins[j])
        n = max(sizes[i], sizes[j])
        _fill_substitution(token, work, n, labels, i, j, num_forced)
        lower[k], upper[k], searched[k] = _search(
            token, work, a, b, n, num_forced, step, max_searched, interrupt
        )
        if interrupt[0]:
            return


@_compiled
def find_twins(successors, predecessors, labels, twins):
    """Fills `twins` [n, M] for n graphs (see `_Graph`)."""
    n, num_nodes = successors.shape
    for i in range(n):
        outs, ins = successors[i], predecessors[i]
        for v in range(num_nodes):
            twins[i, v] = 0
            for u in range(v):
                if (
                    labels[i, u] == labels[i, v]
                    and outs[u] == _swap(outs[v], u, v)
                    and ins[u] == _swap(ins[v], u, v)
                ):
                    twins[i, v] |= 1 << u


@_compiled
def _search(token, work, a, b, n, num_forced, step, max_searched, interrupt):
    """Returns lower bound, upper bound, number of search nodes."""
    if n == 0:
        return 0, 0, 0
    edges = _ZERO
    for u in range(n):
        edges += popcount(a.successors[u]) + popcount(b.successors[u])
    shared_bound, root = _start(token, work, a, b, n, _ONE, num_forced)
    root_bound, root = _start(token, work, a, b, n, _TWO, num_forced)
    tail = _TWO
    if shared_bound > root_bound:
        tail = _ONE
        root_bound, root = _start(token, work, a, b, n, tail, num_forced)
    _complete(work, root)
    upper = _improve_by_swaps(work, a, b, n, _cost(work, a, b, n, edges))
    limit = 2 * (upper - step)  # in half units: a bound above it rules out an improvement
    searched = 1
    sparse = edges <= 3 * n
    for u in range(n):
        # On sparse graphs each edge of a node weighs as much as an eighth of a child. On dense
        # ones degrees say little.
        work.hubs[0, u] = popcount(a.successors[u]) + popcount(a.predecessors[u]) if sparse else 0
        work.hubs[1, u] = popcount(b.successors[u]) + popcount(b.predecessors[u]) if sparse else 0
    level = (
        root
        if root_bound <= limit and _choose_line(token, work, a, b, n, root, limit)
        else root - 1
    )
    while level >= root:
        if interrupt[0]:
            break
        if searched >= max_searched:
            lower = (_open_bound(token, work, root, level) + 1) // 2
            return min(upper, lower + (upper - lower) % step), upper, searched
        children = load(token, work.children, level)
        rise = smallest(children)
        if rise > limit - work.bounds[level]:
            level -= 1
            continue
        child = lowest(at_most(children, rise))
        work.children[level, child] = forbidden(token)
        line = work.lines[level]
        x, y = (line, child) if line < _COLUMN else (child, line - _COLUMN)
        searched += 1
        _match(token, work, a, b, n, level, x, y, tail, rise)
        if not _assign(token, work, n, level + 1, limit):
            continue
        _complete(work, level + 1)
        cost = _cost(work, a, b, n, edges)
        if cost < upper:
            upper = cost
            limit = 2 * (upper - step)
            if root_bound > limit:
                break
        if work.bounds[level + 1] <= limit and _choose_line(token, work, a, b, n, level + 1, limit):
            level += 1
    return upper, upper, searched


@_compiled
def _start(token, work, a, b, n, tail, num_forced):
    """Sets up the first level: pairs that leave no choice are matched, the rest assigned. Returns
    its bound and the level.
    """
    nodes = (2 << (n - 1)) - 1
    for v in range(n):
        work.degrees[0, v] = popcount(b.successors[v])
        work.degrees[1, v] = popcount(b.predecessors[v])
    out_degrees, in_degrees = load(token, work.degrees, 0), load(token, work.degrees, 1)
    for u in range(n):
        row = load(token, work.substitution, u)
        out_difference = _absolute(out_degrees - popcount(a.successors[u]))
        in_difference = _absolute(in_degrees - popcount(a.predecessors[u]))
        row = row + row + out_difference + (out_difference if tail == 2 else in_difference)
        store(work.costs, u, where(nodes, row, forbidden(token)))
        work.columns[0, u] = -1
    work.free_rows[0] = nodes
    work.free_columns[0] = nodes
    work.bounds[0] = 0
    level = _ZERO
    if num_forced:
        for u in range(n):
            row = load(token, work.costs, level * n + u)
            allowed = at_most(row, forbidden(token) // 2 - 1)
            if popcount(allowed) == 1:
                _match(token, work, a, b, n, level, u, lowest(allowed), tail, smallest(row))
                level += 1
    _assign(token, work, n, level, _HUGE)
    return work.bounds[level], level


@_compiled
def _match(token, work, a, b, n, level, x, y, tail, rise):
    """Matches x -> y, whose reduced cost is `rise`: fills the next level from this one, all but its
    assignment.
    """
    head = 2 - tail
    rows, columns = work.free_rows[level], work.free_columns[level]
    # C(x, y) counted edges to free nodes as differences of degrees. They are now counted exactly,
    # at their other end.
    returned = tail * abs(popcount(a.successors[x] & rows) - popcount(b.successors[y] & columns))
    returned += head * abs(
        popcount(a.predecessors[x] & rows) - popcount(b.predecessors[y] & columns)
    )
    work.bounds[level + 1] = work.bounds[level] + rise - returned
    work.matched[0, level] = x
    work.matched[1, level] = y
    out_degrees, in_degrees = (
        load(token, work.degrees, 2 * level),
        load(token, work.degrees, 2 * level + 1),
    )
    to_y, from_y = b.predecessors[y], b.successors[y]
    store(work.degrees, 2 * level + 2, out_degrees - where(to_y, splat(token, 1), 0))
    store(work.degrees, 2 * level + 3, in_degrees - where(from_y, splat(token, 1), 0))
    left_rows, left_columns = rows & ~(1 << x), columns & ~(1 << y)
    work.free_rows[level + 1] = left_rows
    work.free_columns[level + 1] = left_columns
    # u -> x without v -> y, or the reverse, costs 2. Without it the out-degrees of u and v differ
    # by one less, or by one more.
    closer_out, farther_out = splat(token, 2 - tail), splat(token, 2 + tail)
    closer_in, farther_in = splat(token, 2 - head), splat(token, 2 + head)
    todo = left_rows
    while todo:
        u = lowest(todo)
        todo &= todo - 1
        row = load(token, work.costs, level * n + u)
        out_degree, in_degree = popcount(a.successors[u] & rows), popcount(a.predecessors[u] & rows)
        if (a.successors[u] >> x) & 1:
            row = row + where(
                ~to_y, where(below(out_degrees, out_degree), closer_out, farther_out), 0
            )
        else:
            row = row + where(
                to_y, where(at_most(out_degrees, out_degree), farther_out, closer_out), 0
            )
        if (a.predecessors[u] >> x) & 1:
            row = row + where(
                ~from_y, where(below(in_degrees, in_degree), closer_in, farther_in), 0
            )
        else:
            row = row + where(
                from_y, where(at_most(in_degrees, in_degree), farther_in, closer_in), 0
            )
        store(work.costs, (level + 1) * n + u, where(left_columns, row, forbidden(token)))
        v = work.columns[level, u]
        kept = v >= 0 and v != y and work.costs[(level + 1) * n + u, v] == 0
        work.columns[level + 1, u] = v if kept else -1


@_compiled
def _assign(token, work, n, level, limit):
    """Completes the assignment of a level; as dual prices rise, its reduced costs fall and its
    bound rises.

    Shortest augmenting paths (Jonker and Volgenant 1987). Returns False, leaving the level
    unfinished, once the bound is above `limit`.
    """
    rows = work.free_rows[level]
    base = level * n
    columns = work.columns[level]
    bound = work.bounds[level]
    cap = forbidden(token) // 2
    taken = 0
    unassigned = 0
    todo = rows
    while todo:
        u = lowest(todo)
        todo &= todo - 1
        v = columns[u]
        if v >= 0:
            taken |= 1 << v
            work.rows[v] = u
            continue
        row = load(token, work.costs, base + u)
        price = smallest(row)
        if price >= cap:
            return False
        if price > 0:
            bound += price
            store(work.costs, base + u, row - price)
        unassigned |= 1 << u
    todo = unassigned
    while todo:
        u = lowest(todo)
        todo &= todo - 1
        zeros = at_most(load(token, work.costs, base + u), 0) & ~taken
        if zeros:
            v = lowest(zeros)
            taken |= 1 << v
            unassigned &= ~(1 << u)
            columns[u] = v
            work.rows[v] = u
    while unassigned:
        if bound > limit:
            return False
        start = lowest(unassigned)
        unassigned &= unassigned - 1
        # Dijkstra over columns, from row `start` to the nearest column that is not taken.
        distances = load(token, work.costs, base + start)
        previous = splat(token, start)
        reached = _ZERO
        while True:
            left = where(reached, forbidden(token), distances)
            distance = smallest(left)
            if distance >= cap or bound + distance > limit:
                return False
            nearest = at_most(left, distance)
            if nearest & ~taken:
                v = lowest(nearest & ~taken)
                break
            v = lowest(nearest)
            reached |= 1 << v
            u = work.rows[v]
            through = load(token, work.costs, base + u) + distance
            previous = where(below(through, distances), splat(token, u), previous)
            distances = minimum(distances, through)
        if distance > 0:
            bound += distance
            _raise_prices(
                token,
                work,
                base,
                columns,
                rows & ~(1 << start),
                start,
                reached,
                distances,
                distance,
            )
        store(work.scratch, 0, previous)
        taken |= 1 << v
        u = -1
        while u != start:
            u = np.int64(work.scratch[0, v])
            work.rows[v] = u
            next_v = columns[u]
            columns[u] = v
            v = next_v
    work.bounds[level] = bound
    return bound <= limit


@_inlined
def _raise_prices(token, work, base, columns, other_rows, start, reached, distances, distance):
    """Lowers the reduced costs along a shortest path of length `distance` from row `start` to zero,
    none below.
    """
    rise = where(reached, splat(token, distance) - distances, 0)
    store(work.costs, base + start, load(token, work.costs, base + start) + rise - distance)
    if reached == 0:
        return
    store(work.scratch, 1, rise)
    while other_rows:
        u = lowest(other_rows)
        other_rows &= other_rows - 1
        row = load(token, work.costs, base + u) + rise
        v = columns[u]
        if v >= 0 and (reached >> v) & 1:
            row = row - np.int64(work.scratch[1, v])
        store(work.costs, base + u, row)


@_compiled
def _choose_line(token, work, a, b, n, level, limit):
    """Sets `lines` and `children` of a level. Returns False if some row or column has no child
    left.
    """
    rows, columns = work.free_rows[level], work.free_columns[level]
    base = level * n
    room = min(limit - work.bounds[level], forbidden(token) // 2 - 1)
    counts, sums = splat(token, 0), splat(token, 0)
    best_score, line = _HUGE, -1
    todo = rows
    while todo:
        u = lowest(todo)
        todo &= todo - 1
        row = load(token, work.costs, base + u)
        alive = at_most(row, room)
        if not alive:
            return False
        counts = counts + where(alive, splat(token, 1), 0)
        row = where(alive, row, 0)
        sums = sums + row
        score = _score(popcount(alive), work.hubs[0, u], total(row))
        if score < best_score:
            best_score, line = score, u
    store(work.scratch, 0, counts)
    store(work.scratch, 1, sums)
    todo = columns
    while todo:
        v = lowest(todo)
        todo &= todo - 1
        count = np.int64(work.scratch[0, v])
        if count == 0:
            return False
        score = _score(count, work.hubs[1, v], np.int64(work.scratch[1, v]))
        if score < best_score:
            best_score, line = score, v + _COLUMN
    if line < 0:
        return False  # nothing is free
    work.lines[level] = line
    if line < _COLUMN:
        store(work.children, level, load(token, work.costs, base + line))
        while columns:
            v = lowest(columns)
            columns &= columns - 1
            if b.twins[v] & work.free_columns[level]:
                work.children[level, v] = forbidden(token)
    else:
        store(work.children, level, splat(token, forbidden(token)))
        while rows:
            u = lowest(rows)
            rows &= rows - 1
            if not a.twins[u] & work.free_rows[level]:
                work.children[level, u] = work.costs[base + u, line - _COLUMN]
    return True


@_inlined
def _score(count, hub, cost_sum):
    """Fewest children first, hubs preferred; among equals, where the children raise the bound
    most.
    """
    return ((8 * count - hub) << 24) - cost_sum


@_compiled
def _open_bound(token, work, root, level):
    """Smallest bound, in half units, of the children not yet visited."""
    bound = _HUGE
    for t in range(root, level + 1):
        rise = smallest(load(token, work.children, t))
        if rise < forbidden(token) // 2:
            bound = min(bound, work.bounds[t] + rise)
    return bound


@_compiled
def _fill_substitution(token, work, n, labels, i, j, num_forced):
    """Cost of matching each pair of nodes: 0 if their labels agree, else 1, or half of forbidden if
    either label is forced.
    """
    image_labels = load(token, labels, j)
    never = splat(token, forbidden(token) // 2)
    mismatch = where(below(image_labels, num_forced), never, 1)
    for u in range(n):
        label = np.int64(labels[i, u])
        row = where(equal(image_labels, label), 0, never if label < num_forced else mismatch)
        store(work.substitution, u, row)


@_compiled
def _complete(work, level):
    """Writes the bijection of a level to `mapping`: matched pairs and the assignment of the
    rest.
    """
    for t in range(level):
        work.mapping[work.matched[0, t]] = work.matched[1, t]
    rows = work.free_rows[level]
    while rows:
        u = lowest(rows)
        rows &= rows - 1
        work.mapping[u] = work.columns[level, u]


@_compiled
def _cost(work, a, b, n, edges):
    """Edit cost of `mapping`; `edges` is the number of edges of both graphs."""
    cost = edges
    for u in range(n):
        image = work.mapping[u]
        cost += np.int64(work.substitution[u, image])
        successors, image_successors = a.successors[u], b.successors[image]
        while successors:
            v = lowest(successors)
            successors &= successors - 1
            cost -= 2 * ((image_successors >> work.mapping[v]) & 1)
    return cost


@_compiled
def _improve_by_swaps(work, a, b, n, cost):
    """Swaps images in `mapping` while that lowers its cost; returns the cost."""
    mapping, outs, ins = work.mapping, work.images[0], work.images[1]
    for u in range(n):
        outs[u] = 0
        ins[u] = 0
        for v in range(n):
            outs[u] |= ((b.successors[mapping[u]] >> mapping[v]) & 1) << v
            ins[u] |= ((b.predecessors[mapping[u]] >> mapping[v]) & 1) << v
    improved = True
    while improved:
        improved = False
        for u in range(n):
            for v in range(u + 1, n):
                others = ~((1 << u) | (1 << v))
                now = popcount(a.successors[u] & outs[u]) + popcount(a.successors[v] & outs[v])
                now += popcount(a.predecessors[u] & ins[u] & others) + popcount(
                    a.predecessors[v] & ins[v] & others
                )
                then = popcount(a.successors[u] & _swap(outs[v], u, v)) + popcount(
                    a.successors[v] & _swap(outs[u], u, v)
                )
                then += popcount(a.predecessors[u] & ins[v] & others) + popcount(
                    a.predecessors[v] & ins[u] & others
                )
                change = 2 * (now - then)
                change += np.int64(work.substitution[u, mapping[v]]) + np.int64(
                    work.substitution[v, mapping[u]]
                )
                change -= np.int64(work.substitution[u, mapping[u]]) + np.int64(
                    work.substitution[v, mapping[v]]
                )
                if change < 0:
                    cost += change
                    improved = True
                    mapping[u], mapping[v] = mapping[v], mapping[u]
                    outs[u], outs[v] = outs[v], outs[u]
                    ins[u], ins[v] = ins[v], ins[u]
                    for w in range(n):
                        outs[w] = _swap(outs[w], u, v)
                        ins[w] = _swap(ins[w], u, v)
    return cost


@_inlined
def _swap(bits, u, v):
    """`bits` with bits u and v exchanged."""
    differ = ((bits >> u) ^ (bits >> v)) & 1
    return bits ^ ((differ << u) | (differ << v))


@_inlined
def _absolute(row):
    return maximum(row, 0 - row)
