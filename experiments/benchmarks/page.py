"""The page of the benchmarks: how near steps come to their matrix products, how they grow, what
surrounds them in a run.

Its input is what the drivers in `experiments/benchmarks` write as JSON: dictionaries of numbers. A
measured quantity is the list of its first quartile, median and third quartile over repetitions.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from nas.report import figures
from nas.report.html import Report
from nas.report.style import PALETTE, new_figure, style
from nas.report.tables import Column, Empty, Row, Table

Results = Mapping[str, Any]

_SHAPE = ("width", "nodes", "batch", "vocabulary", "steps", "matmul")
_PLAIN = "plain step"


def write_page(
    path: pathlib.Path, search_step: Results | None, end_to_end: Results | None
) -> pathlib.Path:
    """Writes the page of the results that there are, and returns its path."""
    report = Report(
        "How fast is the search?",
        "Times beside those of the bare matrix products at the same shapes, and of the same "
        "arithmetic at the rate of one "
        "large product. All of a section took turns in one process.",
    )
    if search_step:
        tables = step_tables(search_step)
        report.section("Steps and their products")
        for point in _points(search_step["operations"]):
            report.figure(*_ratio_bars(search_step["operations"], point))
        for table in tables[:3]:
            report.table(table)
        report.section("Time against width and nodes")
        report.figure(*_time_lines(search_step["operations"]))
        if search_step["growth"]:
            report.section("Growth against arithmetic")
            report.figure(*_growth_lines(search_step["growth"]))
            report.table(tables[3])
    if end_to_end:
        report.section("What surrounds the steps of a run")
        for table in run_tables(end_to_end):
            report.table(table)
    report.section("Commands and versions")
    for results in filter(None, (search_step, end_to_end)):
        environment = dict(results["environment"])
        report.commands([environment.pop("command")])
        report.details(environment | {"load after": results["load_after"]})
    return report.write(path)


def step_tables(results: Results) -> list[Table]:
    """Operations, the step without deferred gradients, products, and growth if it was measured."""
    command = results["environment"]["command"]
    notes = [
        "Medians over repetitions. Bare: the matrix products at the shapes of the operation, by "
        "XLA, and nothing else. Bound: "
        "the arithmetic of these products at the rate of one large product of the same kind of "
        "numbers.",
        "Planned: arguments, results and temporary arrays of the compiled operation. Resident: "
        "the whole process at its peak.",
    ]
    operations = results["operations"]
    tables = [
        _operation_table(
            "Shared steps and rewards",
            [r for r in operations if r["operation"] != _PLAIN],
            notes,
            command,
        ),
        _operation_table(
            "The shared step by plain automatic differentiation",
            [r for r in operations if r["operation"] == _PLAIN],
            notes,
            command,
        ),
        Table(
            "Bare products",
            [
                *_shape_columns(),
                Column("product"),
                Column("GFLOP", 2),
                Column("ms", 2),
                Column("GFLOP/s", 0),
            ],
            [
                Row(
                    [
                        *_shape_cells(r),
                        r["product"],
                        r["flops"] / 1e9,
                        1e3 * r["seconds"][1],
                        r["flops_per_second"][1] / 1e9,
                    ]
                )
                for r in results["products"]
            ],
            command=command,
        ),
    ]
    if results["growth"]:
        tables.append(_growth_table(results["growth"], command))
    return tables


def run_tables(results: Results) -> list[Table]:
    """What a search spends its time on, its speed, and how long programs take to start if that was
    measured.
    """
    command, loop = results["environment"]["command"], results["loop"]
    tables = [
        Table(
            f"A search of {loop['epochs']} epochs, {results['setting']}",
            [Column("part"), Column("calls", 0), Column("seconds", 2), Column("% of the loop", 2)],
            [
                Row([*part.values(), 100 * part["seconds"] / loop["seconds"]])
                for part in loop["parts"]
            ],
            [
                "The first epoch is left out: it compiles. Named parts are compiled calls; what "
                "is around them is all the rest."
            ],
            command,
        ),
        Table(
            "Shared steps",
            [Column(""), Column("steps/s", 1), Column("tokens/s", 0)],
            [Row(list(row.values())) for row in results["speed"]],
            [
                "Bare: the same compiled chunk called again and again, on the state with which "
                "the search ended."
            ],
            command,
        ),
    ]
    if results["start"]:
        tables.append(
            Table(
                "Starting",
                [
                    Column("from the command to"),
                    Column("seconds, least", 2),
                    Column("median", 2),
                    Column("most", 2),
                ],
                [Row(list(row.values())) for row in results["start"]],
                command=command,
            )
        )
    return tables


def _operation_table(
    title: str, rows: Sequence[Results], notes: Sequence[str], command: str
) -> Table:
    columns = [
        *_shape_columns(),
        Column("operation"),
        Column("ms", 1),
        Column("bare, ms", 1),
        Column("times bare", 2),
        Column("times bound", 2),
        Column("times float32 bound", 2),
        Column("compile, s", 1),
        Column("planned, MiB", 0),
        Column("resident, MiB", 0),
    ]
    return Table(
        title,
        columns,
        [Row([*_shape_cells(row), *_operation_cells(row)]) for row in rows],
        notes,
        command,
    )


def _operation_cells(row: Results) -> list:
    resident = row["resident_bytes"]
    return [
        row["operation"],
        1e3 * row["seconds"][1],
        1e3 * row["bare_seconds"][1],
        row["to_bare"][1],
        row["to_bound"][1],
        row["to_float32_bound"][1],
        row["compile_seconds"],
        row["xla_bytes"] / 2**20,
        Empty("-") if resident is None else resident / 2**20,
    ]


def _growth_table(rows: Sequence[Results], command: str) -> Table:
    columns = [
        *_shape_columns()[:-1],
        Column("grown"),
        Column("ms", 1),
        Column("arithmetic, times", 2),
        Column("time, times", 2),
        Column("time to arithmetic", 2),
    ]
    cells = []
    for row in rows:
        growth, arithmetic = row["time_growth"][1], row["arithmetic_growth"]
        grown = "-" if row["factor"] == 1 else f"{row['axis']} x {row['factor']}"
        cells.append(
            Row(
                [
                    *_shape_cells(row)[:-1],
                    grown,
                    1e3 * row["seconds"][1],
                    arithmetic,
                    growth,
                    growth / arithmetic,
                ]
            )
        )
    return Table("Growth of the shared step, float32", columns, cells, command=command)


def _shape_columns() -> list[Column]:
    return [Column(name, None if name == "matmul" else 0) for name in _SHAPE]


def _shape_cells(row: Results) -> list:
    return [row.get(name) for name in _SHAPE]


def _points(rows: Sequence[Results]) -> list[tuple]:
    return list(dict.fromkeys(tuple(row[name] for name in _SHAPE) for row in rows))


def _ratio_bars(rows: Sequence[Results], point: tuple) -> tuple[Figure, str, str]:
    chosen = [row for row in rows if tuple(row[name] for name in _SHAPE) == point]
    low, middle, high = zip(*(row["to_bare"] for row in chosen), strict=True)
    figure = figures.bars_with_intervals(
        [row["operation"] for row in chosen],
        middle,
        low,
        high,
        label="time / time of the bare products",
    )
    shape = ", ".join(f"{name} {value}" for name, value in zip(_SHAPE, point, strict=True))
    return (
        figure,
        f"{shape}: medians and quartiles of repetitions.",
        f"Bars of the ratio of each operation, {shape}",
    )


def _time_lines(rows: Sequence[Results]) -> tuple[list[Figure], str, list[str]]:
    """The step's time against width, a line for each number of nodes, and the other way round."""
    drawn, texts = [], []
    steps = [row for row in rows if row["operation"] == "step"]
    for x, other in (("width", "nodes"), ("nodes", "width")):
        lines: dict[str, list] = {}
        for row in steps:
            rest = [
                f"{name} {row[name]}"
                for name in ("batch", "vocabulary", "matmul")
                if len({r[name] for r in steps}) > 1
            ]
            name = ", ".join([f"{other} {row[other]}", *rest])
            lines.setdefault(name, []).append((row[x], row["seconds"][1], row["bare_seconds"][1]))
        drawn.append(_lines(lines, x, "time of a shared step, s"))
        texts.append(f"Lines of the time of a shared step against {x}")
    return drawn, "Shared step (solid) and its bare products (dashed).", texts


