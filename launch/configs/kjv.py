"""The King James text at full size: width 200, 20 epochs of 400 shared and 100 controller steps, ten passes in all.

The evaluation reads the whole validation split. Initial weights are uniform within 1 / sqrt(width).

Command:   python -m launch.search --config=kjv --workdir=runs/kjv
Expected:  best cell below the Kneser-Ney bigram (56.1) after 4 epochs, at perplexity 27.0 after 20 (seed 0)
Time:      22 minutes
Hardware:  2 CPU cores (AMD EPYC)
"""

import dataclasses

from ml_collections import ConfigDict

from nas.config import Config, DataConfig, SearchConfig, SupernetConfig


def get_config() -> ConfigDict:
    config = Config(
        data=DataConfig(batch=32, steps=35, eval_tokens=0),
        supernet=SupernetConfig(width=200, init_scale=0.07, decay_start=10, learning_rate_decay=0.85),
        search=SearchConfig(epochs=20, shared_steps=400, controller_steps=100),
    )
    return ConfigDict(dataclasses.asdict(config))
