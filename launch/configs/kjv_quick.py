"""The quick study: the King James text, width 96, four epochs that warm up the shared weights, then
ten of 100 shared and 100 controller steps.

Command:   python -m launch.search --config=kjv_quick --workdir=runs/kjv_quick
Expected:  best cell at perplexity 60 to 64 on the validation split (seeds 0 to 2; with
           --config.strategy.supervised_weight=30 62 to 65), the Kneser-Ney bigram at 56.1
Time:      about 95 seconds on one core, another search on the other
Hardware:  2 CPU cores (AMD EPYC, Turin)
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "recurrent",
            "seed": 0,
            "space": {"num_nodes": 12},
            "data": {
                "corpus": "kjv",
                "vocabulary": 4000,
                "batch": 32,
                "steps": 20,
                "eval_batch": 32,
            },
            "network": {
                "width": 96,
                "init_scale": 0.1,
                "dropout_input": 0.2,
                "dropout_hidden": 0.0,
                "dropout_output": 0.0,
                "max_norm": 25.0,
                # The shared weights start alone and slowly: at the full rate from the first step,
                # rounding errors grow a hundredfold in ten steps, and no run can be compared with
                # another that adds in another order.
                "warmup_epochs": 4,
                "learning_rate": 10.0,
                "learning_rate_decay": 0.96,
                "decay_start": 15,
                "matmul": "float32",
                "clip": 0.25,
                "reward_chunk": 1,
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
                # 1,000 updates are few: a controller learns to keep its decisions only at a high
                # rate and from many sequences.
                "learning_rate": 1e-2,
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
                    "batch": 256,
                },
            },
            "search": {
                "epochs": 14,
                "warmup_epochs": 4,
                "shared_steps": 100,
                "controller_steps": 100,
                "architectures": 4,
                "chunk": 25,
                "valid_architectures": 10,
                "checkpoint_epochs": 1,
                "checkpoint_minutes": 0.0,
                "keep": 3,
                "on_nonfinite": "stop",
            },
            # Two halves of 5,000 tokens rank a policy's own cells alike (Spearman .99).
            "evaluation": {"architectures": 100, "pairs": 500_000, "examples": 5000},
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
