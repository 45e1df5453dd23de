"""The quick search study: the searches of kjv_quick, and one epoch of training from scratch.

Command:   python -m experiments.table_search --config=quick
Expected:  the table of the README
Time:      see the README
Hardware:  2 CPU cores (AMD EPYC)
"""

import dataclasses

from ml_collections import ConfigDict

from launch.configs import kjv_quick
from nas.config import TrainingConfig


def get_config() -> ConfigDict:
    config = kjv_quick.get_config()
    config.training.update(dataclasses.asdict(TrainingConfig(epochs=1)))
    return config
