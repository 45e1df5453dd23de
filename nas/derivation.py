"""From a finished search to the cell it found: many samples of its strategy, ranked under its shared weights.

The validation split is cut into short rows. Every other one ranks, by successive halving (Jamieson, Talwalkar 2016); the rest
report what the ranking is worth: the best of many looks better than it is on what chose it. Test data is not read.
"""

from typing import NamedTuple

import jax
import numpy as np

from nas import progress, search
from nas.data.tokens import Windows
from nas.errors import UserError
from nas.runs import Run

_SLICES = 8  # of each half, at most; a power of two


class Derived(NamedTuple):
    """Different architectures from the best to the worst: those that lasted longer first, equals by their perplexity."""

    decisions: np.ndarray  # [n, T] int32
    given: np.ndarray  # [n] bool; the user's own
    tokens: np.ndarray  # [n] int; read of the half that ranks
    log_perplexity: np.ndarray  # [n] nats a token of these
    held_out: np.ndarray  # [n] nats a token of the other half; NaN for those that did not last to the end
    repeated: int  # samples left out because they were drawn before


def derive(run: Run, architectures: int, *, seed: int = 0, given: np.ndarray | None = None) -> Derived:
    """Ranks so many samples of the run's strategy as it is now, each of them once.

    In every round the worse half leaves, and the others are read on twice as many slices of the half of the validation split
    that ranks: those before and new ones. A slice is rows from random places, the same for all cells, each from a zero state.

    Args:
      seed: of the samples and of the places.
      given: [T] an architecture that is ranked with them and lasts to the end.

    Raises:
      UserError: the corpus cannot be read, is too short for two halves, or no cell's perplexity is finite.
    """
    strategy = search.components(run.config).strategy
    sampled = _distinct(np.asarray(strategy.propose(run.state.strategy, jax.random.key(seed), architectures)))
    decisions = sampled if given is None else _distinct(np.concatenate([given[None], sampled]))
    is_given = np.zeros(len(decisions), bool) if given is None else np.arange(len(decisions)) == 0
    ranking, reporting = _halves(run, seed)
    ends = [2**r for r in range(len(ranking).bit_length())]  # slices read when a round ends
    sizes = [-(-np.sum(~is_given) // end) + np.sum(is_given) for end in ends]  # architectures in it
    slices = sum(size * (end - end // 2) for size, end in zip(sizes, ends, strict=True))
    windows = (slices + sizes[-1] * len(reporting)) * len(ranking[0].start)
    totals, read, alive = np.zeros(len(decisions)), np.zeros(len(decisions), int), np.arange(len(decisions))
    held_out = np.full(len(decisions), np.nan)
    with progress.track("derivation", total=windows, unit="window") as advance:

        def log_perplexities(rows, part):
            return run.log_perplexities(decisions[rows], part, lambda count: advance(count * len(part.start)))

        for size, end in zip(sizes, ends, strict=True):
            alive = alive[np.lexsort((totals[alive], ~is_given[alive]))][:size]  # NaN is last
            for part in ranking[end // 2 : end]:
                totals[alive] += log_perplexities(alive, part)
            read[alive] = end
        held_out[alive] = np.mean([log_perplexities(alive, part) for part in reporting], axis=0)
    values = totals / read
    order = np.lexsort((values, -read))
    if not np.isfinite(values[order[0]]):
        raise UserError(f"--workdir: no cell of {run.workdir} has a finite perplexity under its shared weights")
    tokens = read * ranking[0].tokens[..., 1:].size
    columns = (column[order] for column in (decisions, is_given, tokens, values, held_out))
    return Derived(*columns, repeated=architectures - len(sampled))


def _distinct(decisions):
    """The rows in their order, each where it stands first."""
    return decisions[np.sort(np.unique(decisions, axis=0, return_index=True)[1])]


def _halves(run, seed):
    """Slices of the two halves of the validation split: of the even rows, shuffled, and of the odd ones."""
    data, valid = run.config.data, run.corpus.valid
    slices = _SLICES
    while slices > 1 and len(valid) // (2 * slices * data.eval_batch) <= data.steps:
        slices //= 2
    rows = Windows.of(valid, 2 * slices * data.eval_batch, data.steps).rows
    shuffled = np.random.default_rng(seed).permutation(rows[::2])
    return [
        [Windows(part, data.steps).head(0) for part in half.reshape(slices, data.eval_batch, -1)]
        for half in (shuffled, rows[1::2])
    ]
