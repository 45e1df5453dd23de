"""The isomorph test: how much of the spread of cells under shared weights is an artefact of
sharing?

Relabelled copies of a cell compute the same function with other matrices of the shared weights.
Trained alone they would be equal, so that differences between their losses say nothing about the
cell. Needs only the run directory of a search.
"""

from absl import flags

from launch import common, device

common.define_flags(folder=None)
flags.DEFINE_integer("cells", 50, "Cells of each set.", lower_bound=2)
flags.DEFINE_integer("copies", 8, "Relabelled copies of each cell.", lower_bound=2)
flags.DEFINE_integer(
    "seed",
    0,
    "Seed for the cells, their copies and the resampling.",
    lower_bound=0,
    upper_bound=2**32 - 1,
)
FLAGS = flags.FLAGS


def main():
    workdir = common.workdir()
    device.select_device(FLAGS.platform)
    from nas import runs
    from nas.arrays import save_arrays

    run = runs.open_run(workdir)
    measured = measure(run, cells=FLAGS.cells, copies=FLAGS.copies, seed=FLAGS.seed)
    save_arrays(workdir / "isomorphs.npz", measured)
    result = table(measured, run.task.metric, runs.command(), seed=FLAGS.seed)
    result.save(workdir, "isomorphs")
    print(result.text())


def measure(run, *, cells, copies, seed):
    """Set -> [cells, copies] losses of relabelled copies under the run's shared weights, on its
    validation windows.

    Cells with fewer distinct copies are left out.
    """
    import jax
    import numpy as np

    from nas import progress, steps
    from nas.types import stacked

    (uniform_key, own_key), rng = (
        jax.random.split(jax.random.key(seed)),
        np.random.default_rng(seed),
    )
    drawn = {
        "uniform cells": run.space.sample_uniform(uniform_key, cells),
        "the search's own cells": steps.components(run.config).strategy.propose(
            run.state.strategy, own_key, cells
        ),
    }
    groups = {
        name: [
            group
            for d in np.asarray(decisions)
            if len(group := run.space.copies(d, copies, rng)) == copies
        ]
        for name, decisions in drawn.items()
    }
    batches = run.valid_batches()
    length = stacked(batches)
    total = sum(map(len, groups.values())) * copies * length
    measured = {}
    with progress.track("isomorphs", total=total, unit="batch") as advance:
        for name, group in groups.items():
            every = np.concatenate([np.zeros((0, run.space.num_decisions), np.int32), *group])
            values = run.losses(every, batches, lambda count: advance(count * length))
            measured[name] = values.reshape(-1, copies)
    return measured


def table(measured, metric, command, *, seed=0):
    """The variance components of each set, and again without cells of which a copy does no better
    than guessing.
    """
    import numpy as np

    from nas.evaluation.statistics import variance_components
    from nas.report.tables import Column, Empty, Row, Table

    rows = []
    for name, values in measured.items():
        learned = np.all(values < metric.guessing, axis=1)  # False for NaN
        chosen = (
            {name: values}
            if learned.all()
            else {name: values, f"{name}, none diverged": values[learned]}
        )
        for title, group in chosen.items():
            if len(group) < 2:
                rows.append(Row([title, float(len(group)), *[Empty("too few cells")] * 3]))
                continue
            within, between, share = variance_components(group, seed=seed)
            interval = "undefined" if np.isnan(share.low) else share.text()
            rows.append(Row([title, float(len(group)), between, within, interval]))
    return Table(
        f"Isomorph test: {metric.loss} under shared weights of relabelled copies of a cell",
        [
            Column("set"),
            Column("cells", 0),
            Column("sd between cells", 4),
            Column("sd between copies", 4),
            Column("share of variance that is sharing's artefact", 3),
        ],
        rows,
        [
            f"Components of variance, {metric.unit}; share: copies / (copies + cells), 95 % "
            "interval of a bootstrap over cells.",
            "Copies are drawn from all numberings of a cell's nodes; the one that was sampled has "
            "no place of its own.",
            "Diverged: a copy does no better than guessing.",
        ],
        command,
    )


if __name__ == "__main__":
    common.run(main)
