"""The macro search of ENAS on CIFAR-10, by the settings of the authors' scripts.

From melodyguan/enas: 12 layers, 36 channels, batch 128, 310 epochs, SGD with Nesterov's momentum,
.05 to .0005, dropout .1; an LSTM of 64 units, tanh constant 1.5, Adam at 1e-3 with beta1 0 and
epsilon 1e-3, entropy weight 1e-4, baseline decay .99, 50 updates of 20 architectures an epoch.

What differs: one cosine over the run in place of warm restarts; the norm of the gradient is really
clipped (at 5); weight decay 5e-4, twice the flag of a loss of w^2, is of matrices and filters only;
the skip penalty is the divergence of the true probability from .4, its weight 4.8 for the mean over
all skips (theirs: .8 for the sum over those of a layer); batch statistics everywhere. Their search
never compared operations (nas/supernets/images/macro.py), so its numbers are no target.

What a search found is trained with more channels: python -m launch.train_from_scratch
--config=cifar10_macro --config.network.channels=96 --decisions=...

Command:   python -m launch.search --config=cifar10_macro --workdir=runs/cifar10_macro
Expected:  to be measured (the paper reports 4.23 % test error for what its search found)
Time:      to be measured (the paper: 0.32 GPU days)
Hardware:  one accelerator
"""

from ml_collections import ConfigDict

from launch.configs import mnist_macro


def get_config() -> ConfigDict:
    config = mnist_macro.get_config()
    config.data.update(
        source="cifar10", downscale=1, size=32, channels=3, batch=128, eval_batch=128
    )
    config.network.update(channels=36, cosine_epochs=310, crop=4, flip=True)
    config.policy.update(width=64, temperature=1.0, tanh_constant=1.5)
    config.strategy.update(
        baseline_decay=0.99,
        learning_rate=1e-3,
        adam_beta1=0.0,
        adam_epsilon=1e-3,
        skip_weight=4.8,
    )
    config.search.update(
        epochs=310, warmup_epochs=0, shared_steps=350, controller_steps=50, architectures=20
    )
    config.training.update(epochs=310, patience=310)
    return config
