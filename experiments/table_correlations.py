"""The paper's table: do distances between hidden states follow the similarity of architectures, with and without the memory?

Runs a search for every arm and seed (finished ones are kept, interrupted ones continue), evaluates them, prints the
tables beside the paper's figures and writes the report. The shared weights of the arm `uniform`, where it is asked for, also
measure the architectures of all other arms.
"""

import pathlib
import sys

from absl import flags

from launch import common

common.define_flags(default_config="kjv_quick")
common.define_device_flags()
flags.DEFINE_list(
    "arms",
    "pg,memory,memory_next,fixed,uniform_memory,factorised,uniform",
    "Arms to compare, of those in experiments/arms.py. The first with a hidden state lends the untrained its weights.",
)
flags.DEFINE_list("seeds", "0,1,2", "Seeds of every arm.")
FLAGS = flags.FLAGS


def main():
    from experiments.arms import ARMS
    from nas.errors import UserError

    base = common.config()
    for name in FLAGS.arms:
        if name not in ARMS:
            raise UserError(f"--arms: unknown arm {name!r}; choose from {', '.join(ARMS)}")
    if not FLAGS.arms or not FLAGS.seeds or not all(seed.isdigit() for seed in FLAGS.seeds):
        raise UserError(f"--seeds: whole numbers separated by commas, at least one; got {','.join(FLAGS.seeds)!r}")
    common.select_device(FLAGS.platform)
    from launch import reporting
    from nas import parallel, runs, search

    is_main = parallel.choose_devices(FLAGS.parallel).is_main
    root = pathlib.Path(FLAGS.workdir or pathlib.Path("runs", "table_correlations", common.config_name()))
    opened = {name: (ARMS[name].title, []) for name in FLAGS.arms}
    for name in FLAGS.arms:
        for seed in map(int, FLAGS.seeds):
            config, workdir = ARMS[name].configure(base, seed), root / f"{name}-seed{seed}"
            try:
                runs.finish(config, workdir, **common.run_options())
            except search.Interrupted as stop:
                print(stop, file=sys.stderr)
                return stop.code
            if is_main:
                opened[name][1].append(runs.open_run(workdir))
    if is_main:
        reporting.report(root, opened)


if __name__ == "__main__":
    common.run(main)
