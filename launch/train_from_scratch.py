"""Trains one architecture from scratch: SGD, then averaged SGD, and the test split once at the end.

Give --decisions, an architecture's numbers as a search prints them, or --baseline. Run again with
the same --workdir, it continues after the last whole epoch. Without --workdir the folder is
runs/from_scratch/NAME-ARCHITECTURE.

The cell of the ENAS paper: --decisions='0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1'
"""

import dataclasses
import pathlib

from absl import flags

from launch import common, configuration, device

common.define_flags("kjv_quick", folder="runs/from_scratch/NAME-ARCHITECTURE")
flags.DEFINE_string("decisions", "", "The architecture: its whole numbers, separated by spaces.")
flags.DEFINE_string(
    "baseline",
    "",
    "In place of --decisions: a model with about as many parameters as an architecture has: lstm "
    "or highway of a text task, plain or resnet of an image task.",
)
FLAGS = flags.FLAGS


def main():
    from nas import tasks
    from nas.errors import UserError

    config = configuration.config()
    task = tasks.build(config)
    decisions, baselines = common.decisions(task.space), " or ".join(task.network.baselines)
    if (decisions is None) != bool(FLAGS.baseline):
        wanted = f"give an architecture's numbers, or --baseline={baselines}, one of the two"
        raise UserError(f"--decisions: {wanted}")
    if FLAGS.baseline and FLAGS.baseline not in task.network.baselines:
        raise UserError(f"--baseline: must be {baselines}, got {FLAGS.baseline!r}")
    name = FLAGS.baseline or task.space.format(decisions)
    training = dataclasses.replace(config.training, architecture=name)
    config = dataclasses.replace(config, training=training)
    folder = f"{configuration.config_name()}-{name.replace(' ', '-')}"
    default = pathlib.Path("runs", "from_scratch", folder)
    workdir = pathlib.Path(FLAGS.workdir) if FLAGS.workdir else default
    device.select_device(FLAGS.platform)
    from nas import runs
    from nas.training import num_parameters

    result = runs.train(config, workdir, **common.data_options())
    when = f"best epoch {result.best_epoch} of 0 to {config.training.epochs - 1}"
    if result.averaging_from is not None:
        when += f", averaged from epoch {result.averaging_from} on"
    print(f"{name}: {result.parameters:,} parameters, width {result.width}")
    if FLAGS.baseline:
        any_architecture = task.space.format([0] * task.space.num_decisions)
        model = task.network.model(task.space, task.data, any_architecture)
        print(f"an architecture: {num_parameters(model):,} parameters, width {model.width}")
    print(f"validation {task.metric.text(result.loss)} ({when})")
    print(f"test {task.metric.texts(result.test_loss, result.test_reward)}")


if __name__ == "__main__":
    common.run(main)
