"""Do shared weights rank cells as training them alone does? Rank correlations, with the ceilings
that noise allows.

Two strata of cells are scored by the shared weights of two searches and trained from scratch with
two seeds: cells drawn uniformly, and the best tenth, under shared weights, of ten times as many. No
measurement can agree better with another than with its own repetition. Prints the table, writes
CSV, Markdown, PNG and report/index.html; finished pieces are kept, also those of
experiments.table_search in the same folder.
"""

import pathlib

from absl import flags

from experiments.arms import STRATEGIES
from launch import common, configuration, device, side_by_side

common.define_flags("quick", folder="runs/table_search/NAME, after the configuration")
flags.DEFINE_string(
    "strategy",
    "uniform",
    f"Strategy whose searches train the shared weights: {', '.join(STRATEGIES)}; "
    "experiments/arms.py says what they are.",
)
flags.DEFINE_list("seeds", "0,1", "Two seeds, of searches and of training from scratch.")
flags.DEFINE_integer("cells", 30, "Cells of each stratum.", lower_bound=3)
side_by_side.define_flags()
FLAGS = flags.FLAGS
_CELLS_KEY = 2203  # seed of the cells, the same for all settings


def main():
    from nas.errors import UserError

    base, seeds = configuration.config(), common.seeds()
    if FLAGS.strategy not in STRATEGIES:
        raise UserError(
            f"--strategy: unknown strategy {FLAGS.strategy!r}; choose from {', '.join(STRATEGIES)}"
        )
    if len(seeds) != 2:
        raise UserError(
            "--seeds: give two different seeds, separated by a comma; got "
            f"{','.join(FLAGS.seeds)!r}"
        )
    device.select_device(FLAGS.platform)
    import numpy as np

    from experiments.search import pieces, ranks, searches
    from experiments.writing import Written
    from nas import runs

    options = common.data_options()
    root = pathlib.Path(
        FLAGS.workdir or pathlib.Path("runs", "table_search", configuration.config_name())
    )
    searched = searches.search(root, base, [FLAGS.strategy], seeds, **options)[FLAGS.strategy]
    folder, question = (
        root / "rank_agreement",
        "Do shared weights rank cells as training them alone does?",
    )
    written = Written(
        folder,
        runs.command(),
        question,
        f"Shared weights of {STRATEGIES[FLAGS.strategy].title}, two searches.",
    )
    pool, shared = _score(
        folder / f"{FLAGS.strategy}-{FLAGS.cells}-cells.npz", searched, 10 * FLAGS.cells
    )

    strata = ranks.strata(shared, FLAGS.cells)
    cells = {
        title: [searched[0].space.format(decisions) for decisions in pool[chosen]]
        for title, chosen in strata.items()
    }
    wanted = [(seed, cell) for chosen in cells.values() for seed in seeds for cell in chosen]
    trained = pieces.train(root, base, wanted, **options)
    measured = {}
    for title, chosen in strata.items():
        alone = [[trained[seed, cell].result.loss for cell in cells[title]] for seed in seeds]
        measured[title] = (shared[:, chosen], np.array(alone))
    written.section(
        "Table",
        {"rank_agreement": ranks.table(measured, searched[0].task.metric, runs.command())},
    )
    caption = (
        "Ranks of mean losses, over both searches and over both trainings; 1 is the best. "
        "Dotted: full agreement."
    )
    written.answer(
        question,
        ranks.answer(measured),
        [("rank_agreement", ranks.figure(measured), caption)],
    )
    written.finish(
        {
            "strategy": FLAGS.strategy,
            "seeds": seeds,
            "cells": FLAGS.cells,
            "epochs": base.training.epochs,
        }
    )


def _score(path, searched, count):
    """Decisions [count, T] drawn uniformly, and [2, count] losses under the shared weights of
    both searches.
    """
    import jax
    import numpy as np

    from experiments.search import pieces
    from nas.arrays import load_arrays, save_arrays

    decisions = np.asarray(searched[0].space.sample_uniform(jax.random.key(_CELLS_KEY), count))
    if not path.is_file():
        save_arrays(path, {"scores": np.stack([pieces.score(run, decisions) for run in searched])})
    return decisions, load_arrays(path)["scores"]


if __name__ == "__main__":
    common.run(main)
