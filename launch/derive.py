"""Derives an architecture from a search: ranks samples of its strategy under its shared weights,
without test data.

Needs only the run directory. Writes derived.csv and derived.json into it and prints the best.
"""

import json

from absl import flags

from launch import common, device

common.define_flags(folder=None)
flags.DEFINE_integer(
    "architectures", 1000, "Samples of the strategy; repeated ones are ranked once.", lower_bound=1
)
flags.DEFINE_integer(
    "seed",
    0,
    "Seed for the samples and for the examples that rank them.",
    lower_bound=0,
    upper_bound=2**32 - 1,
)
flags.DEFINE_string(
    "decisions", "", "An architecture of your own to rank with them: its numbers, '0 0 0 1 ...'."
)
FLAGS = flags.FLAGS
_PRINTED = 10


def main():
    workdir = common.workdir()
    device.select_device(FLAGS.platform)
    from nas import derivation, runs
    from nas.files import write_atomic

    run = runs.open_run(workdir)
    derived = derivation.derive(
        run, FLAGS.architectures, seed=FLAGS.seed, given=common.decisions(run.space)
    )
    rows = _rows(run.task, derived)
    _table(run.task, rows, derived).csv(workdir / "derived.csv")
    best = run.space.format(derived.decisions[0])
    record = {
        "command": runs.command(),
        "seed": FLAGS.seed,
        "progress": run.progress,
        "sampled": FLAGS.architectures,
        "repeated": derived.repeated,
        "decisions": best,
        "loss": float(derived.loss[0]),
        "held_out_loss": float(derived.held_out[0]),
        "held_out_reward": float(derived.reward[0]) if run.task.metric.also else None,
    }
    write_atomic(workdir / "derived.json", json.dumps(record, indent=2) + "\n")
    print(
        _table(
            run.task, rows[:_PRINTED] + [row for row in rows[_PRINTED:] if row.reference], derived
        ).text()
    )
    told = run.task.metric.texts(derived.held_out[0], derived.reward[0])
    print(
        f"best: {told} on the half of the validation split that did not rank it; decisions {best}"
    )
    print(f"all of them: {workdir / 'derived.csv'}")


def _rows(task, derived):
    import numpy as np

    from nas.report.tables import Empty, Row

    rows = []
    with np.errstate(over="ignore"):  # architectures that have diverged overflow
        shown, held_out = (task.metric.shown(of) for of in (derived.loss, derived.held_out))
    for i, decisions in enumerate(derived.decisions):
        lasted = derived.examples[i] == derived.examples[0]
        cells = [i + 1.0, task.space.format(decisions), float(derived.examples[i]), float(shown[i])]
        cells.append(float(held_out[i]) if lasted else Empty("left before"))
        if task.metric.also:
            shown_reward = float(task.metric.also_shown(derived.reward[i]))
            cells.append(shown_reward if lasted else Empty("left before"))
        rows.append(Row(cells, bool(derived.given[i])))
    return rows


def _table(task, rows, derived):
    from nas import runs
    from nas.report.tables import Column, Table

    name, digits = task.metric.name, task.metric.digits
    return Table(
        f"Architectures derived from the search, {name} under its shared weights",
        [
            Column("rank", 0),
            Column("decisions"),
            Column("examples that rank it", 0),
            Column(f"{name} of these", digits),
            Column(f"{name} of the other half", digits),
            *([Column(f"{task.metric.also} of the other half", 2)] if task.metric.also else []),
        ],
        rows,
        [
            f"{len(derived.decisions)} architectures; {derived.repeated} of {FLAGS.architectures} "
            "samples repeated others.",
            "Halves of the validation split, in rows by turns; the search took its rewards from "
            "both. No test data.",
            *(
                ["Between rules: the architecture of --decisions."]
                if any(row.reference for row in rows)
                else []
            ),
        ],
        runs.command(),
    )


if __name__ == "__main__":
    common.run(main)
