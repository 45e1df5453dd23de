"""Evaluates a run: do distances between its controller's hidden states follow the similarity of
architectures?

Needs only the run directory. Prints the answer and writes evaluation.npz and the folder report
(index.html, tables, figures) into it.
"""

from absl import flags

from launch import common, device

common.define_flags(folder=None)
common.define_verbose_flag()
flags.DEFINE_integer(
    "architectures",
    0,
    "Architectures of each evaluation set; 0: as many as the run's configuration says.",
)
flags.DEFINE_integer(
    "pairs",
    0,
    "Limit on the pairs compared in each set, about 1 kB of memory each. All pairs of 1,000 "
    "architectures are 499,500; where there are more than this allows, those within equal blocks "
    "of architectures are compared. 0: as many as the run's configuration says, 500,000 unless "
    "changed.",
)
FLAGS = flags.FLAGS


def main():
    workdir = common.workdir()
    device.select_device(FLAGS.platform)
    from launch import reporting
    from nas import runs
    from nas.errors import UserError

    if FLAGS.architectures != 0 and FLAGS.architectures < 3:
        raise UserError(f"--architectures: must be 0 or at least 3, got {FLAGS.architectures}")
    if FLAGS.pairs < 0:
        raise UserError(f"--pairs: must be 0 or more, got {FLAGS.pairs}")
    run = runs.open_run(workdir)
    weight = run.config.strategy.get("supervised_weight", 0)
    arm = (
        {"pg": ("PG only", [run])}
        if weight == 0
        else {"memory": (f"PG + {weight:g} x memory", [run])}
    )
    reporting.report(
        workdir, arm, architectures=FLAGS.architectures, pairs=FLAGS.pairs, verbose=FLAGS.verbose
    )


if __name__ == "__main__":
    common.run(main)
