"""A text of your own, quickly.

Command:   python -m launch.search --config=text_quick --raw_dir=FOLDER --workdir=runs/text_quick
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "recurrent",
            "seed": 0,
            "space": {"num_nodes": 12},
            "data": {
                "corpus": "text",
                "vocabulary": 10_000,
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
                "learning_rate": 1e-2,
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
                "shared_steps": 300,
                "controller_steps": 100,
                "architectures": 4,
                "chunk": 25,
                "valid_architectures": 10,
                "checkpoint_epochs": 1,
                "keep": 3,
                "on_nonfinite": "stop",
            },
            "evaluation": {"architectures": 100, "examples": 5000},
            "training": {
                "architecture": "",
                "epochs": 10,
                "learning_rate": 10.0,
                "learning_rate_decay": 0.96,
                "decay_start": 15,
                "clip": 0.25,
                "weight_decay": 1e-6,
                "patience": 5,
            },
        }
    )
