"""Do shared weights rank cells as training them alone does? Rank correlations, with the ceilings that noise allows.

Cells drawn uniformly, and as many of the best tenth of ten times as many under shared weights, are scored by the shared weights
of two searches and trained from scratch with two seeds. No measurement agrees better with another than with its own repetition.
Prints the table, writes CSV, PNG and report/index.html; finished pieces are kept, also those of experiments.table_search in the
same folder.
"""

import dataclasses
import pathlib
import sys

from absl import flags

from launch import common

common.define_flags(default_config="quick")
flags.DEFINE_string("strategy", "uniform", "Whose searches train the shared weights, of those in experiments/arms.py.")
flags.DEFINE_list("seeds", "0,1", "Two seeds, of searches and of training from scratch.")
flags.DEFINE_integer("cells", 30, "Cells of each stratum.", lower_bound=3)
FLAGS = flags.FLAGS
_CELLS_KEY = 2203  # of the cells, the same for all settings
_UNIFORM, _BEST = "drawn uniformly", "best tenth under shared weights"


def main():
    from experiments.arms import STRATEGIES
    from nas.errors import UserError

    base, seeds = common.config(), common.seeds()
    if FLAGS.strategy not in STRATEGIES:
        raise UserError(f"--strategy: unknown strategy {FLAGS.strategy!r}; choose from {', '.join(STRATEGIES)}")
    if len(seeds) != 2:
        raise UserError(f"--seeds: two different ones, separated by a comma; got {','.join(FLAGS.seeds)!r}")
    common.select_device(FLAGS.platform)
    import numpy as np

    from experiments import search_study, searches
    from experiments.writing import Written
    from nas import runs
    from nas.config import TrainingConfig
    from nas.search import Interrupted

    options = {"corpus_dir": FLAGS.corpus_dir, "data_dir": FLAGS.data_dir}
    root = pathlib.Path(FLAGS.workdir or pathlib.Path("runs", "table_search", common.config_name()))
    try:
        unread = dataclasses.replace(base, training=TrainingConfig())
        searched = searches.search(root, unread, [FLAGS.strategy], seeds, **options)[FLAGS.strategy]
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.code
    folder, question = root / "rank_agreement", "Do shared weights rank cells as training them alone does?"
    written = Written(folder, runs.command(), question, f"Shared weights of {STRATEGIES[FLAGS.strategy].title}, two searches.")
    pool, shared = _score(folder / f"{FLAGS.strategy}-{FLAGS.cells}-cells.npz", searched, 10 * FLAGS.cells)

    def alone(seed, decisions):
        return search_study.train(root, base, seed, searched[0].space.format(decisions), **options)[0].log_perplexity

    measured = {}
    for title, chosen in strata(shared, FLAGS.cells).items():
        trained = [[alone(seed, decisions) for decisions in pool[chosen]] for seed in seeds]
        measured[title] = (shared[:, chosen], np.array(trained))
    written.section("Table", {"rank_agreement": table(measured, len(searched[0].corpus.vocabulary), runs.command())})
    caption = "Perplexities, means over both searches and over both trainings."
    written.answer(question, answer(measured), [("rank_agreement", figure(measured), caption)])
    written.finish({"strategy": FLAGS.strategy, "seeds": seeds, "cells": FLAGS.cells, "epochs": base.training.epochs})


