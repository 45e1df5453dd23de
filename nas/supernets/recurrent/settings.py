"""The settings of the recurrent language model. Imports no JAX."""

import dataclasses

from nas.config import check, check_choice


@dataclasses.dataclass(frozen=True)
class LanguageModelSettings:
    """The shared-weight recurrent language model and its optimiser.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    width: int = 96  # hidden and embedding width H
    init_scale: float = 0.1  # weights start uniform in [-init_scale, init_scale]
    dropout_input: float = 0.2  # variational: one mask per sequence
    dropout_hidden: float = 0.0
    dropout_output: float = 0.0
    max_norm: float = 25.0  # L2 norm to which the state of one sequence is clipped; 0: off
    learning_rate: float = 10.0
    warmup_epochs: int = 0  # epochs in which the rate rises in equal steps; full in the next one
    learning_rate_decay: float = 0.96  # factor per epoch ...
    decay_start: int = 15  # ... from this epoch on
    # operands of matrix products, float32 or bfloat16; sums, weights and states are float32
    matmul: str = "float32"
    clip: float = 0.25  # global norm of the gradient of the weights in use
    reward_chunk: int = 1  # architectures scored as one batch on accelerators; on CPUs always one

    def __post_init__(self):
        check("width", self.width >= 1, "at least 1", self.width)
        for name in ("dropout_input", "dropout_hidden", "dropout_output"):
            check(name, 0 <= getattr(self, name) < 1, "in [0, 1)", getattr(self, name))
        check_choice("matmul", self.matmul, ("float32", "bfloat16"))
        check("max_norm", self.max_norm >= 0, "0 (off) or more", self.max_norm)
        check("warmup_epochs", self.warmup_epochs >= 0, "0 or more", self.warmup_epochs)
        check("reward_chunk", self.reward_chunk >= 1, "at least 1", self.reward_chunk)
        for name in ("init_scale", "learning_rate", "learning_rate_decay", "clip"):
            check(name, getattr(self, name) > 0, "positive", getattr(self, name))
