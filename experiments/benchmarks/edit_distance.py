"""How fast is the exact edit distance, and how much faster than networkx?

Prints pairs per second of one core (process CPU time, compiling excluded) and search nodes per pair
for several families of graphs, the time of networkx on small cells, and the time of all pairs of
1,000 cells. Writes them to edit_distance.json and draws edit_distance.png, time against nodes.
Takes about a minute and a half.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import networkx as nx
import numpy as np
from absl import flags
from tabulate import tabulate

from experiments.benchmarks import files
from launch import common
from launch.paths import define_path
from nas.evaluation.edit_distance import (
    PackedGraphs,
    available_cores,
    compare,
    first_approximation,
    pack,
    pack_decisions,
    pairwise_edit_distance,
)
from nas.progress import each
from nas.spaces import Graphs
from nas.spaces.recurrent import RecurrentSpace

define_path("out", "Folder for the results.", default="runs/benchmarks", folder=True)
flags.DEFINE_integer(
    "pairs",
    20_000,
    "Pairs of cells compared per family; slower families get fewer.",
    lower_bound=20,
)
FLAGS = flags.FLAGS

ARCHITECTURES = 200  # per family
REPEATS = 3  # the fastest counts
PACKAGES = ("numba", "llvmlite", "numpy", "networkx", "scipy")

# Run in a process of its own, with an empty cache.
COMPILE = """
import time
start, cpu = time.perf_counter(), time.process_time()
from nas.evaluation.edit_distance import pairwise_edit_distance
from nas.spaces.recurrent import RecurrentSpace
imported, cpu_imported = time.perf_counter(), time.process_time()
pairwise_edit_distance(RecurrentSpace(), [[0] * 23, [1] + [0] * 22])
print(imported - start, cpu_imported - cpu)
print(time.perf_counter() - imported, time.process_time() - cpu_imported)
"""


def main():
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    families, sizes, small = _families().items(), range(4, 17), (4, 5, 6, 7, 8)
    results = {
        "environment": _environment(),
        "families": [
            {"family": name, **_measure(*family)}
            for name, family in each("families", families, unit="family")
        ],
        "sizes": [
            _measure(_cells(nodes), FLAGS.pairs // 4) for nodes in each("sizes", sizes, unit="size")
        ],
        "networkx": [_measure_networkx(nodes) for nodes in each("networkx", small, unit="size")],
        "first_approximation": [_measure_approximation(io) for io in (False, True)],
        "all_pairs": _measure_all_pairs(),
        "compile": _measure_compiling(),
    }
    (out / "edit_distance.json").write_text(json.dumps(results, indent=1) + "\n")
    _figure(results).savefig(out / "edit_distance.png", dpi=200)
    _print(results)
    print(f"\nwritten: {out / 'edit_distance.json'}, {out / 'edit_distance.png'}")


def _families() -> dict[str, tuple[PackedGraphs, int]]:
    """name -> graphs, and the number of pairs of them to compare."""
    families = {
        "8-node cells": (_cells(8), FLAGS.pairs),
        "12-node cells": (_cells(12), FLAGS.pairs),
        "14 nodes: 12-node cells with input and output, forced": (
            _cells(12, io=True, forced=True),
            FLAGS.pairs,
        ),
        "14 nodes, forced, no labels": (
            _cells(12, io=True, forced=True, labelled=False),
            FLAGS.pairs,
        ),
        "14 nodes, free": (_cells(12, io=True), FLAGS.pairs),
        "chain-like 12-node cells": (_cells(12, chain=0.8), FLAGS.pairs),
    }
    for tenths in range(1, 9):
        families[f"12 layers, skip probability .{tenths}"] = (
            _layers(12, tenths / 10),
            FLAGS.pairs // 10,
        )
    return families


def _sample_cells(nodes: int, n: int, chain: float = 0.0) -> tuple[RecurrentSpace, np.ndarray]:
    """Random cells; a node reads the one before it with probability `chain`, else any earlier
    one.
    """
    rng = np.random.default_rng(0)
    space = RecurrentSpace(num_nodes=nodes)
    decisions = rng.integers(0, space.num_choices, (n, space.num_decisions))
    parents = space.parents(decisions)  # a view
    parents[:] = np.where(rng.random(parents.shape) < chain, np.arange(nodes - 1), parents)
    return space, decisions


def _cells(
    nodes: int, chain: float = 0.0, io: bool = False, forced: bool = False, labelled: bool = True
) -> PackedGraphs:
    (packed,) = pack_decisions(
        *_sample_cells(nodes, ARCHITECTURES, chain), io=io, forced=forced, labelled=labelled
    )
    return packed


def _layers(nodes: int, skip: float) -> PackedGraphs:
    """Chains of layers with one of six operations, and random skip connections."""
    rng = np.random.default_rng(0)
    adjacency = np.triu(rng.random((ARCHITECTURES, nodes, nodes)) < skip, 1)
    adjacency[:, np.arange(nodes - 1), np.arange(1, nodes)] = True
    return pack(Graphs(adjacency, rng.integers(0, 6, (ARCHITECTURES, nodes))), range(6))


def _measure(packed: PackedGraphs, num_pairs: int) -> dict:
    first, second = np.triu_indices(ARCHITECTURES, 1)
    chosen = np.random.default_rng(0).choice(len(first), min(num_pairs, len(first)), replace=False)
    first, second = first[chosen], second[chosen]
    searched = compare(packed, first, second, threads=1).searched  # compiles
    # The slowest pair is looked for among those with the most search nodes. A pair is a call of its
    # own: many copies in one call would teach the processor to predict its branches.
    slow = [[pair] for pair in np.argsort(searched)[-5:]]
    worst = max(
        _cpu_seconds(lambda one=one: compare(packed, first[one], second[one], threads=1))
        for one in slow
    )
    seconds = _cpu_seconds(lambda: compare(packed, first, second, threads=1))
    return {
        "nodes": int(packed.sizes.max()),
        "pairs": len(first),
        "pairs_per_second": len(first) / seconds,
        "mean_ms": 1e3 * seconds / len(first),
        "searched_mean": float(searched.mean()),
        "searched_p99": float(np.percentile(searched, 99)),
        "searched_max": int(searched.max()),
        "worst_ms": 1e3 * worst,
    }


def _measure_networkx(nodes: int) -> dict:
    """Exact distances of the same labelled cells by both; networkx gets some of the pairs."""
    num_pairs = max(2, min(10 if nodes == 8 else 40, FLAGS.pairs // 500))
    space, decisions = _sample_cells(nodes, 2 * num_pairs)
    graphs = [space.to_graphs(row, io=False)[0] for row in decisions]
    match = nx.algorithms.isomorphism.categorical_node_match("label", None)
    theirs: list[float] = []
    seconds = _cpu_seconds(
        lambda: theirs.extend(
            nx.graph_edit_distance(a, b, node_match=match)
            for a, b in zip(graphs[::2], graphs[1::2], strict=True)
        ),
        repeats=1,
    )
    (packed,) = pack_decisions(space, decisions, io=False, forced=False)
    np.testing.assert_array_equal(
        compare(packed, np.arange(0, len(graphs), 2), np.arange(1, len(graphs), 2)).upper, theirs
    )
    first, second = np.triu_indices(len(graphs), 1)
    our_seconds = _cpu_seconds(lambda: compare(packed, first, second, threads=1))
    networkx_ms, ours_ms = 1e3 * seconds / num_pairs, 1e3 * our_seconds / len(first)
    return {
        "nodes": nodes,
        "pairs": num_pairs,
        "networkx_ms": networkx_ms,
        "ours_pairs": len(first),
        "ours_ms": ours_ms,
        "ratio": networkx_ms / ours_ms,
    }


def _measure_approximation(io: bool) -> dict:
    space, decisions = _sample_cells(12, min(40, FLAGS.pairs // 10))
    seconds = _cpu_seconds(lambda: first_approximation(space, decisions, io=io), repeats=1)
    pairs = np.triu_indices(len(decisions), 1)
    approximate = first_approximation(space, decisions, io=io)[pairs]
    exact = pairwise_edit_distance(space, decisions, labelled=False, io=io, forced=False)[pairs]
    return {
        "nodes": 14 if io else 12,
        "pairs": len(exact),
        "ms": 1e3 * seconds / len(exact),
        "ratio": float(approximate.mean() / exact.mean()),
    }


def _measure_all_pairs() -> dict:
    """All pairs by the primary definition, on all cores."""
    space, decisions = _sample_cells(12, min(1000, FLAGS.pairs))
    start = time.perf_counter()
    pairwise_edit_distance(space, decisions)
    n = len(decisions)
    return {"architectures": n, "pairs": n * (n - 1) // 2, "seconds": time.perf_counter() - start}


def _measure_compiling() -> dict:
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": cache,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        output = subprocess.run(
            [sys.executable, "-c", COMPILE],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    names = ("import_seconds", "import_cpu_seconds", "compile_seconds", "compile_cpu_seconds")
    return dict(zip(names, map(float, output.split()), strict=True))


def _cpu_seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Process CPU time of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def _environment() -> dict:
    return {
        "processor": files.processor(),
        "threads": available_cores(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _figure(results: dict):
    from nas.report.style import PALETTE, new_figure, style

    layers = [row for row in results["families"] if row["family"].startswith("12 layers")]
    with style():
        figure = new_figure(4.8, 3.2, layout="constrained")
        ax = figure.subplots()
        for rows, key, label, color in (
            (results["networkx"], "networkx_ms", "networkx, cells", PALETTE[1]),
            (results["sizes"], "mean_ms", "ours, cells", PALETTE[0]),
        ):
            ax.plot(
                [row["nodes"] for row in rows],
                [row[key] for row in rows],
                "o-",
                markersize=3.5,
                label=label,
                color=color,
            )
        ax.plot(
            [row["nodes"] for row in layers],
            [row["mean_ms"] for row in layers],
            "s",
            markersize=3.5,
            label="ours, 12 layers, skips .1 to .8",
            color=PALETTE[2],
        )
        ax.set(
            yscale="log",
            xlabel="nodes",
            ylabel="time of a pair on one core, ms",
            title="Exact graph edit distance",
        )
        ax.legend()
    return figure


def _print(results: dict) -> None:
    keys = (
        "family",
        "pairs_per_second",
        "searched_mean",
        "searched_p99",
        "searched_max",
        "worst_ms",
    )
    headers = (
        "",
        "pairs/s per core",
        "search nodes: mean",
        "p99",
        "max",
        "slowest pair, ms (one call)",
    )
    formats = ("", ",.0f", ",.1f", ",.0f", ",", ".2f")
    print(_table(results["families"], keys, headers, formats))
    keys, headers = (
        ("nodes", "networkx_ms", "ours_ms", "ratio"),
        ("nodes", "networkx, ms a pair", "ours, ms", "ratio"),
    )
    print("\n" + _table(results["networkx"], keys, headers, ("", ",.2f", ".4f", ",.0f")))
    keys, headers = (
        ("nodes", "ms", "ratio"),
        ("nodes", "first approximation of networkx, ms a pair", "times the distance"),
    )
    print("\n" + _table(results["first_approximation"], keys, headers, ("", ".2f", ".2f")))
    whole, compiling, environment = results["all_pairs"], results["compile"], results["environment"]
    print(
        f"\nall {whole['pairs']:,} pairs of {whole['architectures']:,} cells, 14 nodes, forced: "
        f"{whole['seconds']:.1f} s with "
        f"{environment['threads']} threads\ncompiling, with an empty cache: "
        f"{compiling['compile_seconds']:.1f} s "
        f"(process CPU {compiling['compile_cpu_seconds']:.1f} s)\n"
        f"{environment['processor']}; "
        + ", ".join(f"{name} {environment[name]}" for name in ("python", *PACKAGES))
    )


def _table(rows, keys, headers, formats):
    cells = [
        [format(row[key], spec) for key, spec in zip(keys, formats, strict=True)] for row in rows
    ]
    return tabulate(
        cells, headers, disable_numparse=True, colalign=("left", *["right"] * (len(keys) - 1))
    )


if __name__ == "__main__":
    common.run(main)
