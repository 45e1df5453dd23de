"""The search of the ENAS paper on the Penn Treebank: 150 epochs of one pass each, 2,000 controller steps of one architecture.

The paper states: 12 nodes, 10,000 types, 64 rows of 35 tokens, SGD 20 decayed by .96 from epoch 15 and clipped at .25, an
LSTM(100) controller with Adam 3.5e-4, temperature 5, tanh constant 2.5, entropy weight 1e-4, reward 80 / perplexity on one
validation batch. A pass is 414 windows of 35 tokens; 400 are taken, so that chunks of 100 steps divide both phases.

It does not state the following, which are ours. From the public code at this width: width 1000, initial weights within .025,
states clipped at norm 25 in place of batch normalisation, dropout .65 of the inputs and .4 of the outputs, baseline decay .95.
That code also drops recurrent weights (.5); variational dropout masks the recurrent state instead, here .25, as other public
codes do. All masks are drawn once per sequence.

Command:   python -m launch.search --config=ptb_paper --workdir=runs/ptb_paper
Expected:  to be measured (the paper reports a test perplexity of 55.8 after training the best cell from scratch)
Time:      to be measured (the paper: about 10 hours on one GTX 1080 Ti)
Hardware:  one accelerator
"""

import dataclasses

from ml_collections import ConfigDict

from nas.config import Config, DataConfig, PolicyConfig, SearchConfig, StrategyConfig, SupernetConfig


def get_config() -> ConfigDict:
    config = Config(
        nodes=12,
        data=DataConfig(corpus="ptb", vocabulary=10_000, batch=64, steps=35, eval_batch=64, eval_tokens=0),
        supernet=SupernetConfig(
            width=1000,
            init_scale=0.025,
            dropout_input=0.65,
            dropout_hidden=0.25,
            dropout_output=0.4,
            max_norm=25.0,
            learning_rate=20.0,
            learning_rate_decay=0.96,
            decay_start=15,
            clip=0.25,
            reward_chunk=8,
        ),
        policy=PolicyConfig(name="lstm", width=100, temperature=5.0, tanh_constant=2.5),
        strategy=StrategyConfig(entropy_weight=1e-4, baseline_decay=0.95, learning_rate=3.5e-4),
        search=SearchConfig(epochs=150, shared_steps=400, controller_steps=2000, architectures=1, chunk=100),
    )
    return ConfigDict(dataclasses.asdict(config))
