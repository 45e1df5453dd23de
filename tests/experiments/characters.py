"""A text of five types for models of characters."""

import numpy as np

from nas.data.characters import Characters

TYPES = "abcde"
TEXT = Characters(
    TYPES,
    {
        name: np.random.default_rng(i).integers(len(TYPES), size=n).astype(np.uint8)
        for i, (name, n) in enumerate({"train": 61, "validation": 29, "test": 23}.items())
    },
)
