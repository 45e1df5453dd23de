"""The quick search study: the searches of kjv_quick, and one epoch of training from scratch.

Command:   python -m experiments.table_search --config=quick
Expected:  test perplexities of 51 to 53 for the best cells of all strategies, 48 for the LSTM
           (seeds 0 to 2)
Time:      30 minutes
Hardware:  2 CPU cores (AMD EPYC, Turin)
"""

from ml_collections import ConfigDict

from launch.configs import kjv_quick


def get_config() -> ConfigDict:
    config = kjv_quick.get_config()
    config.evaluation.examples = 10_000  # the best cells of a search differ by little
    config.training.epochs = 1
    return config
