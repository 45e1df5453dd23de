"""From the name of a corpus to token streams. TFDS is imported when a corpus is loaded, and TensorFlow never."""

import collections
import contextlib
import importlib
import io
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from nas.config import DataConfig
from nas.data.sources import check_text
from nas.errors import UserError

UNKNOWN, END = "<unk>", "<eos>"


class _Builder(NamedTuple):
    """A TFDS builder by name, since its module imports TFDS. Its class has `words(text)` and the SHA256 of every split."""

    module: str
    name: str
    raw_files: bool  # whether its raw files can come from a folder of the user's, as its argument `corpus_dir`


CORPORA = {
    "kjv": _Builder("nas.data.kjv", "KjvText", raw_files=False),
    "ptb": _Builder("nas.data.ptb", "PtbText", raw_files=True),
}


class Corpus(NamedTuple):
    """Token streams of the three splits. Every line (a verse, a sentence) ends with <eos>."""

    train: np.ndarray  # [n_train] int32 in 0..V-1
    valid: np.ndarray  # [n_valid] int32
    test: np.ndarray  # [n_test] int32
    vocabulary: tuple[str, ...]  # V types: <unk>, <eos>, the rest from the most frequent down


def load_corpus(config: DataConfig, *, corpus_dir: str | None = None, data_dir: str | None = None) -> Corpus:
    """The corpus of `config`, prepared on first use.

    The vocabulary is <unk>, <eos> and the most frequent types of the training split, `config.vocabulary` in all or as many
    as there are; of equally frequent types the one seen first comes first.

    Args:
      config: `corpus` and `vocabulary` are used.
      corpus_dir: folder with the raw files of the ptb corpus. Not read once the corpus is prepared: checksums make sure that
        prepared data is the same wherever it came from.
      data_dir: where TFDS keeps prepared data; None: its own default.

    Raises:
      UserError: raw files are missing, damaged or cannot be downloaded, `data_dir` cannot be written, or what was prepared
        there is damaged.
    """
    source = CORPORA[config.corpus]
    if corpus_dir and not source.raw_files:
        raise UserError(f"the corpus {config.corpus} comes with the installation and takes no --corpus_dir")
    builder_class = getattr(importlib.import_module(source.module), source.name)
    texts = _load_texts(config.corpus, builder_class, data_dir, {"corpus_dir": corpus_dir} if corpus_dir else {})
    words = {split: builder_class.words(text) for split, text in texts.items()}
    vocabulary = _vocabulary(words["train"], config.vocabulary)
    ids = collections.defaultdict(lambda: vocabulary.index(UNKNOWN), {word: index for index, word in enumerate(vocabulary)})
    ids["\n"] = vocabulary.index(END)
    train, valid, test = (
        np.fromiter(map(ids.__getitem__, words[split]), np.int32, len(words[split]))
        for split in ("train", "validation", "test")
    )
    return Corpus(train, valid, test, vocabulary)


def _vocabulary(words, size):
    counts = collections.Counter(words)  # in the order of first appearance, which most_common keeps among equals
    for word in ("\n", UNKNOWN, END):
        counts.pop(word, None)
    return (UNKNOWN, END, *(word for word, _ in counts.most_common(size - 2)))


def _load_texts(name, builder_class, data_dir, options):
    """{split: text}, each line of which ends with a line end; prepares them with `options` if need be."""
    import tensorflow_datasets as tfds

    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    folder = data_dir / builder_class.name / str(builder_class.VERSION)
    with _quiet():
        if not folder.exists():
            _prepare(builder_class, folder, data_dir=str(data_dir), **options)
            print(f"prepared the corpus {name} in {folder}", file=sys.stderr, flush=True)
        try:
            return _read(builder_class, folder, data_dir)
        except Exception as error:  # whatever TFDS makes of missing or damaged files
            raise UserError(
                f"the prepared corpus in {folder} is damaged ({_one_line(error)}): delete that folder and start again"
            ) from error


def _prepare(builder_class, folder, **options):
    # TFDS writes beside `folder` and renames at the end: a killed process leaves no `folder`, and of two that prepare at
    # the same time one fails to rename, which is as good.
    try:
        builder_class(**options).download_and_prepare(file_format="array_record")
    except OSError as error:
        if not folder.exists():
            raise UserError(f"cannot prepare the corpus in {folder}: {_one_line(error)}") from error


def _read(builder_class, folder, data_dir):
    if not (folder / "dataset_info.json").exists():  # TFDS would take it for an old format
        raise FileNotFoundError("dataset_info.json is missing")
    sources = builder_class(data_dir=str(data_dir)).as_data_source()
    texts = {}
    for split, sha256 in builder_class.SHA256.items():
        examples = sources[split].__getitems__(list(range(len(sources[split]))))
        texts[split] = "".join(example["text"].decode("utf-8") + "\n" for example in examples)
        check_text(f"{split} split", texts[split].encode("utf-8"), sha256)
    return texts


@contextlib.contextmanager
def _quiet():
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _one_line(error):
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
