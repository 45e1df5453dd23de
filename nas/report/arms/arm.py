"""What the tables of a study are made of: arms, and cells that sum up several seeds."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation import statistics as st
from nas.evaluation.conditioning import Conditioning, conditioning
from nas.evaluation.probes import Probe, probe_accuracy
from nas.evaluation.samples import Behaviour, Sample
from nas.report.tables import Empty
from nas.tasks import Task

NO_STATE = Empty("no state")
ONE_SEED = Empty("one seed")
NOT_MEASURED = Empty("not measured")
PERMUTED = (
    "p: median over seeds [least, greatest], each from 9,999 permutations of the {}; seeds are "
    "not multiplied up."
)

_Tests = tuple[st.Mantel, st.Mantel]  # simple and partial


def once(function):
    """Decorates a function of an arm: its result is kept with the arm, by its arguments.

    For numbers, not for arrays of pairs, which are large.
    """
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def kept(arm, *arguments):
        found = arm.__dict__.setdefault(name, {})
        if arguments not in found:
            found[arguments] = function(arm, *arguments)
        return found[arguments]

    return kept


@dataclasses.dataclass(frozen=True)
class MeasuredArm:
    """One controller, measured after the same seeds as the others; each list has one entry per
    seed.

    What tables, answers and figures derive from it is computed once.
    """

    title: str
    samples: list[dict[str, Sample]]  # set -> sample
    behaviours: list[Behaviour]
    best_loss: list[float]  # NaN for a controller that was not trained

    @property
    def has_state(self) -> bool:
        return self.samples[0]["own"].after.shape[1] > 0

    @once
    def correlations(self, task: Task, which: str) -> dict[str, list[float]]:
        """measure -> [S] Spearman's correlation with the distance of states, on one of the SETS."""
        samples = [seed[which] for seed in self.samples]
        found = [
            correlations.correlations(all_measures(task, one), one.after, block=one.block)
            for one in samples
        ]
        return {name: [seed[name] for seed in found] for name in found[0]}

    @once
    def protocol(self, task: Task) -> list[dict[tuple[str, str, str], float]]:
        """`correlations.paper_protocol` of the own samples, one per seed."""
        return [correlations.paper_protocol(task, sample["own"]) for sample in self.samples]

    @once
    def performance_tests(self, task: Task, which: str, field: str) -> list[_Tests]:
        """Tests of the distance of states against |difference| of a field of the samples, by seed.

        Mantel's test, and the partial one at a fixed total overlap, on one of the SETS.
        """
        found = []
        for sample in (seed[which] for seed in self.samples):
            block, kinds = sample.block, dict.fromkeys(task.space.kinds)
            total = overlap.common_decisions(task.space, sample.decisions, *kinds, block=block)
            performance = overlap.feature_difference(getattr(sample, field), block=block)
            distance = correlations.distances(sample.after, block=block)
            found.append(st.mantel_and_partial(distance, performance, total, blocks=sample.blocks))
        return found

    def probe_gains(self, task: Task) -> list[float]:
        """[S] accuracy of the probes less that of the majority, mean over free decisions."""
        free = np.array(task.space.num_choices) > 1
        return [float((probe.accuracy - probe.majority)[free].mean()) for probe in self.probes]

    @functools.cached_property
    def probes(self) -> list[Probe]:
        """Probes of the states after uniform sequences, one per seed."""
        return [
            probe_accuracy(behaviour.uniform_after, behaviour.uniform)
            for behaviour in self.behaviours
        ]

    @functools.cached_property
    def own_conditioning(self) -> list[Conditioning]:
        """Conditioning on the controller's own samples, one per seed."""
        return [conditioning(behaviour.own_log_probs) for behaviour in self.behaviours]

    @functools.cached_property
    def uniform_conditioning(self) -> list[Conditioning]:
        """Conditioning on uniform sequences, the same for every arm, one per seed."""
        return [conditioning(behaviour.uniform_log_probs) for behaviour in self.behaviours]


def performance(task: Task) -> str:
    """Name of the measure: |difference| of losses under the shared weights of the arm's search."""
    return correlations.difference_in(task.metric.loss)


def common_performance(task: Task) -> str:
    """The same under shared weights that all arms have in common."""
    return correlations.difference_in(f"{task.metric.loss} (common weights)")


def all_measures(task: Task, sample: Sample) -> dict[str, np.ndarray]:
    """name -> [P] value of every pair, for all columns of the correlations."""
    block = sample.block
    found = correlations.measures(
        task.space, sample.decisions, edits=sample.edit_distance, block=block
    )
    found[performance(task)] = overlap.feature_difference(sample.loss, block=block)
    found[common_performance(task)] = overlap.feature_difference(sample.common_loss, block=block)
    return found


def interval(values: Sequence[float], digits: int, sign: str = "") -> str | float | Empty:
    """The mean over seeds with half its 95 % interval; with one seed the number itself."""
    values = np.asarray(values, float)
    if undefined := int((~np.isfinite(values)).sum()):
        return Empty(
            "undefined"
            if undefined == len(values)
            else f"undefined in {undefined} of {len(values)} seeds"
        )
    if len(values) == 1:
        return float(values[0])
    mean, _, high = st.mean_interval(values)
    return f"{mean:{sign}z.{digits}f} ± {high - mean:.{digits}f}"


def p_values(values: Sequence[float]) -> str | float | Empty:
    """The median over seeds with the range; with one seed the number itself."""
    if np.isnan(values).any() or len(values) == 1:
        return interval(values, 4)
    return f"{np.median(values):.4f} [{min(values):.4f}, {max(values):.4f}]"


def seeds(count: int) -> str:
    """What a number is over, for the notes of a table."""
    return "one seed" if count == 1 else f"mean over {count} seeds ± half its 95 % interval"


def is_measured(samples: Sequence[Sample], field: str) -> bool:
    """Whether a field of the samples holds any number."""
    return not all(np.isnan(getattr(sample, field)).all() for sample in samples)
