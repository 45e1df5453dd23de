"""Searches for architectures: trains shared weights and a controller in turn, and keeps everything
in a run directory.

The controller learns by policy gradient alone unless --config.strategy.supervised_weight, such as
30, lets it learn from the memory too. Run again with the same --workdir, it continues where it
stopped. Before a search of many steps it measures how long the search will take. launch.evaluate
and launch.derive read what it leaves.
"""

import shlex

from absl import flags

from launch import common, configuration, device, processes

common.define_flags(default_config="kjv_quick")
common.define_device_flags()
FLAGS = flags.FLAGS


def main():
    config, workdir = configuration.config(), common.workdir()
    device.select_device(FLAGS.platform)
    from nas import tasks

    tasks.prepare(config)  # while the rest is imported
    from nas import estimate, runs, steps

    processes.announce(FLAGS.parallel, tasks.build(config).data.batch)
    options = common.run_options()
    estimate.announce(config, workdir, **options)
    state = runs.start(config, workdir, **options)
    parts = steps.components(config)
    best = parts.task.space.format(state.best_decisions)
    print(f"best validated: {parts.task.metric.text(state.best_loss)}, decisions {best}")
    has_policy = parts.strategy.policy_params(state.strategy) is not None
    programs = ("derive", "evaluate") if has_policy else ("derive",)
    print(
        "next:",
        " or ".join(
            f"python -m launch.{program} --workdir={shlex.quote(str(workdir))}"
            for program in programs
        ),
    )


if __name__ == "__main__":
    common.run(main)
