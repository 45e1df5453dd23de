"""Ground truth of the recurrent space: every cell of 3 or 4 nodes trained alone.

Cells are character models of the King James text. Of cells that compute the same function only one
is trained; for some, a relabelled copy is trained too, which shows whether numbering matters.
Finished blocks are kept: after a kill the same command continues. Prints how far seeds agree and
what the table says, and writes table.csv.gz, CSV, Markdown, PNG and report/index.html. `--cells=96`
trains a sample, to judge a recipe before it is used for all.
"""

import dataclasses
import pathlib

from absl import flags

from experiments.cells.recipe import CONFIGS, Recipe
from launch import common, device

common.define_flags(folder="runs/every_cell/CONFIG")
flags.DEFINE_enum("config", "quick", list(CONFIGS), "quick: 3 nodes; full: 4 nodes.")
flags.DEFINE_list("seeds", "0,1,2", "Seeds, separated by commas.")
flags.DEFINE_integer("cells", 0, "Cells of a sample; 0: all, which makes the table.", lower_bound=0)
flags.DEFINE_integer(
    "copies", 48, "Cells of which a relabelled copy is trained too.", lower_bound=0
)
_DEFINE = {int: flags.DEFINE_integer, float: flags.DEFINE_float}
for _field in dataclasses.fields(Recipe):
    _help = f"Recipe: {_field.metadata['help']}. Empty: the configuration's, full has "
    _DEFINE[_field.type](_field.name, None, f"{_help}{_field.default:g}.")
FLAGS = flags.FLAGS


def main():
    from nas.errors import UserError

    seeds, (num_nodes, recipe) = common.seeds(), CONFIGS[FLAGS.config]
    if 0 < FLAGS.cells < 8:
        raise UserError(f"--cells: 0 or at least 8, got {FLAGS.cells}")
    names = [field.name for field in dataclasses.fields(Recipe)]
    changed = {name: FLAGS[name].value for name in names if FLAGS[name].value is not None}
    recipe = dataclasses.replace(recipe, **changed)
    import jax
    import numpy as np

    from nas.evaluation.edit_distance import available_cores

    jax.config.update("jax_num_cpu_devices", available_cores())  # a cell on each core
    device.select_device(FLAGS.platform)
    from experiments.cells import report, study
    from experiments.writing import Written
    from nas import runs
    from nas.data import cell_table, characters, kjv
    from nas.spaces.recurrent import RecurrentSpace

    space, text = RecurrentSpace(num_nodes=num_nodes), characters.king_james()
    folder, command = (
        pathlib.Path(FLAGS.workdir or pathlib.Path("runs", "every_cell", FLAGS.config)),
        runs.command(),
    )
    written = Written(
        folder,
        command,
        f"Every cell of {num_nodes} nodes, trained alone",
        "Character models of the King James text; losses in bits a character.",
    )
    decisions = study.cells(space, FLAGS.cells, FLAGS.copies)
    results = study.train(space, recipe, text, decisions, seeds, folder / "blocks")
    losses = np.concatenate(
        [results.online, results.validation[..., None], results.test[..., None]], axis=2
    )
    if wild := int(np.sum(~np.isfinite(losses).all(axis=2))):
        raise UserError(
            f"{wild} of {results.validation.size} trainings have a loss that is not finite: a "
            "lower learning rate or max_norm may help"
        )
    settings = dataclasses.asdict(recipe)
    if len(seeds) > 1:
        own = np.all(space.canonical(decisions) == decisions, axis=1)  # without the copies
        online = results.online[own, :, -1]
        judged = report.gate(online, results.validation[own])
        written.section("Do seeds agree?", {"gate": report.gate_table(judged, online, command)})
    if not FLAGS.cells:
        made = {"text": f"King James, SHA-256 {kjv.FILE_SHA256}", "recipe": settings}
        table = study.table(space, results, seeds, made | runs.versions())
        print(f"table: {cell_table.write_cells(table, folder / 'table.csv.gz')}\n")
        written.section("Facts", report.facts_tables(table, command))
        written.answer("Which cells are best?", "", report.drawings(table))
    written.finish(settings | {"seeds": seeds, "skipped updates": int(results.skipped.sum())})


if __name__ == "__main__":
    common.run(main)