def strata(shared, cells):
    """Stratum -> numbers of its cells in the pool, which log perplexities [2, P] under shared weights tell apart."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(np.nan_to_num(shared, nan=np.inf), axis=1).mean(axis=0)
    return {_UNIFORM: np.arange(cells), _BEST: np.argsort(ranks, kind="stable")[:cells]}


def agreement(first, second, statistic):
    """Mean of `statistic` over pairs of a measurement of [M, n] and one of [N, n]: single ones, as in a search."""
    import numpy as np

    return np.mean([statistic(a, b).statistic for a in first for b in second])


def table(measured, vocabulary, command):
    """Kendall's tau and Spearman's correlation of each stratum, from (shared [2, n], alone [2, n]) nats a token."""
    import numpy as np
    from scipy.stats import kendalltau, spearmanr

    from nas.report.tables import Column, Row, Table

    rows = []
    for title, (shared, alone) in measured.items():
        diverged = float(np.sum(~np.all(shared < np.log(vocabulary), axis=0)))
        compared = {
            "shared weights against training alone": (shared, alone),
            "two trainings alone": (alone[:1], alone[1:]),
            "two searches' weights": (shared[:1], shared[1:]),
        }
        for comparison, pair in compared.items():
            cells = [_interval(*pair, statistic) for statistic in (kendalltau, spearmanr)]
            rows.append(Row([title, comparison, float(alone.shape[1]), diverged, *cells], comparison.startswith("two")))
    columns = [Column("cells"), Column("what is compared"), Column("number", 0), Column("diverged", 0)]
    notes = [
        "Of single measurements: the mean over four pairs of a search and a training. 95 % intervals: bootstrap over cells.",
        "Between rules: ceilings, a measurement against its repetition with another seed.",
        "Diverged: no better than guessing under the weights of a search (perplexity at or above the number of types).",
        "The best tenth is chosen by the mean rank under the same shared weights: a narrow range, harder to agree in.",
    ]
    columns += [Column("Kendall's tau", 2), Column("Spearman", 2)]
    return Table(
        "Shared weights against training alone: rank correlations of validation perplexity", columns, rows, notes, command
    )


def answer(measured):
    """How well the two agree, in a sentence."""
    from scipy.stats import kendalltau

    told = [f"{title} {_interval(*pair, kendalltau)}" for title, pair in measured.items()]
    return f"Kendall's tau between a search's shared weights and training alone: {'; '.join(told)}."


def figure(measured):
    """Shared against alone, a panel a stratum."""
    import numpy as np

    from nas.report.style import PALETTE, new_figure, style

    with style():
        drawn = new_figure(6.8, 3.0, layout="constrained")
        axes = drawn.subplots(1, len(measured))
        for i, (ax, (title, pair)) in enumerate(zip(axes, measured.items(), strict=True)):
            shared, alone = (np.exp(values.mean(axis=0)) for values in pair)
            ax.scatter(shared, alone, s=12, color=PALETTE[i])
            ax.set(xscale="log", title=title, xlabel="perplexity under shared weights", ylabel="perplexity trained alone")
        return drawn


def _interval(first, second, statistic, *, resamples=1000):
    """The agreement with its bootstrap interval over cells, as text."""
    import numpy as np

    first, second = np.nan_to_num(first, nan=np.inf), np.nan_to_num(second, nan=np.inf)
    rng, cells = np.random.default_rng(0), first.shape[1]
    drawn = [rng.integers(cells, size=cells) for _ in range(resamples)]
    values = [agreement(first[:, rows], second[:, rows], statistic) for rows in drawn if len(np.unique(rows)) > 2]
    low, high = np.nanquantile(values, (0.025, 0.975))
    return f"{agreement(first, second, statistic):.2f} [{low:.2f}, {high:.2f}]"


def _score(path, searched, count):
    """Decisions [count, T] drawn uniformly, and [2, count] nats a token under the shared weights of both searches."""
    import jax
    import numpy as np
    from tqdm import tqdm

    from nas.checkpoint import load_arrays, save_arrays

    decisions = np.asarray(searched[0].space.sample_uniform(jax.random.key(_CELLS_KEY), count))
    if not path.is_file():
        with tqdm(total=len(searched) * count, unit="cell") as bar:
            scores = [run.log_perplexities(decisions, run.valid_windows(), bar.update) for run in searched]
        save_arrays(path, {"scores": np.stack(scores)})
    return decisions, load_arrays(path)["scores"]


if __name__ == "__main__":
    common.run(main)