def _growth_lines(rows: Sequence[Results]) -> tuple[Figure, str, str]:
    lines = {
        axis: [(1.0, 1.0, 1.0)]
        for axis in dict.fromkeys(row["axis"] for row in rows if row["factor"] > 1)
    }
    for row in rows:
        if row["factor"] > 1:
            lines[row["axis"]].append(
                (row["arithmetic_growth"], row["time_growth"][1], row["arithmetic_growth"])
            )
    figure = _lines(lines, "arithmetic, times that of the base", "time, times that of the base")
    return (
        figure,
        "Each size doubled twice; dashed: time grows as the arithmetic does.",
        "Growth of time against arithmetic",
    )


def _lines(
    lines: Mapping[str, Sequence[tuple[float, float, float]]], x_label: str, y_label: str
) -> Figure:
    """Log-log lines of (x, y, yardstick)."""
    with style():
        figure = new_figure(4.2, 3.2, layout="constrained")
        ax, looks = figure.subplots(), {}
        for index, (name, points) in enumerate(lines.items()):
            x, y, yardstick = zip(*sorted(points), strict=True)
            looks[name] = {"color": PALETTE[index % 7], "marker": "o", "markersize": 3.5}
            ax.plot(x, y, **looks[name])
            ax.plot(x, yardstick, "--", linewidth=0.9, color=looks[name]["color"])
        ax.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
        figures.log_axis(ax.xaxis)
        figures.log_axis(ax.yaxis)
        figures.legend(figure, looks)
    return figure
