"""The grid on CIFAR-10 from which the settings of every arm were chosen."""

import itertools
from collections.abc import Callable

import numpy as np

from experiments.tabular import seeds, settings
from experiments.tabular.judging import Judge
from nas import config as configs
from nas.data.table import ScoreTable
from nas.report.tables import Column, Row, Table


def tune(
    table: ScoreTable, size: settings.Size, command: str, progress: Callable[[], None]
) -> Table:
    """Regret of every setting of every arm, mean over queries and seeds; the best of an arm
    first.
    """
    judge, rewards = Judge.of(table, settings.TUNING_SET), table.rewards(settings.TUNING_SET)
    space, epochs = table.space, size.updates // size.epoch
    rows = []
    for name in settings.TUNED:
        config = settings.configure(name, size, space)
        parts = seeds.components(config, space)
        rates = (
            settings.FACTORISED_LEARNING_RATES
            if name == settings.FACTORISED
            else settings.LEARNING_RATES
        )
        grid = np.array(list(itertools.product(rates, settings.ENTROPY_WEIGHTS)))
        rate, entropy = np.repeat(grid, size.seeds, axis=0).T
        run_seeds = np.tile(settings.TUNING_SEEDS[: size.seeds], len(grid))
        weights = {"learning_rate": rate, "entropy": entropy}
        program = seeds.program(config, parts)
        found = seeds.run(
            program, parts, run_seeds, rewards, epochs, weights=weights, progress=progress
        )
        regret = judge.regret(found.queries).reshape(len(grid), size.seeds, -1)
        rows += _ranked(
            name, [f"learning rate {r:g}, entropy weight {e:g}" for r, e in grid], regret
        )
    every = [
        (p, t) for p, t in itertools.product(settings.POPULATIONS, settings.TOURNAMENTS) if t <= p
    ]
    config, regret = settings.configure(settings.EVOLUTION, size, space), []
    for population, tournament in every:
        evolved = configs.override(
            config, {"strategy": {"population": population, "tournament": tournament}}
        )
        parts = seeds.components(evolved, space)
        program = seeds.program(evolved, parts)
        found = seeds.run(
            program,
            parts,
            settings.TUNING_SEEDS[: size.seeds],
            rewards,
            epochs,
            progress=progress,
        )
        regret.append(judge.regret(found.queries))
    rows += _ranked(
        settings.EVOLUTION, [f"population {p}, tournament {t}" for p, t in every], regret
    )
    return Table(
        f"Settings tried on {settings.TUNING_SET}, {size.seeds} seeds, "
        f"{size.updates * size.architectures} queries",
        [
            Column("strategy"),
            Column("setting"),
            Column("regret, mean over queries", 3),
            Column("regret at the end", 3),
        ],
        rows,
        ["Chosen: the first of each strategy."],
        command,
    )


def _ranked(name, names, regret):
    """regret: for each setting [S, Q]."""
    means = [float(np.mean(values)) for values in regret]
    ends = [float(np.mean(values[:, -1])) for values in regret]
    return [
        Row([settings.TITLES[name], names[i], means[i], ends[i]])
        for i in np.argsort(means, kind="stable")
    ]
