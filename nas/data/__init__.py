"""Corpora (`load_corpus`), token batches (`nas.data.tokens`, the one module here that imports JAX) and n-gram yardsticks
(`nas.data.ngrams`). A new corpus is one file with a TFDS builder and one line of the registry in `nas/data/corpus.py`.
"""

from nas.data.corpus import CORPORA, END, UNKNOWN, Corpus, load_corpus

__all__ = ["CORPORA", "END", "UNKNOWN", "Corpus", "load_corpus"]
