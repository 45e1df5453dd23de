"""What the driver can be asked for; each prints its tables and writes them into a folder."""

import dataclasses
import pathlib
import time

from experiments.tabular import facts, peers, peers_report, report, seeds, settings, tuning
from experiments.tabular.judging import Judge
from experiments.tabular.study import Study
from experiments.tabular.study import sweep as run_sweep
from experiments.writing import Written
from nas import progress, runs
from nas.data import cell_table
from nas.data import table as tables
from nas.data.table import ScoreTable
from nas.errors import UserError
from nas.report.tables import Column, Row, Table

TITLE = "What a memory does to a search, on a table of all architectures"


def read(name: str) -> ScoreTable:
    """The table that --table names: of cell_table.PACKAGED, a file of accuracies or cells, or
    synthetic:STRENGTH (synthetic alone: 0.5).

    Raises:
      UserError: the file cannot be used, or no strength in 0..1.
    """
    kind, _, strength = name.partition(":")
    if kind != "synthetic":
        path = cell_table.PACKAGED.get(name, pathlib.Path(name))
        if name in cell_table.PACKAGED and not path.exists():
            raise UserError(
                f"--table: {path} is missing; `python -m experiments.every_cell --config=full` "
                "writes a table.csv.gz, which --table reads as well"
            )
        if cell_table.holds_cells(path):
            return cell_table.score_table(cell_table.read_cells(path))
        return tables.read_table(path)
    try:
        return tables.synthetic_table(0, float(strength or 0.5))
    except ValueError:  # a UserError is one, too
        raise UserError(
            f"--table: synthetic:STRENGTH needs a number in 0..1, got {strength!r}"
        ) from None


def read_accuracies(name: str) -> ScoreTable:
    """The same where only a table of NAS-Bench-201 will do.

    Raises:
      UserError: as `read`, or the table is of another space.
    """
    table = read(name)
    if table.space != tables.SPACE:
        raise UserError(
            f"--table: {name} holds cells; experiments.study_nasbench201, and --tune of "
            "experiments.study_table, need accuracies of NAS-Bench-201"
        )
    return table


def convert(source: str, target: pathlib.Path) -> None:
    """Writes the table of an official NATS-Bench file to `target`."""
    tables.write_table(tables.convert_nats_bench(source), target)
    print(f"written: {target}")


def study(table: ScoreTable, size_name: str, folder: pathlib.Path) -> None:
    """All strategies on the data sets of a size, and the report."""
    size, command = settings.SIZES[size_name], runs.command()
    found = Study(table, size, folder / "pieces")
    written = Written(
        folder,
        command,
        TITLE,
        "Every accuracy is looked up: what strategies find can be compared with the truth.",
    )
    written.section(
        "The table",
        {f"table_{i}": printed for i, printed in enumerate(facts.facts_tables(table, command))},
    )
    if size_name == "full":
        print(
            f"about {found.estimate() / 3600:.1f} h, from one epoch of each arm; what is finished "
            "is kept",
            flush=True,
        )
    with progress.track("searches", total=found.epochs, unit="epoch") as advance:
        answered = [report.answers(data, command) for data in found.run(advance)]
    for data_set, said in zip(size.data_sets, answered, strict=True):
        written.section(data_set, said.tables)
        for question, sentence in said.sentences.items():
            written.answer(f"{data_set}: {question}", sentence, said.figures[question])
    written.finish(
        dataclasses.asdict(size)
        | {"settings": settings.TUNED, "evolution": settings.TUNED_EVOLUTION}
    )


def sweep(folder: pathlib.Path) -> None:
    """All strategies on generated tables of every strength of interaction."""
    size, command = settings.SWEEP, runs.command()
    epochs = len(settings.STRATEGIES) * size.updates // size.epoch
    with progress.track("searches", total=epochs, unit="epoch") as advance:
        found = run_sweep(size, advance)
    sentence, printed, drawn = report.sweep_answers(found, command)
    written = Written(
        folder,
        command,
        TITLE,
        "Generated tables: pairs of operations explain a share of the variance that is set.",
    )
    written.section("Interaction", {f"synthetic_{name}": table for name, table in printed.items()})
    written.answer("Which strategy copes with interaction?", sentence, drawn)
    written.finish(dataclasses.asdict(size))


