"""The King James text at full size: width 200, 60 epochs of about one pass over the training text.

The evaluation reads the whole validation split. Initial weights are uniform within 1 / sqrt(width).

Command:   python -m launch.search --config=kjv --workdir=runs/kjv
Expected:  to be measured (validation perplexity of the best cell, to be below that of the Kneser-Ney bigram)
Time:      to be measured
Hardware:  to be measured
"""

import dataclasses

from ml_collections import ConfigDict

from nas.config import Config, DataConfig, SearchConfig, SupernetConfig


def get_config() -> ConfigDict:
    config = Config(
        data=DataConfig(vocabulary=4000, batch=64, steps=35, eval_batch=64, eval_tokens=0),
        supernet=SupernetConfig(width=200, init_scale=0.07),
        search=SearchConfig(epochs=60, shared_steps=400, controller_steps=100),
    )
    return ConfigDict(dataclasses.asdict(config))
