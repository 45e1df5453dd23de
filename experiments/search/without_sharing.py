"""Search without shared weights, at the arithmetic of one search with them: random search, and
successive halving.

Cells are drawn uniformly and trained alone by the recipe of `nas.training`. Random search trains as
many of them to the end as that arithmetic allows, at least one. Successive halving (Jamieson and
Talwalkar 2016; ASHA of Li et al. 2020 is the same out of order) trains many for a while, and the
better quarter of them four times as long, until one is left. That one, or the best of random
search, is then trained like the cells of the other strategies.
"""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.arms import training_steps
from launch import side_by_side
from launch.pieces import Piece
from nas import progress, tasks, training
from nas.arrays import load_arrays, save_arrays
from nas.config import Config

_KEY = 1905  # seed of the cells that are drawn
_QUARTER = 4


class Halved(NamedTuple):
    """What successive halving found, the cell that lasted longest first."""

    decisions: np.ndarray  # [n, T] int32
    steps: np.ndarray  # [n] steps that each was trained for
    loss: np.ndarray  # [n] validation loss after these steps
    seconds: np.ndarray  # [] of the whole halving


def random_cells(config: Config, epoch: int) -> list[str]:
    """The cells that random search trains from scratch, as text; the seed is that of `config`.

    Args:
      epoch: number of steps in an epoch.
    """
    count = max(1, round(training_steps(config.search) / (config.training.epochs * epoch)))
    space = tasks.build(config).space
    return [space.format(decisions) for decisions in _drawn(space, config.seed, count)]


def halve_all(root: pathlib.Path, configs: Sequence[Config], cells: int, **options) -> list[Halved]:
    """Successive halving for the seed of each configuration, several side by side; kept in
    `root`/halving.

    Args:
      cells: number of cells at the start.
      options: as for `nas.tasks.Data.load`.

    Raises:
      UserError: as `nas.tasks.Data.load`.
    """
    paths = [root / "halving" / f"seed{config.seed}-{cells}-cells.npz" for config in configs]
    missing = [
        (path, config) for path, config in zip(paths, configs, strict=True) if not path.is_file()
    ]
    side_by_side.run(
        [
            Piece(f"halving {path.stem}", _halve, (path, config, cells), options)
            for path, config in missing
        ]
    )
    return [Halved(**load_arrays(path)) for path in paths]


def first_rung(count: int, budget: int) -> int:
    """Steps that each of `count` candidates starts with, if all of them together take `budget`
    steps; at least one.
    """
    return max(1, budget // _units(count))


def _units(count: int) -> int:
    """Steps that `count` candidates take together, in units of the first rung."""
    return sum(size * (end - end // _QUARTER) for size, end in _rungs(count))


def successive_halving(
    count: int, unit: int, advance: Callable[[int, int], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Steps [count] and last losses [count] of `count` candidates.

    Args:
      unit: steps of the first rung; later ones are longer by powers of four.
      advance: (candidate, steps that it shall have taken in all) -> its loss; a loss that is not
        finite is the worst.
    """
    steps, losses = np.zeros(count, int), np.full(count, np.inf)
    for size, end in _rungs(count):
        for candidate in _ranked(steps, losses)[:size]:
            steps[candidate] = unit * end
            losses[candidate] = advance(candidate, unit * end)
    return steps, losses


def _halve(path, config, cells, **options):
    (_, space, data, network), settings = tasks.build(config), config.training
    splits, started = data.load(**options), time.perf_counter()
    valid = splits.valid.head(config.evaluation.examples)
    decisions = _drawn(space, config.seed, cells)
    models = [network.model(space, data, space.format(one)) for one in decisions]
    evaluations = [jax.jit(m.evaluate) for m in models]
    programs = [
        training.train_chunk(m, clip=settings.clip, weight_decay=settings.weight_decay)
        for m in models
    ]
    states = [[training.initial_state(m, config.seed), m.initial_carry(data.batch)] for m in models]
    done, rate = np.zeros(cells, int), np.float32(settings.learning_rate)
    unit = first_rung(cells, int(training_steps(config.search)))

    def train_until(candidate, end):
        # Calls of one length, so that a cell is compiled once.
        for first in range(done[candidate], end, unit):
            steps = np.arange(first, first + unit, dtype=np.int32)
            arguments = (
                splits.train.take(first, unit),
                np.uint32(config.seed),
                steps,
                rate,
                np.bool_(False),
            )
            *states[candidate], _ = programs[candidate](*states[candidate], *arguments)
            advance(unit)
        done[candidate] = end
        return float(evaluations[candidate](states[candidate][0].params, valid))

    total = unit * _units(cells)
    with progress.track("successive halving", total=total, unit="step") as advance:
        steps, losses = successive_halving(cells, unit, train_until)
    order, seconds = _ranked(steps, losses), np.float64(time.perf_counter() - started)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_arrays(path, Halved(decisions[order], steps[order], losses[order], seconds)._asdict())


def _rungs(count):
    """[(candidates, steps of each in all)] of the rungs, in units of the first rung's steps."""
    sizes = [count]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // _QUARTER))
    return [(size, _QUARTER**i) for i, size in enumerate(sizes)]


def _ranked(steps, losses):
    """Candidates in order: those that went further first; among equals the lower loss."""
    return np.lexsort((np.where(np.isfinite(losses), losses, np.inf), -steps))


def _drawn(space, seed, count):
    return np.asarray(space.sample_uniform(jax.random.fold_in(jax.random.key(_KEY), seed), count))
