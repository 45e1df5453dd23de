"""The quick study: the King James text, width 96, four epochs that warm up the shared weights, then ten of 100 shared and 100
controller steps.

Command:   python -m launch.search --config=kjv_quick --workdir=runs/kjv_quick
Expected:  best cell at perplexity 60 to 64 on the validation split (seeds 0 to 2; with
           --config.strategy.supervised_weight=30 62 to 65), the Kneser-Ney bigram at 56.1
Time:      about 95 seconds on one core, another search on the other
Hardware:  2 CPU cores (AMD EPYC, Turin)
"""

import dataclasses

from ml_collections import ConfigDict

from nas.config import Config, DataConfig, MemoryConfig, SearchConfig, StrategyConfig, SupernetConfig


def get_config() -> ConfigDict:
    # The shared weights start alone and slowly: at the full rate from the first step, rounding errors grow a hundredfold in
    # ten steps, and no run can be compared with another that adds in another order.
    config = Config(
        data=DataConfig(eval_tokens=5_000),  # two halves of twice as many rank a policy's own cells alike (Spearman .99)
        supernet=SupernetConfig(warmup_epochs=4),
        search=SearchConfig(epochs=14, warmup_epochs=4),
        # 1,000 updates are few: a controller learns to keep its decisions only at a high rate and from many sequences.
        strategy=StrategyConfig(learning_rate=1e-2),
        memory=MemoryConfig(batch=256),
    )
    return ConfigDict(dataclasses.asdict(config))
