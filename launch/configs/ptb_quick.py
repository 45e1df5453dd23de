"""The Penn Treebank, quickly: text_quick on another text of its size and vocabulary.

Its settings were tuned on War and Peace, not here.

Command:   python -m launch.search --config=ptb_quick --workdir=runs/ptb_quick
Expected:  to be measured
Time:      to be measured (text_quick: 3 min 40 s on one core, another search on the other)
Hardware:  2 CPU cores
"""

from ml_collections import ConfigDict

from launch.configs import text_quick


def get_config() -> ConfigDict:
    config = text_quick.get_config()
    config.data.corpus = "ptb"
    return config
