"""Settings of the image networks. Imports no JAX."""

import dataclasses

from nas.config import check


@dataclasses.dataclass(frozen=True)
class ClassifierSettings:
    """The width, and how weights are trained: SGD with Nesterov's momentum on a cosine.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    channels: int  # channels of a layer; even: a reduction makes them from two halves
    learning_rate: float  # rate at the start of the cosine
    learning_rate_min: float  # rate at its end, and from there on
    cosine_epochs: int  # length of the cosine
    momentum: float
    weight_decay: float  # times matrices and filters, added to their gradient
    clip: float  # global norm of the gradient
    dropout: float  # rate, on the features that the last layer reads
    crop: int  # most pixels by which training images are shifted
    flip: bool  # whether training images are mirrored at random
    cutout: int  # side of a square that is blanked in training images; 0: none

    def __post_init__(self):
        check("channels", self.channels >= 2, "at least 2", self.channels)
        check("channels", self.channels % 2 == 0, "even", self.channels)
        check("cosine_epochs", self.cosine_epochs >= 1, "at least 1", self.cosine_epochs)
        for name in ("learning_rate", "clip"):
            check(name, getattr(self, name) > 0, "positive", getattr(self, name))
        for name in ("learning_rate_min", "weight_decay", "crop", "cutout"):
            check(name, getattr(self, name) >= 0, "0 or more", getattr(self, name))
        for name in ("momentum", "dropout"):
            check(name, 0 <= getattr(self, name) < 1, "in [0, 1)", getattr(self, name))
