"""Do shared weights rank cells as training them alone does? Exactly, on a space of which every cell
was trained, and by sample at several sizes and lengths of training.

Trains supernets of the character model of experiments.every_cell: cells drawn uniformly, by policy
gradient, and by policy gradient with a memory. Then searches the space with the true reward and
with that of shared weights. Prints tables, writes them as CSV, Markdown, PNG and
report/index.html; finished pieces are kept.
"""

import pathlib

from absl import flags

from launch import common, device

common.define_flags(folder="runs/sharing/CONFIG")
flags.DEFINE_string(
    "table", "recurrent4", "recurrent4, or a table that experiments.every_cell wrote."
)
flags.DEFINE_enum(
    "config",
    "quick",
    ["quick", "full"],
    "quick: three sizes, five minutes; full: five sizes, three quarters of an hour.",
)
FLAGS = flags.FLAGS


def main():
    import jax

    from nas.errors import UserError
    from nas.evaluation.edit_distance import available_cores

    jax.config.update("jax_num_cpu_devices", available_cores())  # a training on each core
    device.select_device(FLAGS.platform)
    from experiments.cells import sharing, sharing_report
    from experiments.writing import Written
    from nas import runs
    from nas.data import cell_table, characters

    table = cell_table.read_cells(cell_table.located(FLAGS.table))
    size = sharing.SIZES[FLAGS.config]
    if len(table.seeds) < 2:
        raise UserError(f"--table: needs two seeds at least, {FLAGS.table} has one")
    folder = pathlib.Path(FLAGS.workdir or pathlib.Path("runs", "sharing", FLAGS.config))
    command = runs.command()
    written = Written(
        folder,
        command,
        "Shared weights and cells trained alone",
        "Character models of the King James text; losses in bits a character.",
    )
    study = sharing.Study(table, characters.king_james(), size, folder / "pieces")
    truth = sharing_report.Truth.of(table)

    found = study.exact()
    told, sentence = sharing_report.exact(truth, found, table.space, command)
    written.section(f"All cells of {table.num_nodes} nodes", {"exact": told})
    written.answer(sharing_report.EXACT, sentence, [])

    bits = found[sharing.UNIFORM].bits
    searched = study.searches(-truth.validation, -bits)
    told, sentence, figure = sharing_report.searches(truth, searched, bits, command)
    written.section("Searches", {"searches": told})
    caption = "Means and 95 % intervals, over seeds and over supernets."
    written.answer(sharing_report.SEARCHES, sentence, [("searches", figure, caption)])

    told, sentence, figure = sharing_report.by_size(dict(study.by_size()), command)
    written.section("By size", {"by_size": told})
    caption = "Single measurements; 95 % intervals over resampled cells."
    written.answer(sharing_report.BY_SIZE, sentence, [("by_size", figure, caption)])
    told, sentence, figure = sharing_report.by_steps(
        dict(study.by_steps()), max(size.nodes), command
    )
    written.section("By steps", {"by_steps": told})
    written.answer(sharing_report.BY_STEPS, sentence, [("by_steps", figure, caption)])
    skipped = sum(int(of.skipped.sum()) for of in found.values())
    written.finish(size._asdict() | {"skipped updates": skipped})


if __name__ == "__main__":
    common.run(main)
