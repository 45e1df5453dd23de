"""Does the memory cost or help a search, and what does a controller learn? On a table of all
architectures of NAS-Bench-201.

Runs random search, regularised evolution and the arms of the controller over many seeds, prints
tables and one sentence a question, writes them as CSV, Markdown, PNG and report/index.html.
`--table=synthetic` needs no data: it runs all strategies on generated tables of rising interaction;
`--table=synthetic:0.5` the whole study on one of them.
"""

import pathlib
import time

from absl import flags

from launch import common, device

SYNTHETIC = "synthetic"

common.define_flags(folder="runs/study_nasbench201_TABLE_CONFIG")
flags.DEFINE_string(
    "table",
    "",
    "CSV file (.csv or .csv.gz) of accuracies of NAS-Bench-201: --convert makes it, and "
    "nas/data/table.py names its columns; synthetic; or synthetic:STRENGTH, 0 to 1.",
)
flags.DEFINE_enum(
    "config",
    "quick",
    ["quick", "full"],
    "quick: 50 seeds, minutes; full: 200 seeds and 4,000 queries, hours.",
)
flags.DEFINE_bool(
    "tune",
    False,
    "Instead of the study, run the grid from which settings were chosen, on CIFAR-10.",
)
flags.DEFINE_bool(
    "timing",
    False,
    "Instead of the study, time one seed, and 50 side by side and one after another.",
)
flags.DEFINE_string(
    "convert",
    "",
    "Instead of the study, convert this file or folder of NATS-Bench into --table, such as "
    "NATS-tss-v1_0-3ffb9-simple, which https://github.com/D-X-Y/NATS-Bench says where to download. "
    "Needs the package nats_bench.",
)
FLAGS = flags.FLAGS


def main():
    from nas.errors import UserError

    if not FLAGS.table:
        raise UserError(
            "--table: must name a CSV file of accuracies, or be synthetic, which needs no file"
        )
    import jax

    from nas.evaluation.edit_distance import available_cores

    jax.config.update(
        "jax_num_cpu_devices", available_cores()
    )  # seeds are spread over devices: one a core
    device.select_device(FLAGS.platform)
    from experiments.tabular import program

    if FLAGS.convert:
        return program.convert(FLAGS.convert, pathlib.Path(FLAGS.table))
    name = "synthetic" if FLAGS.table.startswith(SYNTHETIC) else "table"
    folder = pathlib.Path(
        FLAGS.workdir or pathlib.Path("runs", f"study_nasbench201_{name}_{FLAGS.config}")
    )
    started = time.perf_counter()
    if FLAGS.table == SYNTHETIC and not (FLAGS.tune or FLAGS.timing):
        program.sweep(folder)
    else:
        table = program.read_accuracies(FLAGS.table)
        if FLAGS.tune:
            program.tune(table, folder)
        elif FLAGS.timing:
            program.time_seeds(table, folder)
        else:
            program.study(table, FLAGS.config, folder)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    common.run(main)
