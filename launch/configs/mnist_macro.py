"""The macro space of ENAS on 5,000 small digits: 12 layers, 78 decisions, in minutes.

The images come with the installation (MNIST, averaged to 14 x 14). The controller's settings are
those of kjv_quick; there is no skip penalty.

Command:   python -m launch.search --config=mnist_macro --workdir=runs/mnist_macro
Expected:  best cross-entropy 0.153 on the validation split (seed 0)
Time:      1 min 13 s
Hardware:  2 CPU cores (AMD EPYC, Turin)
"""

from ml_collections import ConfigDict

from launch.configs import kjv_quick


def get_config() -> ConfigDict:
    config = kjv_quick.get_config()
    config.task = "macro"
    config.space = ConfigDict({"layers": 12})
    config.data = ConfigDict(
        {
            "source": "mnist",
            "downscale": 2,
            "size": 14,
            "channels": 1,
            "classes": 10,
            "batch": 64,
            "eval_batch": 250,
        }
    )
    config.network = ConfigDict(
        {
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
        }
    )
    config.evaluation.examples = 0
    config.training.update(
        epochs=20,
        learning_rate=0.05,
        schedule="cosine",
        momentum=0.9,
        learning_rate_decay=1.0,
        decay_start=1,
        clip=5.0,
        weight_decay=5e-4,
        patience=20,
    )
    return config
