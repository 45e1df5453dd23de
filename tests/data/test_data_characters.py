"""The King James text as characters."""

import numpy as np

from nas.data import characters


def test_types_are_those_of_training_in_order():
    text = characters.Characters.of({"train": "ab a\n", "validation": "b?", "test": "a b"})
    assert text.types == "\n ab"
    assert {name: split.tolist() for name, split in text.splits.items()} == {
        "train": [2, 3, 1, 2, 0],
        "validation": [3, 0],  # what training lacks becomes the first
        "test": [2, 1, 3],
    }
    assert all(split.dtype == np.uint8 for split in text.splits.values())


def test_the_king_james_text():
    text = characters.king_james()
    assert len(text.types) == 65
    assert {name: len(split) for name, split in text.splits.items()} == {
        "train": 3_744_773,
        "validation": 193_723,
        "test": 198_956,
    }
    assert "".join(text.types[i] for i in text.splits["train"][:23]) == "In the beginning God cr"
    assert "".join(text.types[i] for i in text.splits["validation"][:18]) == "And God remembered"
    breaks = {name: np.sum(split == 0) for name, split in text.splits.items()}
    assert sum(breaks.values()) == 31_103  # verses
