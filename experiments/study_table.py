"""Is a controller level with honest peers? On a table of all architectures of a space:
NAS-Bench-201, or the recurrent cells of a few nodes.

Runs local search, regularised evolution, random search and controllers, each with the settings that
were best for 100, 300 and 1,000 queries on CIFAR-100 of NAS-Bench-201, prints tables and one
sentence a data set, writes them as CSV, Markdown, PNG and report/index.html.
"""

import pathlib
import time

from absl import flags

from launch import common, device

common.define_flags(folder="runs/study_table_TABLE")
flags.DEFINE_string(
    "table",
    "",
    "recurrent4, all cells of 4 nodes, which comes with the project; synthetic:STRENGTH, 0 to 1, a "
    "generated one; or a CSV file (.csv or .csv.gz): accuracies of NAS-Bench-201, as "
    "study_nasbench201 --convert makes it, or cells, as every_cell writes it.",
)
flags.DEFINE_enum(
    "config",
    "quick",
    ["quick", "full"],
    "quick: 50 seeds, CIFAR-10 and ImageNet16-120 of NAS-Bench-201, minutes; full: 200 seeds, "
    "CIFAR-100 beside.",
)
flags.DEFINE_bool(
    "tune", False, "Instead of the study, run the trials from which settings are chosen."
)
flags.DEFINE_list("arms", [], "Run only these; local_search is always among them. Empty: all.")
flags.DEFINE_list(
    "data_sets",
    [],
    "Report only these of the table: cifar10, cifar100, imagenet. Empty: those of --config; of "
    "cells kjv.",
)
FLAGS = flags.FLAGS


def main():
    from nas.errors import UserError

    if not FLAGS.table:
        raise UserError(
            "--table: must be recurrent4 or synthetic:STRENGTH, which need no file, or name a CSV "
            "file of accuracies or cells"
        )
    import jax

    from nas.evaluation.edit_distance import available_cores

    jax.config.update("jax_num_cpu_devices", available_cores())  # seeds are spread over devices
    device.select_device(FLAGS.platform)
    from experiments.tabular import peers, program
    from nas.data import cell_table

    known = peers.ARMS if FLAGS.tune else peers.CHOSEN
    if unknown := sorted(set(FLAGS.arms) - set(known)):
        hint = "" if unknown[0] not in peers.ARMS else "; its settings were not chosen, see --tune"
        raise UserError(f"--arms: must be of {', '.join(known)}, got {unknown[0]!r}{hint}")
    if FLAGS.arms == [peers.LOCAL_SEARCH] and not FLAGS.tune:
        raise UserError("--arms: must name another arm beside local_search")
    wanted = {*FLAGS.arms, peers.LOCAL_SEARCH} if FLAGS.arms else set(known)
    names = [name for name in known if name in wanted]
    kind, started = FLAGS.table.partition(":")[0], time.perf_counter()
    name = kind if kind in ("synthetic", *cell_table.PACKAGED) else "table"
    folder = pathlib.Path(FLAGS.workdir or pathlib.Path("runs", f"study_table_{name}"))
    if FLAGS.tune:
        program.tune_peers(program.read_accuracies(FLAGS.table), names, folder)
    else:
        table = program.read(FLAGS.table)
        if unknown := sorted(set(FLAGS.data_sets) - set(table.data_sets)):
            of = ", ".join(table.data_sets)
            raise UserError(f"--data_sets: must be of {of}, got {unknown[0]!r}")
        size = peers.SIZES[FLAGS.config].of(table)
        chosen = size._replace(data_sets=tuple(FLAGS.data_sets) or size.data_sets)
        program.compare_peers(table, names, chosen, folder)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    common.run(main)
