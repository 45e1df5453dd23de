"""The macro space of ENAS on 5,000 small digits: 12 layers, 78 decisions, in minutes.

The images come with the installation (MNIST, averaged to 14 x 14). The controller's settings are
those of kjv_quick; there is no skip penalty.

Command:   python -m launch.search --config=mnist_macro --workdir=runs/mnist_macro
Expected:  best cross-entropy 0.153 on the validation split (seed 0)
Time:      1 min 13 s
Hardware:  2 CPU cores (AMD EPYC, Turin)
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "macro",
            "seed": 0,
            "space": {"layers": 12},
            "data": {
                "source": "mnist",
                "downscale": 2,
                "size": 14,
                "channels": 1,
                "classes": 10,
                "batch": 64,
                "eval_batch": 250,
            },
            "network": {
                "channels": 16,
                "learning_rate": 0.05,
                "learning_rate_min": 0.0005,
                "cosine_epochs": 14,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "clip": 5.0,
                "dropout": 0.1,
                "crop": 0,
                "flip": False,
                "cutout": 0,
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
                "adam_beta1": 0.9,
                "adam_epsilon": 1e-8,
                "skip_weight": 0.0,
                "skip_target": 0.4,
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
                "keep": 3,
                "on_nonfinite": "stop",
            },
            "evaluation": {"architectures": 100, "examples": 0},
            "training": {
                "architecture": "",
                "epochs": 20,
                "learning_rate": 0.05,
                "schedule": "cosine",
                "momentum": 0.9,
                "learning_rate_decay": 1.0,
                "decay_start": 1,
                "clip": 5.0,
                "weight_decay": 5e-4,
                "patience": 20,
            },
        }
    )
