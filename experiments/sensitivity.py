"""Which settings does the memory's effect hang on? One setting at a time, and memory size against
refresh period.

On a generated table of architectures (see nas/data/table.py), where many seeds are cheap. Every
variant is searched with both supervised objectives: `reconstruct` is to shape the state, so its
columns show how distances of states follow the operations in common; `next_decision` is to make the
policy look back, so its columns show what the policy does, exactly. Prints tables, writes CSV,
Markdown, PNG and report/index.html; finished variants are kept.
"""

import pathlib

from absl import flags

from launch import common, device

common.define_flags(folder="runs/sensitivity")
flags.DEFINE_integer("seeds", 10, "Seeds of every variant.", lower_bound=2)
flags.DEFINE_integer("updates", 250, "Updates of every search, a multiple of 25.", lower_bound=25)
flags.DEFINE_float(
    "strength",
    0.5,
    "Share of the variance that interactions explain, 0 to 1.",
    lower_bound=0,
    upper_bound=1,
)
FLAGS = flags.FLAGS


def main():
    import jax

    from nas.errors import UserError
    from nas.evaluation.edit_distance import available_cores

    if FLAGS.updates % 25:
        raise UserError(f"--updates: must be a multiple of 25, got {FLAGS.updates}")
    jax.config.update(
        "jax_num_cpu_devices", available_cores()
    )  # seeds are spread over devices: one a core
    device.select_device(FLAGS.platform)
    from experiments.tabular import settings, variants
    from experiments.tabular.sensitivity import (
        phase_figure,
        phase_table,
        variants_figure,
        variants_table,
    )
    from experiments.writing import Written
    from nas import progress, runs
    from nas.data import table as tables

    folder, command = (
        pathlib.Path(FLAGS.workdir or pathlib.Path("runs", "sensitivity")),
        runs.command(),
    )
    about = (
        "A generated table, on which every architecture's accuracy is known and many seeds are "
        "cheap."
    )
    written = Written(folder, command, "Which settings does the memory's effect hang on?", about)
    size = settings.Size(seeds=FLAGS.seeds, updates=FLAGS.updates, data_sets=())
    bench = variants.Bench(tables.synthetic_table(0, FLAGS.strength), size, folder / "pieces")
    bench.folder.mkdir(exist_ok=True)
    every, grid = (
        variants.one_at_a_time(),
        [(rows, period) for rows in variants.SIZES for period in variants.PERIODS],
    )
    measured, phase = {}, {}
    total = sum(len(variant.arms) for variant in every) + len(grid)
    with progress.track("sensitivity", total=total, unit="variant") as advance:
        for variant in every:
            for arm in variant.arms:
                measured[variant.setting, variant.value, arm] = bench.measure(arm, variant)
                advance(1)
        for rows, period in grid:
            variant = variants.memory(rows, period, "phase", f"{rows}-{period}", longer=4.0)
            phase[rows, period] = bench.measure(variants.NEXT, variant)
            advance(1)
    written.section(
        "Tables",
        {"sensitivity": variants_table(measured, command), "phase": phase_table(phase, command)},
    )
    one = "Left: reconstruct. Others: next decision. Means and 95 % intervals; dotted: the base."
    written.answer("One setting at a time", "", [("sensitivity", variants_figure(measured), one)])
    caption = "Next decision, four times the updates: means over seeds at the end."
    written.answer(
        "When does a policy learn its memory by heart?",
        "",
        [("phase", phase_figure(phase), caption)],
    )
    written.finish({"seeds": FLAGS.seeds, "updates": FLAGS.updates, "strength": FLAGS.strength})


if __name__ == "__main__":
    common.run(main)
