"""Does the controller matter? Strategies at one budget: search, derivation, training from scratch,
test split.

For every strategy and seed: a search, the cells derived from it, and the best of them trained from
scratch, beside those of random search and successive halving without shared weights, a cell drawn
at random and an LSTM with as many parameters. Shared weights also score the cells of the other
strategies. Prints tables, writes CSV, Markdown, PNG and report/index.html; finished pieces are
kept, interrupted ones continue. The searches are kept even if another recipe for training from
scratch is asked for, such as --config.training.epochs=4.
"""

import dataclasses
import pathlib

from absl import flags

from experiments.arms import STRATEGIES
from launch import common, configuration, device, side_by_side

common.define_flags("quick", folder="runs/table_search/NAME, after the configuration")
flags.DEFINE_list(
    "strategies",
    "pg,memory,uniform,weights,factorised,evolution",
    f"Strategies to compare: {', '.join(STRATEGIES)}; experiments/arms.py says what they are.",
)
flags.DEFINE_list("seeds", "0,1,2", "Seeds of every strategy.")
flags.DEFINE_integer("derived", 100, "Samples of every strategy that are ranked.", lower_bound=1)
flags.DEFINE_integer(
    "halved",
    16,
    "Cells with which successive halving without shared weights starts.",
    lower_bound=2,
)
side_by_side.define_flags()
FLAGS = flags.FLAGS
_AGAIN = 1000  # added to a seed to train a second time


def main():
    from nas.errors import UserError

    base, names = configuration.config(), list(dict.fromkeys(FLAGS.strategies))
    for name in names:
        if name not in STRATEGIES:
            raise UserError(
                f"--strategies: unknown strategy {name!r}; choose from {', '.join(STRATEGIES)}"
            )
    if len(names) < 2:
        raise UserError(f"--strategies: at least two, separated by commas; got {','.join(names)!r}")
    seeds = common.seeds()
    device.select_device(FLAGS.platform)
    import numpy as np

    from experiments.search import pieces, searches, tables, without_sharing
    from experiments.search.tables import Found
    from experiments.writing import Written
    from nas import runs

    options = common.data_options()
    root = pathlib.Path(
        FLAGS.workdir or pathlib.Path("runs", "table_search", configuration.config_name())
    )
    searched = searches.search(root, base, names, seeds, **options)
    derived = pieces.derive_all(searched, FLAGS.derived)
    crossed = np.stack(
        [
            pieces.cross(
                {name: searched[name][i] for name in names},
                {name: derived[name][i] for name in names},
            )
            for i in range(len(seeds))
        ]
    )

    run = searched[names[0]][0]
    task, metric = run.task, run.task.metric
    drawn = [run.space.format(pieces.random_cell(run.space, seed)) for seed in seeds]
    configs = [dataclasses.replace(base, seed=seed) for seed in seeds]
    halved = without_sharing.halve_all(root, configs, FLAGS.halved, **options)
    alone = [without_sharing.random_cells(config, run.splits.train.length) for config in configs]
    random = f"random search, no sharing (best of {len(alone[0])})"
    halving = f"successive halving, no sharing (of {FLAGS.halved})"
    # Title -> for each seed its candidates: (seed of training, architecture).
    without = {
        tables.DRAWN: [[one] for one in zip(seeds, drawn, strict=True)],
        tables.AGAIN: [[(seed + _AGAIN, cell)] for seed, cell in zip(seeds, drawn, strict=True)],
        random: [
            [(seed, cell) for cell in cells] for seed, cells in zip(seeds, alone, strict=True)
        ],
        halving: [
            [(seed, run.space.format(of.decisions[0]))]
            for seed, of in zip(seeds, halved, strict=True)
        ],
    }
    for baseline, title in task.network.compared.items():
        without[f"{title}, as many parameters"] = [[(seed, baseline)] for seed in seeds]
    best = {
        STRATEGIES[name].title: [
            [(seed, run.space.format(cells.decisions[0]))]
            for seed, cells in zip(seeds, derived[name], strict=True)
        ]
        for name in names
    }
    scratch = pieces.from_scratch(root, base, without | best, **options)
    controls = {title: scratch[title] for title in without}
    seconds = {random: scratch[random].seconds, halving: np.array([of.seconds for of in halved])}
    found = {
        name: Found(
            title=STRATEGIES[name].title,
            best=metric.shown(np.array([cells.held_out for cells in derived[name]])),
            mean=metric.shown(np.array([cells.loss.mean() for cells in derived[name]])),
            scratch=scratch[STRATEGIES[name].title],
            unique=np.array([len(cells.decisions) for cells in derived[name]]),
            curves=[
                pieces.best_so_far(run.metrics(), metric, run.progress["epoch"])
                for run in searched[name]
            ],
        )
        for name in names
    }

    command, question = runs.command(), "Does the controller matter?"
    written = Written(
        root,
        command,
        question,
        "Strategies at the same budget: from shared weights to a trained cell.",
    )
    splits = run.splits
    yardsticks = [
        task.network.yardsticks(task.data, splits.train, held_out) for held_out in splits[1:]
    ]
    printed = {
        "search": tables.search_table(
            task,
            found,
            controls,
            seconds,
            samples=FLAGS.derived,
            epochs=base.training.epochs,
            yardsticks=yardsticks,
            command=command,
        ),
        "crossed": tables.crossed_table(
            metric,
            [of.title for of in found.values()],
            crossed,
            cells=pieces.CROSSED,
            command=command,
        ),
    }
    if tables.RANDOM in found:
        printed["differences"] = tables.differences_table(metric, found, controls, command)
    written.section("Tables", printed)
    caption = (
        "Means and 95 % intervals over seeds, at the end of each epoch after the warm-up. Wall "
        "time: mean over seeds."
    )
    figures = [
        (name, figure, caption)
        for name, figure in tables.curves_figure(metric, found, base.search.warmup_epochs).items()
    ]
    caption = (
        "The best derived cell of each search and, dashed, the controls: means and 95 % "
        "intervals over seeds."
    )
    if base.training.epochs > 1:
        figures.append(("from_scratch", tables.scratch_figure(metric, found, controls), caption))
    sentence = (
        tables.answer(metric, found, controls)
        if tables.RANDOM in found
        else "Not asked against random search."
    )
    written.answer(question, sentence, figures)
    written.answer(
        "Do shared weights specialise in the policy that trains them?",
        tables.crossed_answer(metric, crossed),
        [],
    )
    written.finish({"strategies": names, "seeds": seeds, "derived": FLAGS.derived})


if __name__ == "__main__":
    common.run(main)
