"""The paper's table: do distances between hidden states follow the similarity of architectures,
with and without the memory?

Runs a search for every arm and seed (finished ones are kept, interrupted ones continue), evaluates
them, prints what was found beside the paper's figures and writes the report, which holds all
tables. The shared weights of the arm `uniform`, if it is among the arms, also measure the
architectures of all other arms.
"""

import pathlib

from absl import flags

from experiments.arms import ARMS
from launch import common, configuration, device, processes, side_by_side

common.define_flags("kjv_quick", folder="runs/table_correlations/NAME, after the configuration")
common.define_device_flags()
flags.DEFINE_list(
    "arms",
    "pg,memory,memory_next,fixed,uniform_memory,factorised,uniform",
    f"Arms to compare: {', '.join(ARMS)}; experiments/arms.py says what they are. The untrained "
    "controller is measured under the weights of the first arm with a hidden state.",
)
flags.DEFINE_list("seeds", "0,1,2", "Seeds of every arm.")
common.define_verbose_flag()
side_by_side.define_flags()
FLAGS = flags.FLAGS


def main():
    from nas.errors import UserError

    base, names = configuration.config(), list(dict.fromkeys(FLAGS.arms))
    for name in names:
        if name not in ARMS:
            raise UserError(f"--arms: unknown arm {name!r}; choose from {', '.join(ARMS)}")
    if not names:
        raise UserError(f"--arms: at least one of {', '.join(ARMS)}")
    seeds = common.seeds()
    device.select_device(FLAGS.platform)
    from experiments.search import searches
    from launch import reporting
    from nas import tasks

    processes.announce(FLAGS.parallel, tasks.build(base).data.batch)
    root = pathlib.Path(
        FLAGS.workdir or pathlib.Path("runs", "table_correlations", configuration.config_name())
    )
    configs = {name: ARMS[name].configure(base, seeds[0]) for name in names}
    opened = searches.search(
        root,
        base,
        names,
        seeds,
        then=lambda folders: reporting.evaluations(folders, configs),
        **common.run_options(),
    )
    if opened[names[0]]:  # only in the process that writes
        arms = {name: (ARMS[name].title, runs) for name, runs in opened.items()}
        reporting.report(root, arms, verbose=FLAGS.verbose)


if __name__ == "__main__":
    common.run(main)
