"""The micro search of ENAS on CIFAR-10, by the settings of the authors' scripts.

From melodyguan/enas: six normal cells and two of reduction, 20 channels, batch 160, 150 epochs,
30 updates of 10 architectures an epoch, Adam at 3.5e-3, tanh constant 1.1, weight decay 2e-4 (twice
the flag). The rest as cifar10_macro, and what differs too; there is no auxiliary head, and no bias
of the controller towards convolutions.

What a search found is trained deeper and wider:
python -m launch.train_from_scratch --config=cifar10_micro --config.network.cells=15
--config.network.channels=36 --config.network.cutout=16 --decisions=...

Command:   python -m launch.search --config=cifar10_micro --workdir=runs/cifar10_micro
Expected:  to be measured (the paper reports 3.54 % test error for what its search found, 2.89 %
           with cutout)
Time:      to be measured (the paper: 0.45 GPU days)
Hardware:  one accelerator
"""

from ml_collections import ConfigDict

from launch.configs import cifar10_macro


def get_config() -> ConfigDict:
    config = cifar10_macro.get_config()
    config.task = "micro"
    config.space = ConfigDict({"blocks": 5})
    config.data.update(batch=160, eval_batch=160)
    config.network.update(channels=20, cosine_epochs=150, weight_decay=2e-4)
    config.network.cells = 6
    config.policy.tanh_constant = 1.1
    config.strategy.update(learning_rate=3.5e-3, skip_weight=0.0)
    config.search.update(
        epochs=150, shared_steps=280, controller_steps=30, architectures=10, chunk=10
    )
    config.training.update(epochs=630, weight_decay=2e-4, patience=630)
    return config
