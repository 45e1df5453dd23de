"""The pieces of the search study: the cells derived from searches, crossed scores and cells trained
from scratch.

Each is kept in the study's folder and read again by later calls:

    NAME-seedS/        the search of a strategy and seed (experiments.search.searches)
      derived-N.npz    the cells derived from N samples, scored under the search's own weights
      crossed-NAME.npz scores of cells of the other strategies of the seed under these weights
    from_scratch/      seedS-E-epochs-DECISIONS/, a run each (nas.runs): a cell that two strategies
                       found is trained once
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.search.tables import Scratch
from launch import side_by_side
from launch.pieces import Piece
from nas import derivation, logs, progress, runs, tasks, training
from nas.arrays import load_arrays, save_arrays
from nas.config import Config
from nas.runs import Run
from nas.spaces import SearchSpace
from nas.tasks import Metric

CROSSED = 20  # cells of each policy that all shared weights score
_CONTROL_KEY = 1907  # seed of the cells drawn at random, one for each seed of the study


class Cells(NamedTuple):
    """The distinct cells derived from a search, best first."""

    decisions: np.ndarray  # [n, T] int32
    loss: np.ndarray  # [n] under the search's own weights, on an evaluation's validation windows
    # [] loss of the best cell on the half of the validation split that did not choose it
    held_out: np.ndarray


class Alone(NamedTuple):
    """One model trained from scratch."""

    result: training.Result
    epochs: np.ndarray  # [E] validation loss at the end of each epoch
    seconds: float  # all steps and validations together


def derive_all(searched: Mapping[str, Sequence[Run]], samples: int) -> dict[str, list[Cells]]:
    """Name -> `derive` of each of its runs, made side by side."""
    missing = [
        run for found in searched.values() for run in found if not _derived(run, samples).is_file()
    ]
    side_by_side.run(
        [Piece(f"derive {run.workdir.name}", _derive_in, (run.workdir, samples)) for run in missing]
    )
    return {name: [derive(run, samples) for run in found] for name, found in searched.items()}


def derive(run: Run, samples: int) -> Cells:
    """Ranks `samples` samples of the run's strategy, with the run's seed.

    Raises:
      UserError: as `nas.derivation.derive`.
    """
    path = _derived(run, samples)
    if not path.is_file():
        found = derivation.derive(run, samples, seed=run.config.seed)
        cells = Cells(found.decisions, score(run, found.decisions), found.held_out[0])
        save_arrays(path, cells._asdict())
    return Cells(**load_arrays(path))


def cross(searched: Mapping[str, Run], derived: Mapping[str, Cells]) -> np.ndarray:
    """[P, P] mean loss of cells of the policy in the row under the shared weights in the column,
    for one seed.

    Uses at most `CROSSED` of the derived cells of each policy, drawn whatever their rank: to choose
    them under their own weights would favour the diagonal.
    """
    values = np.zeros((len(searched), len(searched)))
    for row, (proposer, cells) in enumerate(derived.items()):
        rng = np.random.default_rng(searched[proposer].config.seed)
        chosen = rng.permutation(len(cells.decisions))[:CROSSED]
        for column, (name, run) in enumerate(searched.items()):
            own = name == proposer
            scores = cells.loss[chosen] if own else _crossed(run, proposer, cells.decisions[chosen])
            values[row, column] = scores.mean()
    return values


def from_scratch(
    root: pathlib.Path,
    base: Config,
    wanted: Mapping[str, Sequence[Sequence[tuple[int, str]]]],
    **options,
) -> dict[str, Scratch]:
    """Title -> models trained from scratch; among the candidates of a seed, validation chooses.

    Args:
      wanted: title -> for each seed its candidates, as `train` takes them.
      options: as for `nas.runs.train`.

    Raises:
      UserError: as `nas.runs.train`.
    """
    trained = train(
        root, base, [one for lots in wanted.values() for lot in lots for one in lot], **options
    )
    found, metric = {}, tasks.build(base).metric
    shown = metric.shown
    for title, lots in wanted.items():
        chosen = [min((trained[one] for one in lot), key=lambda of: of.result.loss) for lot in lots]
        found[title] = Scratch(
            valid=shown(np.array([of.result.loss for of in chosen])),
            test=shown(np.array([of.result.test_loss for of in chosen])),
            epochs=shown(np.stack([of.epochs for of in chosen])),
            seconds=np.array([sum(trained[one].seconds for one in lot) for lot in lots]),
            also=metric.also_shown(np.array([of.result.test_reward for of in chosen], float)),
        )
    return found


def train(
    root: pathlib.Path, base: Config, wanted: Iterable[tuple[int, str]], **options
) -> dict[tuple[int, str], Alone]:
    """Trains cells, or baselines by name, from scratch by the recipe of `base`, side by side.

    Args:
      wanted: (seed, architecture), the latter as `nas.tasks.Network.model` reads it; the same pair
        is trained once.
      options: as for `nas.runs.train`.

    Raises:
      UserError: as `nas.runs.train`.
    """
    plans = {which: _plan(root, base, *which) for which in wanted}
    missing = [
        (config, workdir)
        for config, workdir in plans.values()
        if not (workdir / runs.RESULT).is_file()
    ]
    side_by_side.run(
        [Piece(workdir.name, runs.train, (config, workdir), options) for config, workdir in missing]
    )
    trained = {}
    for which, (config, workdir) in plans.items():
        result, epochs = runs.train(config, workdir, **options), config.training.epochs
        lines = logs.read(workdir, {"valid": epochs})
        _, losses = logs.curves(lines, "valid", epochs).get("loss", (0, np.full(epochs, np.nan)))
        trained[which] = Alone(result, losses, sum(line["seconds"] for line in lines))
    return trained


def random_cell(space: SearchSpace, seed: int) -> np.ndarray:
    """[T] the control of a seed: one cell drawn uniformly, the same for all strategies."""
    return np.asarray(
        space.sample_uniform(jax.random.fold_in(jax.random.key(_CONTROL_KEY), seed), 1)
    )[0]


def best_so_far(lines: Iterable[dict], metric: Metric, epochs: int) -> np.ndarray:
    """[3, E] at the end of each epoch: steps of both phases so far, their seconds, and the lowest
    shown number validated so far; nan for an epoch that has no line.
    """
    points, steps, seconds, best = np.full((3, epochs), np.nan), 0, 0.0, np.inf
    for line in lines:
        seconds += line["seconds"]
        if line["phase"] != "valid":
            steps += 1
        elif line["step"] < epochs and "loss_best" in line:
            best = min(best, float(metric.shown(float(line["loss_best"]))))
            points[:, line["step"]] = steps, seconds, best
    return points


def score(run: Run, decisions: np.ndarray) -> np.ndarray:
    """[n] losses of cells [n, T] under the run's shared weights, on the windows that validate
    during the search.
    """
    with progress.track("scores", total=len(decisions), unit="cell") as advance:
        return run.losses(decisions, run.valid_batches(), advance)


def _plan(root, base, seed, architecture):
    """Configuration and folder of a training; the same whichever strategy found the cell."""
    settings = dataclasses.replace(base.training, architecture=architecture)
    name = f"seed{seed}-{settings.epochs}-epochs-{architecture.replace(' ', '-')}"
    return dataclasses.replace(base, seed=seed, training=settings), root / "from_scratch" / name


def _derived(run, samples):
    return run.workdir / f"derived-{samples}.npz"


def _derive_in(workdir, samples):
    derive(runs.open_run(workdir), samples)


def _crossed(run, proposer, decisions):
    path = run.workdir / f"crossed-{proposer}.npz"
    if path.is_file() and np.array_equal((saved := load_arrays(path))["decisions"], decisions):
        return saved["loss"]
    values = score(run, decisions)
    save_arrays(path, {"decisions": decisions, "loss": values})
    return values
