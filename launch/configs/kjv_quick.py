"""The quick study: the King James text, width 96, ten epochs of 100 shared and 100 controller steps.

Command:   python -m launch.search --config=kjv_quick --workdir=runs/kjv_quick
Expected:  to be measured (validation perplexity of the best cell; correlation with common activations)
Time:      to be measured
Hardware:  2 CPU cores
"""

import dataclasses

from ml_collections import ConfigDict

from nas.config import Config


def get_config() -> ConfigDict:
    return ConfigDict(dataclasses.asdict(Config()))
