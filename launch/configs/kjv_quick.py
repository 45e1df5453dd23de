"""The quick study: the King James text, width 96, ten epochs of 100 shared and 100 controller steps.

Command:   python -m launch.search --config=kjv_quick --workdir=runs/kjv_quick
Expected:  best cell at perplexity 63 to 66 under shared weights (seeds 0 to 2; with --config.strategy.supervised_weight=1
           67 to 75), the Kneser-Ney bigram at 56.1
Time:      about 75 seconds
Hardware:  2 CPU cores (AMD EPYC)
"""

import dataclasses

from ml_collections import ConfigDict

from nas.config import Config


def get_config() -> ConfigDict:
    return ConfigDict(dataclasses.asdict(Config()))
