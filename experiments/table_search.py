"""Does the controller matter? Strategies at one budget: search, derivation, training from scratch, test perplexity.

For every strategy and seed: a search, the cells derived from it, and the best of them trained from scratch, beside a cell drawn
at random. Shared weights also score the cells of the other strategies. Prints tables, writes CSV, PNG and report/index.html;
finished pieces are kept, interrupted ones continue.
"""

import pathlib
import sys

from absl import flags

from launch import common

common.define_flags(default_config="kjv_quick")
flags.DEFINE_list(
    "strategies", "pg,memory,uniform,factorised,evolution", "Strategies to compare, of those in experiments/arms.py."
)
flags.DEFINE_list("seeds", "0,1,2", "Seeds of every strategy.")
flags.DEFINE_integer("derived", 100, "Samples of every strategy that are ranked.", lower_bound=1)
flags.DEFINE_integer("scratch_epochs", 1, "Epochs of training from scratch.", lower_bound=1)
FLAGS = flags.FLAGS


def main():
    from experiments.arms import STRATEGIES
    from nas.errors import UserError

    base, names = common.config(), list(dict.fromkeys(FLAGS.strategies))
    for name in names:
        if name not in STRATEGIES:
            raise UserError(f"--strategies: unknown strategy {name!r}; choose from {', '.join(STRATEGIES)}")
    if len(names) < 2:
        raise UserError(f"--strategies: at least two, separated by commas; got {','.join(names)!r}")
    seeds = common.seeds()
    common.select_device(FLAGS.platform)
    import numpy as np

    from experiments import search_study, search_tables, searches
    from experiments.search_tables import Control, Found
    from experiments.writing import Written
    from nas import runs
    from nas.search import Interrupted

    options = {"corpus_dir": FLAGS.corpus_dir, "data_dir": FLAGS.data_dir}
    root = pathlib.Path(FLAGS.workdir or pathlib.Path("runs", "table_search", common.config_name()))
    try:
        searched = searches.search(root, base, names, seeds, **options)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.code
    derived = {name: [search_study.derive(run, FLAGS.derived) for run in searched[name]] for name in names}
    crossed = np.stack(
        [
            search_study.cross({name: searched[name][i] for name in names}, {name: derived[name][i] for name in names})
            for i in range(len(seeds))
        ]
    )

    def from_scratch(cells):
        """Log perplexities [S] of validation and test of a cell for each seed."""
        trained = [
            search_study.train(root, base, seed, decisions, FLAGS.scratch_epochs, **options)
            for seed, decisions in zip(seeds, cells, strict=True)
        ]
        return tuple(np.transpose([(result.log_perplexity, result.test_log_perplexity) for result in trained]))

    control = Control(*from_scratch([search_study.random_cell(searched[names[0]][0].space, seed) for seed in seeds]))
    found = {}
    for name in names:
        valid, test = from_scratch([cells.decisions[0] for cells in derived[name]])
        found[name] = Found(
            title=STRATEGIES[name].title,
            best=np.array([cells.held_out for cells in derived[name]]),
            mean=np.array([cells.log_perplexity.mean() for cells in derived[name]]),
            valid=valid,
            test=test,
            unique=np.array([len(cells.decisions) for cells in derived[name]]),
            curves=[search_study.best_so_far(run.metrics()) for run in searched[name]],
        )

    command, question = runs.command(), "Does the controller matter?"
    written = Written(root, command, question, "Strategies at the same budget: from shared weights to a trained cell.")
    tables = {
        "search": search_tables.search_table(
            found, control, samples=FLAGS.derived, epochs=FLAGS.scratch_epochs, command=command
        ),
        "crossed": search_tables.crossed_table(
            [of.title for of in found.values()], crossed, cells=search_study.CROSSED, command=command
        ),
    }
    if search_tables.RANDOM in found:
        tables["differences"] = search_tables.differences_table(found, control, command)
    written.section("Tables", tables)
    caption = "Means and 95 % intervals over seeds, at the end of each epoch after the warm-up. Wall time: mean over seeds."
    drawn = [(name, figure, caption) for name, figure in search_tables.curves_figure(found, base.search.warmup_epochs).items()]
    sentence = search_tables.answer(found, control) if search_tables.RANDOM in found else "Not asked against random search."
    written.answer(question, sentence, drawn)
    written.answer("Do shared weights specialise in the policy that trains them?", search_tables.crossed_answer(crossed), [])
    written.finish({"strategies": names, "seeds": seeds, "derived": FLAGS.derived, "scratch_epochs": FLAGS.scratch_epochs})


if __name__ == "__main__":
    common.run(main)
