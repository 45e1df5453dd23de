"""The search of the ENAS paper on the Penn Treebank: 150 epochs of one pass each, 2,000 controller
steps of one architecture.

The paper states: 12 nodes, 10,000 types, 64 rows of 35 tokens, SGD 20 decayed by .96 from epoch 15
and clipped at .25, an LSTM(100) controller with Adam 3.5e-4, temperature 5, tanh constant 2.5,
entropy weight 1e-4, reward 80 / perplexity on one validation batch. A pass is 414 windows of 35
tokens; 400 are taken, so that chunks of 100 steps divide both phases.

It does not state the following, which are ours. From the public code at this width: width 1000,
initial weights within .025, states clipped at norm 25 in place of batch normalisation, dropout .65
of the inputs and .4 of the outputs, baseline decay .95. That code also drops recurrent weights
(.5); variational dropout masks the recurrent state instead, here .25, as other public codes do. All
masks are drawn once per sequence.

Command:   python -m launch.search --config=ptb_paper --workdir=runs/ptb_paper
Expected:  to be measured (the paper reports a test perplexity of 55.8 after training the best cell
           from scratch)
Time:      to be measured (the paper: about 10 hours on one GTX 1080 Ti)
Hardware:  one accelerator
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "recurrent",
            "seed": 0,
            "space": {"num_nodes": 12},
            "data": {
                "corpus": "ptb",
                "vocabulary": 10_000,
                "batch": 64,
                "steps": 35,
                "eval_batch": 64,
            },
            "network": {
                "width": 1000,
                "init_scale": 0.025,
                "dropout_input": 0.65,
                "dropout_hidden": 0.25,
                "dropout_output": 0.4,
                "max_norm": 25.0,
                "warmup_epochs": 0,
                "learning_rate": 20.0,
                "learning_rate_decay": 0.96,
                "decay_start": 15,
                "matmul": "float32",
                "clip": 0.25,
                "reward_chunk": 8,
            },
            "policy": {
                "name": "lstm",
                "width": 100,
                "temperature": 5.0,
                "tanh_constant": 2.5,
                "init_scale": 0.1,
            },
            "strategy": {
                "name": "reinforce",
                "supervised": "reconstruct",
                "supervised_weight": 0.0,
                "policy_weight": 1.0,
                "entropy_weight": 1e-4,
                "baseline_decay": 0.95,
                "learning_rate": 3.5e-4,
                "adam_beta1": 0.9,
                "adam_epsilon": 1e-8,
                "skip_weight": 0.0,
                "skip_target": 0.4,
                "archive": 0,
                "candidates": 8,
                "mutations": 0.0,
                "screening": "none",
                "value_weight": 1.0,
                "memory": {
                    "source": "old",
                    "capacity": 1000,
                    "refresh_size": 1000,
                    "refresh_period": 1,
                    "lag": 1,
                    "batch": 64,
                },
            },
            "search": {
                "epochs": 150,
                "warmup_epochs": 0,
                "shared_steps": 400,
                "controller_steps": 2000,
                "architectures": 1,
                "chunk": 100,
                "valid_architectures": 10,
                "checkpoint_epochs": 1,
                "checkpoint_minutes": 30.0,
                "keep": 3,
                "on_nonfinite": "stop",
            },
            "evaluation": {"architectures": 100, "pairs": 500_000, "examples": 0},
            "training": {
                "architecture": "",
                "epochs": 10,
                "learning_rate": 10.0,
                "schedule": "decay",
                "momentum": 0.0,
                "learning_rate_decay": 0.96,
                "decay_start": 15,
                "clip": 0.25,
                "weight_decay": 1e-6,
                "patience": 5,
            },
        }
    )
