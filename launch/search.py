"""Searches for architectures: trains shared weights and a controller in turn, and keeps everything in a run directory.

Run again with the same --workdir it continues where it stopped. How long a search of many steps will take is measured first.
"""

import math

from absl import flags

from launch import common

common.define_flags(default_config="kjv_quick")
common.define_device_flags()
FLAGS = flags.FLAGS


def main():
    config, workdir = common.config(), common.workdir()
    common.select_device(FLAGS.platform)
    from nas.supernets import native_loop

    native_loop.prepare()  # while the rest is imported
    from nas import estimate, runs, search

    options = common.run_options()
    estimate.announce(config, workdir, **options)
    state = runs.start(config, workdir, **options)
    space, _, strategy, _ = search.components(config)
    perplexity = math.exp(state.best_loss)
    print(f"best validated: perplexity {perplexity:.1f}, decisions {space.format(state.best_decisions)}")
    has_policy = strategy.policy_params(state.strategy) is not None
    programs = ("derive", "evaluate") if has_policy else ("derive",)
    print("next:", " or ".join(f"python -m launch.{program} --workdir={workdir}" for program in programs))


if __name__ == "__main__":
    common.run(main)
