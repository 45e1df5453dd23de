"""Evaluates a run: do distances between its controller's hidden states follow the similarity of architectures?

Needs only the run directory. Writes evaluation.npz, correlations_*.csv and report/index.html into it.
"""

from absl import flags

from launch import common

common.define_flags()
flags.DEFINE_integer("architectures", 0, "Architectures of each evaluation set; 0: as many as the run's configuration says.")
FLAGS = flags.FLAGS


def main():
    workdir = common.workdir()
    common.select_device(FLAGS.platform)
    from launch import reporting
    from nas import runs
    from nas.errors import UserError

    if FLAGS.architectures != 0 and FLAGS.architectures < 3:
        raise UserError(f"--architectures: must be 0 or at least 3, got {FLAGS.architectures}")
    run = runs.open_run(workdir)
    weight = run.config.strategy.supervised_weight
    reporting.report(
        workdir, {"PG only" if weight == 0 else f"PG + {weight:g} x memory": [run]}, architectures=FLAGS.architectures
    )


if __name__ == "__main__":
    common.run(main)
