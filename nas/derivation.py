"""From a finished search to the cell it found: samples many architectures from its strategy and
ranks them under its shared weights.

One half of the validation split ranks them, by successive halving (Jamieson, Talwalkar 2016). The
other half reports how good they are: on the data that chose it, the best of many looks better than
it is. Test data is not read.
"""

from typing import NamedTuple

import jax
import numpy as np

from nas import progress, steps
from nas.errors import UserError
from nas.runs import Run
from nas.types import stacked

_SLICES = 8  # most slices of each half of the validation split


class Derived(NamedTuple):
    """Distinct architectures, best first: those that lasted more rounds come first, and among
    equals those with the smaller loss.
    """

    decisions: np.ndarray  # [n, T] int32
    given: np.ndarray  # [n] bool; True for the user's own architecture
    examples: np.ndarray  # [n] int; examples read from the half that ranks
    loss: np.ndarray  # [n] mean loss on these examples
    held_out: np.ndarray  # [n] loss on the other half; NaN for those that did not last to the end
    reward: np.ndarray  # [n] mean reward on the other half; NaN likewise, or if it is not shown
    repeated: int  # samples left out because they were drawn before


def derive(
    run: Run, architectures: int, *, seed: int = 0, given: np.ndarray | None = None
) -> Derived:
    """Draws `architectures` samples from the run's strategy as it is now, and ranks the distinct
    ones.

    In every round the worse half is dropped, and the rest are read on twice as many slices of the
    ranking half of the validation split: the slices read before and new ones, the same for all
    architectures.

    Args:
      seed: draws the samples and shuffles the slices.
      given: [T] an architecture that is ranked with the samples and never dropped.

    Raises:
      UserError: the data cannot be read or is too short for two halves, or no loss is finite.
    """
    strategy = steps.components(run.config).strategy
    sampled = _distinct(
        np.asarray(strategy.propose(run.state.strategy, jax.random.key(seed), architectures))
    )
    decisions = sampled if given is None else _distinct(np.concatenate([given[None], sampled]))
    is_given = np.zeros(len(decisions), bool) if given is None else np.arange(len(decisions)) == 0
    ranking, reporting = run.splits.valid.halves(_SLICES, seed)
    ends = [2**r for r in range(len(ranking).bit_length())]  # slices read by the end of each round
    sizes = [-(-np.sum(~is_given) // end) + np.sum(is_given) for end in ends]  # ranked in a round
    slices = sum(size * (end - end // 2) for size, end in zip(sizes, ends, strict=True))
    length = stacked(ranking[0])  # batches per slice
    batches = (slices + sizes[-1] * len(reporting)) * length
    totals, read, alive = (
        np.zeros(len(decisions)),
        np.zeros(len(decisions), int),
        np.arange(len(decisions)),
    )
    held_out, rewards = np.full((2, len(decisions)), np.nan)
    with progress.track("derivation", total=batches, unit="batch") as advance:

        def losses(rows, part):
            return run.losses(decisions[rows], part, lambda count: advance(count * length))

        for size, end in zip(sizes, ends, strict=True):
            alive = alive[np.lexsort((totals[alive], ~is_given[alive]))][:size]  # NaN is last
            for part in ranking[end // 2 : end]:
                totals[alive] += losses(alive, part)
            read[alive] = end
        held_out[alive] = np.mean([losses(alive, part) for part in reporting], axis=0)
    if run.task.metric.also:
        found = [run.rewards(decisions[alive], part) for part in reporting]
        rewards[alive] = np.mean(found, axis=0)
    values = totals / read
    order = np.lexsort((values, -read))
    if not np.isfinite(values[order[0]]):
        raise UserError(
            f"--workdir: no architecture of {run.workdir} has a finite loss under its shared "
            "weights"
        )
    examples = read * length * run.splits.valid.examples
    columns = decisions, is_given, examples, values, held_out, rewards
    return Derived(*(column[order] for column in columns), repeated=architectures - len(sampled))


def _distinct(decisions):
    """The distinct rows, in the order in which they first appear."""
    return decisions[np.sort(np.unique(decisions, axis=0, return_index=True)[1])]
