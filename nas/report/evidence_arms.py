"""What the tables of the evidence study are made of: arms, and cells that say what several seeds say."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from nas.evaluation import statistics as st
from nas.evaluation.conditioning import Conditioning, conditioning
from nas.evaluation.probes import Probe, probe_accuracy
from nas.evaluation.samples import Behaviour, Sample
from nas.report.tables import Empty

NO_STATE = Empty("no state")
ONE_SEED = Empty("one seed")
PERMUTED = "p: median over seeds [least, greatest], each from 9,999 permutations of the {}; seeds are not multiplied up."


@dataclasses.dataclass(frozen=True)
class Arm:
    """One controller, measured after the same seeds as the others; an entry a seed in each list."""

    title: str
    samples: list[dict[str, Sample]]  # set -> sample
    behaviours: list[Behaviour]
    best_log_perplexity: list[float]  # nats a token; NaN for a controller that was not trained

    @property
    def has_state(self) -> bool:
        return self.samples[0]["own"].after.shape[1] > 0

    @functools.cached_property
    def probes(self) -> list[Probe]:
        """Of the states after uniform sequences."""
        return [probe_accuracy(behaviour.uniform_after, behaviour.uniform) for behaviour in self.behaviours]

    @functools.cached_property
    def own_conditioning(self) -> list[Conditioning]:
        """Of the controller's own samples."""
        return [conditioning(behaviour.own_log_probs) for behaviour in self.behaviours]

    @functools.cached_property
    def uniform_conditioning(self) -> list[Conditioning]:
        """Of uniform sequences, the same for every arm."""
        return [conditioning(behaviour.uniform_log_probs) for behaviour in self.behaviours]


def interval(values: Sequence[float], digits: int, sign: str = "") -> str | float | Empty:
    """The mean over seeds with half its 95 % interval; the number itself of one seed."""
    values = np.asarray(values, float)
    if undefined := int((~np.isfinite(values)).sum()):
        return Empty("undefined" if undefined == len(values) else f"undefined in {undefined} of {len(values)} seeds")
    if len(values) == 1:
        return float(values[0])
    mean, _, high = st.mean_interval(values)
    return f"{mean:{sign}z.{digits}f} ± {high - mean:.{digits}f}"


def p_values(values: Sequence[float]) -> str | float | Empty:
    """The median over seeds with the range; the number itself of one seed."""
    if np.isnan(values).any() or len(values) == 1:
        return interval(values, 4)
    return f"{np.median(values):.4f} [{min(values):.4f}, {max(values):.4f}]"


def seeds(count: int) -> str:
    """For the notes of a table."""
    return "one seed" if count == 1 else f"mean over {count} seeds ± half its 95 % interval"
