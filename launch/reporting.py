"""From opened runs to the printed table and the HTML report; shared by launch.evaluate and the drivers of experiments."""

import dataclasses
import json
import pathlib

import numpy as np

from nas import measurements, metrics, runs
from nas.data import ngrams
from nas.evaluation.samples import SETS
from nas.measurements import TRAINED, UNTRAINED
from nas.report import study
from nas.runs import Run


def report(folder: pathlib.Path, arms: dict[str, list[Run]], *, architectures: int = 0) -> pathlib.Path:
    """Measures the runs, prints the tables, writes correlations_*.csv and report/index.html into `folder`; returns its path.

    Args:
      arms: title -> one run a seed, the same seeds in each; the untrained controller is measured under the first arm's weights.
      architectures: of each evaluation set; 0: as many as the configuration says.
    """
    controllers, trained = [], []
    for title, seeds in arms.items():
        first = not controllers
        measured = [measurements.measure(run, architectures=architectures, untrained=first) for run in seeds]
        if first:
            controllers.append(study.Controller("untrained", [m.controllers[UNTRAINED].samples for m in measured]))
        controllers.append(study.Controller(title, [m.controllers[TRAINED].samples for m in measured]))
        trained.append(_trained(title, seeds[0], measured[0].best_log_perplexity))
    run = next(iter(arms.values()))[0]
    corpus, command = run.corpus, runs.command()
    size = len(corpus.vocabulary)
    yardsticks = {
        "unigram": ngrams.unigram_perplexity(corpus.train, corpus.valid, size),
        "bigram, Kneser-Ney": ngrams.kneser_ney_bigram_perplexity(corpus.train, corpus.valid, size),
    }
    tables = study.correlation_tables(run.space, controllers, command)
    for table, name in zip(tables, SETS, strict=True):
        table.csv(folder / f"correlations_{name}.csv")
    tables.append(study.protocol_table(run.space, controllers, command))
    tables[-1].csv(folder / "correlations_protocol.csv")
    tables.append(study.perplexity_table(trained, yardsticks, command))
    for table in tables:
        print(table.text())
    path = study.write_report(
        folder / "report" / "index.html",
        run.space,
        tables,
        controllers,
        trained,
        list(dict.fromkeys([command, *(seed.metadata["command"] for seeds in arms.values() for seed in seeds)])),
        runs.versions() | {"configuration": json.dumps(dataclasses.asdict(run.config))},
    )
    print(f"report: {path}")
    return path


def _trained(title: str, run: Run, best: float) -> study.TrainedArm:
    lines = run.metrics()
    steps, loss = metrics.curves(lines, "shared")["loss"]
    curves = metrics.curves(lines, "controller") | {"perplexity": (steps, np.exp(loss))}
    return study.TrainedArm(title, curves, np.asarray(run.state.best_decisions), best)
