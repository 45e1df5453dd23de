"""The micro space of ENAS on 5,000 small digits: two cells of five blocks, 40 decisions.

Like mnist_macro but for the space and the network: three normal cells and two reduction cells.

Command:   python -m launch.search --config=mnist_micro --workdir=runs/mnist_micro
Expected:  best cross-entropy 0.248 on the validation split (seed 0)
Time:      56 s
Hardware:  2 CPU cores (AMD EPYC, Turin)
"""

from ml_collections import ConfigDict

from launch.configs import mnist_macro


def get_config() -> ConfigDict:
    config = mnist_macro.get_config()
    config.task = "micro"
    config.space = ConfigDict({"blocks": 5})
    config.network.channels = 8
    config.network.cells = 3
    return config
