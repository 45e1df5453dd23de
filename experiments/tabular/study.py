"""Runs the arms of the study, keeps finished pieces, and collects what was measured of them."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from experiments import kept
from experiments.tabular import judging, seeds, settings
from experiments.tabular.judging import Judge
from nas.data import table as tables
from nas.data.table import SPACE, ScoreTable
from nas.evaluation import overlap
from nas.spaces import SearchSpace

ENTROPY, CONDITIONING = "entropy", "total correlation"
RIDGE, NEAREST = "ridge", "nearest neighbours"
UNIFORM, OWN = "uniform set", "own samples"
UNTRAINED, ONE_HOT, PROJECTION = "untrained", "one-hot decisions", "random projection"


@dataclasses.dataclass(frozen=True)
class ArmResult:
    """What was measured of one arm; S seeds, Q queries, U updates."""

    queries: np.ndarray  # [S, Q] rows of `space.every()`
    entropy: np.ndarray  # [S, U] nats, of the policy at every update; NaN where there is none
    numbers: dict[str, np.ndarray]  # name -> [S], of the policy at the end


@dataclasses.dataclass(frozen=True)
class DataSet:
    """All arms on one data set."""

    name: str
    space: SearchSpace
    judge: Judge
    arms: dict[str, ArmResult]
    untrained: dict[str, np.ndarray]  # name -> [S], of the controllers before their first update
    references: dict[
        str, dict[str, float]
    ]  # one-hot decisions and their random projection -> name -> number


class _View(NamedTuple):
    """A data set and the pairs of the uniform sample on it."""

    judge: Judge
    rewards: np.ndarray  # [n] what searches see
    pairs: dict[str, np.ndarray]


class Study:
    """All arms on a table."""

    def __init__(self, table: ScoreTable, size: settings.Size, folder: pathlib.Path):
        self._table, self._size, self._folder = table, size, folder
        self._epochs = size.updates // size.epoch
        self._pieces = [
            range(first, min(first + size.piece, size.seeds))
            for first in range(0, size.seeds, size.piece)
        ]
        self._programs = {}
        self._sample = judging.uniform_sample(table, settings.UNIFORM_SAMPLE)
        self._digest = judging.digest(table)

    @property
    def epochs(self) -> int:
        """All epochs of all pieces: what the progress counts."""
        return (
            len(settings.STRATEGIES) * len(self._size.data_sets) * len(self._pieces) * self._epochs
        )

    def estimate(self) -> float:
        """Seconds that all searches will take, from one epoch of each arm that is compiled
        first.
        """
        seconds = 0.0
        for name in settings.STRATEGIES:
            parts, program = self._program(name)
            rewards = self._table.rewards(self._size.data_sets[0])
            for _ in range(2):  # the first compiles
                started = time.perf_counter()
                seeds.run(program, parts, self._pieces[0], rewards, 1)
            seconds += time.perf_counter() - started
        return seconds * self._epochs * len(self._pieces) * len(self._size.data_sets)

    def run(self, progress: Callable[[int], None]) -> Iterator[DataSet]:
        """Runs what is not kept yet; `progress` is told of epochs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for data_set in self._size.data_sets:
            judge, space = Judge.of(self._table, data_set), self._table.space
            compared = self._sample[: settings.OWN_SAMPLES]
            view = _View(
                judge,
                self._table.rewards(data_set),
                judging.pair_measures(space, compared, judge.test),
            )
            arms = {name: self._arm(name, data_set, view, progress) for name in settings.STRATEGIES}
            prefix = f"{UNTRAINED}/"
            numbers = arms[settings.PG].numbers
            untrained = {
                key.removeprefix(prefix): values
                for key, values in numbers.items()
                if key.startswith(prefix)
            }
            yield DataSet(data_set, space, judge, arms, untrained, self._references(view))

    def _arm(self, name, data_set, view, progress) -> ArmResult:
        pieces = [self._piece(name, data_set, view, piece, progress) for piece in self._pieces]
        joined = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        return ArmResult(joined.pop("queries"), joined.pop("entropy per update"), joined)

    def _piece(self, name, data_set, view, piece, progress) -> dict[str, np.ndarray]:
        config = settings.configure(name, self._size, self._table.space)
        described = [dataclasses.asdict(config), self._epochs, list(piece), self._digest]
        path = self._folder / f"{data_set}-{name}-{piece.start}.npz"
        if (saved := kept.read(path, described)) is not None:
            progress(self._epochs)
            return saved
        parts, program = self._program(name)
        found = seeds.run(
            program, parts, piece, view.rewards, self._epochs, progress=lambda: progress(1)
        )
        arrays = {"queries": found.queries.astype(np.int16), "entropy per update": found.entropy}
        if found.policy is not None:
            arrays |= self._measure(program, piece, found.policy, view)
        if name == settings.PG:  # every controller starts as this one
            states = seeds.start(program, piece, view.rewards)
            before = self._measure(
                program, piece, parts.strategy.policy_params(states.strategy), view
            )
            arrays |= {f"{UNTRAINED}/{key}": values for key, values in before.items()}
        kept.write(path, described, arrays)
        return arrays

    def _program(self, name):
        if name not in self._programs:
            space = self._table.space
            config = settings.configure(name, self._size, space)
            parts = seeds.components(config, space)
            self._programs[name] = parts, seeds.program(config, parts)
        return self._programs[name]

    def _measure(self, program, piece, policy, view) -> dict[str, np.ndarray]:
        """name -> [S] of policies."""
        space = self._table.space
        decisions = space.every()[self._sample]
        lanes = np.array(piece, np.uint32), policy
        described = jax.tree.map(np.asarray, program.describe(lanes, decisions))
        described = jax.tree.map(lambda leaf: leaf[: len(piece)], described)
        rows = []
        for s in range(len(piece)):
            row = {
                ENTROPY: judging.entropy(described.log_probs[s]),
                CONDITIONING: judging.policy_total_correlation(space, described.log_probs[s]),
            }
            if described.embedding is not None:
                own = space.index(described.own[s])
                row |= self._embedding_numbers(described.embedding[s], view)
                compared = judging.pair_measures(space, own, view.judge.test)
                found = judging.pair_correlations(described.own_embedding[s], compared)
                row |= {f"{OWN}/{name}": value for name, value in found.items()}
            rows.append(row)
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}

    def _embedding_numbers(self, embedding, view) -> dict[str, float]:
        """name -> number, of embeddings [m, H] of the uniform sample."""
        found = judging.pair_correlations(embedding[: settings.OWN_SAMPLES], view.pairs)
        ridge, nearest = judging.prediction(embedding, view.judge.test[self._sample])
        return {f"{UNIFORM}/{name}": value for name, value in found.items()} | {
            RIDGE: ridge,
            NEAREST: nearest,
        }

    def _references(self, view) -> dict[str, dict[str, float]]:
        space = self._table.space
        decisions = space.every()[self._sample]
        width = settings.configure(settings.PG, self._size, space).policy["width"]
        embeddings = {
            ONE_HOT: overlap.one_hot(space, decisions),
            PROJECTION: overlap.random_projection(space, decisions, width),
        }
        return {
            name: self._embedding_numbers(embedding, view) for name, embedding in embeddings.items()
        }


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Final regret, and conditioning at the end, on generated tables."""

    regret: dict[str, np.ndarray]  # arm -> [strengths, S] points
    conditioning: dict[str, np.ndarray]  # arm with a policy that is trained -> [strengths, S] nats
    warranted: dict[str, np.ndarray]  # the same of the Gibbs policies of equal entropy


def sweep(size: settings.Size, progress: Callable[[], None]) -> Sweep:
    """Every arm on generated tables of every strength of interaction; seed s has table s of
    each.
    """
    lanes = [(strength, seed) for strength in settings.STRENGTHS for seed in range(size.seeds)]
    (data_set,) = size.data_sets
    generated = [tables.synthetic_table(seed, strength) for strength, seed in lanes]
    judges = [Judge.of(table, data_set) for table in generated]
    rewards = np.stack([table.rewards(data_set) for table in generated])
    curves = [judging.gibbs_curve(SPACE, judge.seen) for judge in judges]
    shape = len(settings.STRENGTHS), size.seeds
    found = Sweep({}, {}, {})
    for name in settings.STRATEGIES:
        config = settings.configure(name, size, SPACE)
        parts = seeds.components(config, SPACE)
        program = seeds.program(config, parts)
        run_seeds = np.array([seed for _, seed in lanes], np.uint32)
        searches = seeds.run(
            program, parts, run_seeds, rewards, size.updates // size.epoch, progress=progress
        )
        regrets = [
            judge.regret(queries[None])[0, -1]
            for judge, queries in zip(judges, searches.queries, strict=True)
        ]
        found.regret[name] = np.reshape(regrets, shape)
        if searches.policy is None or name == settings.RANDOM:
            continue
        log_probs = np.asarray(
            program.describe((run_seeds, searches.policy), SPACE.every()[:1]).log_probs
        )[: len(lanes)]
        found.conditioning[name] = np.reshape(
            [judging.policy_total_correlation(SPACE, one) for one in log_probs], shape
        )
        entropies = map(judging.entropy, log_probs)
        warranted = [
            judging.gibbs_total_correlation(*pair) for pair in zip(curves, entropies, strict=True)
        ]
        found.warranted[name] = np.reshape(warranted, shape)
    return found
