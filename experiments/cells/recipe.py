"""How a cell is trained alone. Imports no JAX."""

import dataclasses

from nas.config import check


def _field(default, help):
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A character model and its training.

    The text is read in `batch` contiguous rows, `window` characters a step. A row begins anew, from
    a zero state, every `sequence` windows, rows at steps of their own. The states of training are
    then those of validation, which reads sequences of that length from a zero state: frozen weights
    that had never begun anew drifted to states that training had not seen.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    width: int = _field(32, "hidden and embedding width")
    batch: int = _field(32, "rows of text")
    window: int = _field(32, "characters of a row in a step")
    sequence: int = _field(16, "windows after which a row begins anew")
    steps: int = _field(3000, "steps of the training")
    learning_rate: float = _field(1e-2, "Adam's, at its peak; it falls to 0 as a cosine")
    warmup: float = _field(0.05, "share of the steps in which the learning rate rises")
    clip: float = _field(0.25, "global norm of the gradient")
    max_norm: float = _field(5.0, "L2 norm to which the state of a row is clipped")
    init_scale: float = _field(0.3, "weights start uniform up to it, but for the embedding")
    held_out: int = _field(128, "sequences of validation, and of test")

    def __post_init__(self):
        for name in ("width", "batch", "window", "sequence", "held_out"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        check("steps", self.steps >= 8, "at least 8", self.steps)
        check("warmup", 0 <= self.warmup < 1, "in [0, 1)", self.warmup)
        for name in ("learning_rate", "clip", "max_norm", "init_scale"):
            check(name, getattr(self, name) > 0, "positive", getattr(self, name))


CONFIGS = {"quick": (3, Recipe(steps=500)), "full": (4, Recipe())}  # nodes, recipe
