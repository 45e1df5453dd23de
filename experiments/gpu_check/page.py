"""What the check has found, as tables for the terminal and as a page. Imports no JAX."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from nas.report import figures
from nas.report.html import Report
from nas.report.style import PALETTE, new_figure, style
from nas.report.tables import Column, Empty, Row, Table

Results = Mapping[str, Any]  # what the driver writes as JSON

_STEPS = {  # stage -> what distinguishes its step
    "step-tf32": "TF32",
    "step-bfloat16": "bfloat16",
    "step-float32": "float32",
    "step-tf32-graphs": "TF32, graphs of loops",
    "step-tf32-unrolled": "TF32, loops unrolled",
    "step-tf32-no-graphs": "TF32, no graphs",
}
_REWARDS = {"rewards-tf32": "TF32", "rewards-bfloat16": "bfloat16"}
_CHECKPOINT = {
    "save_waits_seconds": "the loop waits",
    "save_seconds": "until it is written",
    "restore_seconds": "reading it",
}
_IMAGES = ("mnist_macro", "cifar10_macro")


def write_page(path: pathlib.Path, results: Results) -> pathlib.Path:
    """Writes the page of the stages that have run so far, and returns its path."""
    found = _found(results)
    report = Report(
        "What this device shows",
        f"{results['device']}. Each stage ran in a process of its own, with a time limit. Times "
        "are medians; compiling is left out.",
    )
    report.section("Stages")
    report.table(stage_table(results))
    if drawn := [name for name in _STEPS if "step_ms" in found.get(name, {})]:
        report.section("The shared step")
        report.figure(_step_bars(found, drawn), *_BARS)
    for table in _tables(found):
        report.table(table)
    report.section("What failed")
    for stage in results["stages"]:
        if stage["status"] in ("failed", "cut off"):
            report.text(f"{stage['name']}, {stage['status']}; the last lines that it printed:")
            report.items(stage["said"][-12:])
    if all(stage["status"] in ("passed", "not run") for stage in results["stages"]):
        report.text("Nothing.")
    report.section("Command and versions")
    report.commands([results["command"]])
    report.details(
        {name: of for name, of in found.get("environment", {}).items() if name != "command"}
    )
    return report.write(path)


def stage_table(results: Results) -> Table:
    """One row per stage: what became of it, and its main finding."""
    rows = [
        Row([of["name"], of["status"], of["seconds"], headline(of)]) for of in results["stages"]
    ]
    columns = [Column("stage"), Column("status"), Column("s", 0), Column("it says")]
    return Table("Stages", columns, rows, [results["device"]], results["command"])


def headline(stage: Results) -> str:
    """The main finding of a stage; empty if it has reported nothing."""
    found, name = stage["found"], stage["name"]
    try:
        if name == "environment":
            rates = ", ".join(f"{of:.3g} ({kind})" for kind, of in found["teraflops"].items())
            return f"large product, TFLOP/s: {rates}"
        if name in _STEPS:
            bounds = f", arithmetic {found['bound_ms']:.3g}" if "bound_ms" in found else ""
            return f"{found['step_ms']:.3g} ms a step{bounds}"
        if name in _REWARDS:
            each = [f"{of['reward_ms'] / int(n):.3g} of {n}" for n, of in found["rewards"].items()]
            return f"ms an architecture: {', '.join(each)}"
        if name == "controller":
            return ", ".join(f"{kind} {of:.3g} ms" for kind, of in found["update_ms"].items())
        if name == "search":
            return f"{found['epochs']} epochs of ptb_paper: {found['hours']:.2g} h"
        if name == "equality":
            if not found["compared"]:  # the CPU was slower
                return ""
            worst = max(of["difference"] / of["allowed"] for of in found["compared"].values())
            return f"differs by {worst:.2g} times what is allowed, at most"
        if name == "checkpoint":
            return f"{found['mebibytes']:.0f} MiB, {found['save_seconds']:.2g} s a save"
        if name == "profile":
            return f"busy {found['busy_ms']:.3g} of {found['span_ms']:.3g} ms"
        if name in _IMAGES:
            return f"{found['step_ms']:.3g} ms a step, {found['reward_ms']:.3g} a reward"
        if name == "resume":
            ends = found["ends"]
            return "the same numbers" if ends["whole"] == ends["killed"] else "other numbers"
        return found["last"] if name == "tests" else f"{found['seconds']:.0f} s"
    except KeyError:
        return ""


def _found(results):
    return {stage["name"]: stage["found"] for stage in results["stages"]}


def _tables(found) -> list[Table]:
    tables = []
    if rows := [_step_row(title, found[name]) for name, title in _STEPS.items() if found.get(name)]:
        tables.append(
            Table(
                "The shared step of ptb_paper",
                [
                    Column("products"),
                    Column("ms", 2),
                    Column("arithmetic, ms", 2),
                    Column("time loop alone, ms", 2),
                    Column("compile, s", 1),
                    Column("planned, MiB", 0),
                ],
                rows,
                [
                    "Arithmetic: that of the step at the rate of one large product. Time loop: its "
                    "products alone, forward and backward, which wait for one another."
                ],
            )
        )
    rows = [
        _reward_row(title, int(count), of)
        for name, title in _REWARDS.items()
        for count, of in found.get(name, {}).get("rewards", {}).items()
    ]
    if rows:
        columns = [
            Column("products"),
            Column("architectures as one batch", 0),
            Column("ms", 2),
            Column("ms an architecture", 2),
            Column("GFLOP", 0),
            Column("compile, s", 1),
            Column("planned, MiB", 0),
        ]
        tables.append(Table("Rewards", columns, rows))
    if of_phase := found.get("search", {}).get("step_ms"):
        rows = [Row([phase, of]) for phase, of in of_phase.items()]
        notes = [f"{found['search']['epochs']} epochs: {found['search']['hours']:.2g} h without"]
        notes[0] += " checkpoints, from these."
        tables.append(Table("A search", [Column("phase"), Column("ms a step", 2)], rows, notes))
    of_controller = found.get("controller", {}).get("update_ms", {})
    of_checkpoint = found.get("checkpoint", {})
    rows = [Row([f"controller update, {kind}", of / 1e3]) for kind, of in of_controller.items()]
    rows += [
        Row([f"checkpoint, {what}", of_checkpoint[name]])
        for name, what in _CHECKPOINT.items()
        if name in of_checkpoint
    ]
    if rows:
        tables.append(Table("Controller, checkpoints", [Column("what"), Column("s", 4)], rows))
    if compared := found.get("equality", {}).get("compared"):
        rows = [
            Row([name, f"{of['difference']:.1e}", f"{of['allowed']:.0e}"])
            for name, of in compared.items()
        ]
        columns = [Column("numbers"), Column("largest difference", 0), Column("allowed", 0)]
        tables.append(Table("Relative to the processor's", columns, rows))
    if rows := [_image_row(name, found[name]) for name in _IMAGES if found.get(name)]:
        columns = [
            Column("network"),
            Column("ms a step", 2),
            Column("ms a reward", 2),
            Column("compile a step, s", 1),
            Column("planned, MiB", 0),
        ]
        tables.append(Table("Image networks", columns, rows))
    if longest := found.get("profile", {}).get("longest"):
        rows = [Row([name, count, of]) for name, count, of in longest]
        columns = [Column("kernel"), Column("times", 0), Column("ms", 3)]
        title = f"A profile of {found['profile']['steps']} shared steps"
        tables.append(Table(title, columns, rows))
    return tables


def _number(found, name):
    return found.get(name, Empty("-"))


def _step_row(title, found):
    names = ("step_ms", "bound_ms", "loop_ms", "compile_seconds", "planned_mebibytes")
    return Row([title, *(_number(found, name) for name in names)])


def _reward_row(title, count, found):
    milliseconds = found["reward_ms"]
    rest = (found[name] for name in ("gigaflops", "compile_seconds", "planned_mebibytes"))
    return Row([title, count, milliseconds, milliseconds / count, *rest])


def _image_row(name, found):
    names = ("step_ms", "reward_ms", "step_compile_seconds", "planned_mebibytes")
    return Row([name, *(_number(found, of) for of in names)])


_BARS = (
    "Milliseconds of a shared step. Marks: its arithmetic at the rate of a large product, and the "
    "products of its time loop alone.",
    "Bars of the time of a shared step by the kind of its products, with its two bounds",
)
_MARKS = {
    "arithmetic": {"marker": "D", "color": PALETTE[1]},
    "time loop alone": {"marker": "s", "color": PALETTE[2]},
}


def _step_bars(found, names: Sequence[str]) -> Figure:
    with style():
        figure = new_figure(5.2, 0.8 + 0.34 * len(names), layout="constrained")
        axes = figure.subplots()
        for row, name in enumerate(names):
            of = found[name]
            axes.barh(row, of["step_ms"], height=0.62, color=PALETTE[0], alpha=0.55, linewidth=0)
            for key, look in zip(("bound_ms", "loop_ms"), _MARKS.values(), strict=True):
                if key in of:
                    axes.plot(of[key], row, linestyle="", markersize=5, **look)
        axes.set_yticks(range(len(names)), [_STEPS[name] for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(False, axis="y")
        axes.set_xlabel("ms a step")
        looks = {name: {"linestyle": "", **look} for name, look in _MARKS.items()}
        figures.legend(figure, looks)
    return figure
