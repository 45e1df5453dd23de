"""The King James text at full size: width 200, 20 epochs of 400 shared and 100 controller steps,
ten passes in all.

The evaluation reads the whole validation split. Initial weights are uniform within 1 / sqrt(width).

Command:   python -m launch.search --config=kjv --workdir=runs/kjv
Expected:  best cell below the Kneser-Ney bigram (56.1) after 4 epochs, at perplexity 27.0 after 20
           (seed 0)
Time:      22 minutes
Hardware:  2 CPU cores (AMD EPYC)
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
                "steps": 35,
                "eval_batch": 32,
            },
            "network": {
                "width": 200,
                "init_scale": 0.07,
                "dropout_input": 0.2,
                "dropout_hidden": 0.0,
                "dropout_output": 0.0,
                "max_norm": 25.0,
                "warmup_epochs": 0,
                "learning_rate": 10.0,
                "learning_rate_decay": 0.85,
                "decay_start": 10,
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
                "learning_rate": 1e-3,
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
                "epochs": 20,
                "warmup_epochs": 0,
                "shared_steps": 400,
                "controller_steps": 100,
                "architectures": 4,
                "chunk": 25,
                "valid_architectures": 10,
                "checkpoint_epochs": 1,
                "checkpoint_minutes": 0.0,
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
