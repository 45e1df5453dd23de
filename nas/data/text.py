"""Text as a data set: from the name of a corpus to token streams and their windows.

TFDS is imported when a corpus is loaded, and TensorFlow never.
"""

import collections
import dataclasses
import functools
import importlib
from typing import NamedTuple

import numpy as np

from nas.config import check, check_choice
from nas.data import prepared, user_text
from nas.data.sources import check_text
from nas.data.tokens import Windows
from nas.errors import UserError
from nas.tasks import Splits

UNKNOWN, END = "<unk>", "<eos>"


class _Builder(NamedTuple):
    """A TFDS builder, by name since its module imports TFDS. Its class has `words(text)` and the
    SHA256 of every split.
    """

    module: str
    name: str
    # whether its raw files can come from a user's folder, given as its argument `raw_dir`
    raw_files: bool


CORPORA = {
    "kjv": _Builder("nas.data.kjv", "KjvText", raw_files=False),
    "ptb": _Builder("nas.data.ptb", "PtbText", raw_files=True),
}


OWN = "text"  # the user's own text, read by nas.data.user_text


class Corpus(NamedTuple):
    """Token streams of the three splits. Every line (a verse, a sentence) ends with <eos>."""

    train: np.ndarray  # [n_train] int32 in 0..V-1
    valid: np.ndarray  # [n_valid] int32
    test: np.ndarray  # [n_test] int32
    vocabulary: tuple[str, ...]  # V types: <unk>, <eos>, the rest from the most frequent down


@dataclasses.dataclass(frozen=True)
class Text:
    """A `nas.tasks.Data`: a corpus, and how it is cut into batches.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    # kjv (comes with the installation), ptb (downloaded, or from --raw_dir) or text (--raw_dir)
    corpus: str = "kjv"
    vocabulary: int = 4000  # types kept, <unk> and <eos> included; the rest become <unk>
    batch: int = 32  # rows of the token stream in training
    steps: int = 20  # tokens per row and update: truncated back-propagation through time
    eval_batch: int = 32  # rows of the token stream in validation and for rewards

    def __post_init__(self):
        check_choice("corpus", self.corpus, (*CORPORA, OWN))
        for name in ("batch", "steps", "eval_batch"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        check("vocabulary", self.vocabulary >= 3, "at least 3", self.vocabulary)

    @property
    def name(self) -> str:
        return self.corpus

    def examples(self, rows: int) -> int:
        return rows * self.steps

    def load(self, *, raw_dir: str | None = None, data_dir: str | None = None) -> Splits:
        """Windows of `load_corpus`: `batch` rows for training, `eval_batch` for the other splits.

        Raises:
          UserError: as `load_corpus`, or a split is too short for one window.
        """
        corpus = load_corpus(self.corpus, self.vocabulary, raw_dir=raw_dir, data_dir=data_dir)
        rows = self.batch, self.eval_batch, self.eval_batch
        return Splits(
            *(
                Windows.of(tokens, batch, self.steps)
                for tokens, batch in zip(corpus[:3], rows, strict=True)
            )
        )


def load_corpus(
    name: str, vocabulary: int, *, raw_dir: str | None = None, data_dir: str | None = None
) -> Corpus:
    """The corpus of that name, prepared on first use.

    The vocabulary is <unk>, <eos> and the most frequent types of the training split, at most
    `vocabulary` in all; of equally frequent types the one seen first comes first.

    Args:
      raw_dir: folder with the raw files of the ptb corpus, which is not read once the corpus is
        prepared: checksums make sure that prepared data is the same wherever it came from. For the
        user's own text, its place; it is read every time.
      data_dir: where TFDS keeps prepared data; None: its own default.

    Raises:
      UserError: raw files are missing, damaged or cannot be downloaded, `data_dir` cannot be
        written, or what was prepared there is damaged.
    """
    if name == OWN:
        texts, to_words = user_text.read_splits(raw_dir), user_text.words
        return _corpus({split: to_words(text) for split, text in texts.items()}, vocabulary)
    source = CORPORA[name]
    if raw_dir and not source.raw_files:
        raise UserError(f"the corpus {name} comes with the installation and takes no --raw_dir")
    builder_class = getattr(importlib.import_module(source.module), source.name)
    texts = prepared.load(
        f"corpus {name}",
        builder_class,
        functools.partial(_texts, builder_class),
        data_dir=data_dir,
        **({"raw_dir": raw_dir} if raw_dir else {}),
    )
    return _corpus({s: builder_class.words(text) for s, text in texts.items()}, vocabulary)


def _corpus(words, vocabulary):
    """Token streams of {split: words}."""
    types = _vocabulary(words["train"], vocabulary)
    ids = collections.defaultdict(
        lambda: types.index(UNKNOWN), {word: index for index, word in enumerate(types)}
    )
    ids["\n"] = types.index(END)
    train, valid, test = (
        np.fromiter(map(ids.__getitem__, words[split]), np.int32, len(words[split]))
        for split in ("train", "validation", "test")
    )
    return Corpus(train, valid, test, types)


def _vocabulary(words, size):
    # In the order of first appearance, which `most_common` keeps among equals.
    counts = collections.Counter(words)
    for word in ("\n", UNKNOWN, END):
        counts.pop(word, None)
    return (UNKNOWN, END, *(word for word, _ in counts.most_common(size - 2)))


def _texts(builder_class, sources):
    """{split: text}; each line of a text ends with a line end."""
    texts = {}
    for split, sha256 in builder_class.SHA256.items():
        examples = sources[split].__getitems__(list(range(len(sources[split]))))
        texts[split] = "".join(example["text"].decode("utf-8") + "\n" for example in examples)
        check_text(f"{split} split", texts[split].encode("utf-8"), sha256)
    return texts
