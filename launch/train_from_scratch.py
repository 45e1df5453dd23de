"""Trains one architecture from scratch: SGD, then averaged SGD, and the test split once at the end.

Give --decisions, an architecture's numbers as a search prints them, or --baseline. Run again with the same --workdir it
continues after the last whole epoch; without, the folder is runs/from_scratch/NAME-ARCHITECTURE.

The cell of the ENAS paper: --decisions='0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1'
"""

import dataclasses
import math
import pathlib

from absl import flags

from launch import common

common.define_flags(default_config="kjv_quick")
flags.DEFINE_string("decisions", "", "The architecture: its whole numbers, separated by spaces.")
flags.DEFINE_enum(
    "baseline", "", ("", "lstm", "highway"), "In place of --decisions: a model with as many parameters as an architecture has."
)
FLAGS = flags.FLAGS


def main():
    from nas.errors import UserError
    from nas.spaces import RecurrentSpace

    config = common.config()
    space = RecurrentSpace(num_nodes=config.nodes)
    decisions = common.decisions(space)
    if (decisions is None) != bool(FLAGS.baseline):
        raise UserError("--decisions: give an architecture's numbers, or --baseline=lstm or highway, one of the two")
    name = FLAGS.baseline or space.format(decisions)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, architecture=name))
    default = pathlib.Path("runs", "from_scratch", f"{common.config_name()}-{name.replace(' ', '-')}")
    workdir = pathlib.Path(FLAGS.workdir) if FLAGS.workdir else default
    common.select_device(FLAGS.platform)
    from nas import runs, standalone

    result = runs.train(config, workdir, corpus_dir=FLAGS.corpus_dir, data_dir=FLAGS.data_dir)
    when = f"best epoch {result.best_epoch} of 0 to {config.training.epochs - 1}"
    if result.averaging_from is not None:
        when += f", averaged from epoch {result.averaging_from} on"
    cell = standalone.num_cell_parameters(space, config.supernet.width, config.data.vocabulary)
    print(f"{name}: {result.parameters:,} parameters, width {result.width}; a cell of width {config.supernet.width}: {cell:,}")
    print(f"validation perplexity {math.exp(result.loss):.1f} ({when})")
    print(f"test perplexity {math.exp(result.test_loss):.1f}")


if __name__ == "__main__":
    common.run(main)
