"""Corpora that tests read, and what goes wrong with them."""

import os
import subprocess
import sys

import pytest

import nas
from nas.data.text import load_corpus
from nas.errors import UserError

TINY = {
    "train": " b a <unk> b \n c b a d \n\n e a 's \n",  # b 3, a 3, then c d e 's once each
    "validation": " a zebra \n",
    "test": " d \n d <unk> \n",
}


KJV = "kjv", 4000


TINY_PTB = "ptb", 6


def fails(corpus, **kwargs):
    """The message of the UserError that loading ends in."""
    with pytest.raises(UserError) as error:
        load_corpus(*corpus, **{name: str(value) for name, value in kwargs.items()})
    assert "\n" not in str(error.value)
    return str(error.value)


def python(code):
    """Runs `code` in a fresh interpreter."""
    root = os.path.dirname(os.path.dirname(nas.__file__))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
