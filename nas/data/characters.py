"""The King James text as characters, for models small enough that every architecture is trained."""

from typing import NamedTuple

import numpy as np

from nas.data import kjv


class Characters(NamedTuple):
    """A text as the numbers of its characters, by split."""

    types: str  # the characters of the training text, sorted; texts are indices into it
    splits: dict[str, np.ndarray]  # train, validation, test -> [n] uint8

    @classmethod
    def of(cls, texts: dict[str, str]) -> "Characters":
        """From the text of every split, with at most 256 types; a character that the training text
        lacks becomes the first type.
        """
        types = "".join(sorted(set(texts["train"])))
        numbers = {character: number for number, character in enumerate(types)}
        return cls(
            types,
            {
                split: np.array([numbers.get(character, 0) for character in text], np.uint8)
                for split, text in texts.items()
            },
        )


def king_james() -> Characters:
    """The text by the same splits as the words; a chapter ends with a line end.

    Raises:
      UserError: the text is not installed, or is another version.
    """
    texts = dict.fromkeys(("train", "validation", "test"), "")
    for number, chapter in enumerate(kjv.chapters()):
        texts[kjv.split_of(number)] += chapter + "\n"
    return Characters.of(texts)