def tune(table: ScoreTable, folder: pathlib.Path) -> None:
    """The grid of settings on CIFAR-10."""
    size = settings.TUNING
    evolved = sum(t <= p for p in settings.POPULATIONS for t in settings.TOURNAMENTS)
    epochs = (len(settings.TUNED) + evolved) * size.updates // size.epoch
    with progress.track("tuning", total=epochs, unit="epoch") as advance:
        printed = tuning.tune(table, size, runs.command(), advance)
    Written(folder, "", "", "").section("", {"tuning": printed})


def tune_peers(table: ScoreTable, names: list[str], folder: pathlib.Path) -> None:
    """Every trial of every arm, and the settings to be chosen."""
    runner, tried = peers.Runner(table, folder / "pieces"), {}
    with progress.track("tuning", total=len(names), unit="arm") as advance:
        for name in names:
            tried[name] = runner.tune(name)
            advance(1)
    printed = peers_report.tuning_table(tried, runs.command())
    Written(folder, "", "", "").section("", {"peers_tuning": printed})
    for name, regret in tried.items():
        chosen = {b: peers.ARMS[name].trials[i] for b, i in peers.choose(regret).items()}
        print(f"{name!r}: {chosen!r},")


def compare_peers(
    table: ScoreTable, names: list[str], size: peers.Size, folder: pathlib.Path
) -> None:
    """These arms on the data sets of a size, and the report."""
    command = runs.command()
    runner = peers.Runner(table, folder / "pieces")
    written = Written(
        folder,
        command,
        "What a controller is compared with",
        "Every score is looked up, nothing but one arm pays twice.",
    )
    budgets = {name: runner.budgets(name) for name in names}
    total = len(size.data_sets) * sum(map(len, budgets.values()))
    with progress.track("searches", total=total, unit="search") as advance:
        for data_set in size.data_sets:
            found = {}
            for name in names:
                for budget in reversed(budgets[name]):
                    found[name, budget] = runner.run(name, budget, data_set, size.seeds)
                    advance(1)
            judge = Judge.of(table, data_set)
            said = peers_report.answer(data_set, judge, found, command)
            written.section(data_set, said.tables)
            written.answer(f"{data_set}: {peers_report.QUESTION}", said.sentence, said.figures)
    written.finish({"seeds": size.seeds, "chosen": peers.CHOSEN})


def time_seeds(table: ScoreTable, folder: pathlib.Path) -> None:
    """Seed-updates a second of every arm: one seed, 50 side by side (vmap), 50 one after another
    (map), on all devices.
    """
    size, rows = settings.SIZES["quick"], []
    rewards, space = table.rewards(settings.TUNING_SET), table.space
    for name in settings.STRATEGIES:
        config = settings.configure(name, size, space)
        parts = seeds.components(config, space)
        rates = []
        for count, mapped in ((1, True), (size.piece, False), (size.piece, True)):
            program, elapsed = seeds.program(config, parts, mapped=mapped), []
            for _ in range(4):  # the first compiles; the fastest counts
                started = time.perf_counter()
                seeds.run(program, parts, range(count), rewards, 1)
                elapsed.append(time.perf_counter() - started)
            rates.append(count * size.epoch / min(elapsed[1:]))
        rows.append(Row([settings.TITLES[name], *rates]))
        print(rows[-1].cells, flush=True)
    columns = [
        Column("strategy"),
        *(Column(name, 0) for name in ("one seed", "50, vmap", "50, map")),
    ]
    notes = [
        f"Seed-updates a second; best of 3 epochs of {size.epoch} updates, state made included; "
        f"{runs.versions()['device']}."
    ]
    Written(folder, "", "", "").section(
        "", {"timing": Table("Many seeds in one program", columns, rows, notes, runs.command())}
    )
