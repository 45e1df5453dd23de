"""What sharing weights does to the ranking of cells: supernets beside cells trained alone, and
searches of a space of which all is known. Finished pieces are kept.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from experiments import kept
from experiments.cells import study, supernet
from experiments.cells.recipe import Recipe
from experiments.cells.supernet import Searched
from experiments.cells.training import Text
from experiments.tabular import peers, seeds, settings
from nas import config as configs
from nas import progress
from nas.config import Config
from nas.data.cell_table import CellTable
from nas.data.characters import Characters
from nas.errors import UserError
from nas.spaces.recurrent import RecurrentSpace

UNIFORM, PG, MEMORY = settings.RANDOM, settings.PG, "memory"
PG_AS_MEMORY = "pg_as_memory"  # PG with learning rate and entropy weight of MEMORY: its control
POLICIES = (UNIFORM, PG, MEMORY, PG_AS_MEMORY)  # that choose the cells of a supernet
SEARCHES = (
    settings.RANDOM,
    peers.LOCAL_SEARCH,
    settings.EVOLUTION,
    settings.FACTORISED,
    PG,
    MEMORY,
)
QUERIES = (100, 300)  # after which searches are judged
_CHOSEN_FOR = 300  # queries for which the settings of local search were chosen


class Size(NamedTuple):
    """How much is run."""

    nodes: tuple[int, ...]  # of the spaces that are compared
    steps: int  # of shared weights
    fewer: tuple[int, ...]  # steps with which those of the largest space are trained as well
    supernets: int  # of every policy and space
    sample: int  # cells of a space that are trained alone
    alone: int  # seeds of these
    searches: int  # of every strategy, on the truth
    by_supernet: int  # of every strategy, on each supernet of uniformly drawn cells


SIZES = {
    "quick": Size((3, 4, 6), 2400, (480, 960), 2, 32, 2, 10, 5),
    "full": Size((3, 4, 6, 8, 12), 12_000, (720, 1440, 2880, 5760), 6, 96, 2, 60, 10),
}


class Ranked(NamedTuple):
    """One measure of the same cells, repeated under shared weights and alone."""

    shared: np.ndarray  # [supernets, n] bits a character
    alone: np.ndarray  # [seeds, n]


class Queries(NamedTuple):
    """Searches of one strategy: rows of `space.every()`."""

    truth: np.ndarray  # [S, Q] that saw the validation loss of cells trained alone
    shared: np.ndarray  # [supernets, S, Q] that saw the loss under shared weights


class Study:
    """Runs what a folder does not hold yet.

    Raises:
      UserError: the table does not say by which recipe its cells were trained; or, when they are
        used, losses under shared weights are not finite.
    """

    def __init__(self, table: CellTable, text: Characters, size: Size, folder: pathlib.Path):
        self._table, self._text, self._size, self._folder = table, text, size, folder
        try:
            self._recipe = Recipe(**table.settings["recipe"])
        except (KeyError, TypeError):
            raise UserError("--table: its first line must hold the recipe of its cells") from None
        self._splits = Text(**{name: text.splits[name] for name in Text._fields})
        folder.mkdir(parents=True, exist_ok=True)

    def by_size(self) -> Iterator[tuple[int, Ranked]]:
        """Numbers of nodes, and the sample of cells of each."""
        for nodes in self._size.nodes:
            yield nodes, self._ranked(nodes, self._size.steps)

    def by_steps(self) -> Iterator[tuple[int, Ranked]]:
        """Steps of shared weights, and the sample of cells of the largest space."""
        for steps in (*self._size.fewer, self._size.steps):
            yield steps, self._ranked(max(self._size.nodes), steps)

    def exact(self) -> dict[str, Searched]:
        """Policy -> its supernets, with every architecture of the table's space."""
        space = self._table.space
        every, steps = space.every(), self._size.steps
        return {policy: self._supernets(space, policy, every, steps) for policy in POLICIES}

    def searches(self, rewards: np.ndarray, shared: np.ndarray) -> dict[str, Queries]:
        """Strategy -> its searches.

        Args:
          rewards: [n] of all architectures, from cells trained alone.
          shared: [supernets, n] from shared weights.
        """
        found = {}
        with progress.track("searches", total=len(SEARCHES), unit="arm") as advance:
            for name in SEARCHES:
                found[name] = self._searches(name, rewards, shared)
                advance(1)
        return found

    def _ranked(self, nodes, steps) -> Ranked:
        space = RecurrentSpace(num_nodes=nodes)
        cells = sample(space, self._size.sample)
        if space == self._table.space:  # as in `exact`
            every = self._supernets(space, UNIFORM, space.every(), steps)
            shared = every.bits[:, space.index(cells)]
        else:
            shared = self._supernets(space, UNIFORM, cells, steps).bits
        return Ranked(shared, self._alone(space, cells))

    def _alone(self, space, cells) -> np.ndarray:
        """[seeds, R] validation bits; those of the table are read from it."""
        chosen = range(self._size.alone)
        if space == self._table.space and set(chosen) <= set(self._table.seeds):
            rows = self._table.rows()[space.index(cells)]
            columns = [self._table.seeds.index(seed) for seed in chosen]
            return self._table.bits["validation"][rows][:, columns].T
        folder = self._folder / f"alone-{space.num_nodes}"
        trained = study.train(space, self._recipe, self._text, cells, chosen, folder)
        return trained.validation.T

    def _supernets(self, space, policy, cells, steps) -> Searched:
        recipe = dataclasses.replace(self._recipe, steps=steps)
        config, run_seeds = configure(policy, space), range(self._size.supernets)
        described = [dataclasses.asdict(config), dataclasses.asdict(recipe), len(run_seeds)]
        described += [kept.digest(*self._splits), kept.digest(cells)]

        def run() -> Mapping[str, np.ndarray]:
            name = f"{space.num_nodes} nodes, {policy}, {steps} steps"
            compiled = supernet.program(config, space, recipe, len(self._text.types))
            with progress.track(name, total=supernet.EPOCHS, unit="epoch") as advance:
                searched = supernet.run(
                    compiled, run_seeds, self._splits, cells, recipe, lambda: advance(1)
                )
            return searched._asdict()

        name = f"{space.num_nodes}-{policy}" + f"-{steps}" * (steps != self._size.steps)
        found = Searched(**self._keep(name, described, run))
        if wild := int(np.sum(~np.isfinite(found.bits))):
            raise UserError(
                f"{wild} of {found.bits.size} losses under shared weights of {policy} cells of "
                f"{space.num_nodes} nodes are not finite: more cannot be said of them"
            )
        return found

    def _searches(self, name, rewards, shared) -> Queries:
        space = self._table.space
        config = configure(name, space)
        each, count = self._size.by_supernet, self._size.searches
        described = [
            dataclasses.asdict(config),
            each,
            count,
            kept.digest(rewards),
            kept.digest(shared),
        ]

        def run() -> Mapping[str, np.ndarray]:
            parts = seeds.components(config, space)
            compiled = seeds.program(config, parts)
            plan = config.search
            epochs = -(-max(QUERIES) // (plan.controller_steps * plan.architectures))

            def search(some, seen):
                found = seeds.run(compiled, parts, some, seen, epochs).queries
                return found[:, : max(QUERIES)].astype(np.int32)

            under = search(np.arange(each * len(shared)), np.repeat(shared, each, axis=0))
            under = under.reshape(len(shared), each, -1)
            return Queries(search(range(count), rewards), under)._asdict()

        return Queries(**self._keep(f"search-{name}", described, run))

    def _keep(self, name: str, described: object, run: Callable[[], Mapping[str, np.ndarray]]):
        path = self._folder / f"{name}.npz"
        if (saved := kept.read(path, described)) is not None:
            return saved
        found = run()
        kept.write(path, described, dict(found))
        return found


def sample(space: RecurrentSpace, count: int, seed: int = 0) -> np.ndarray:
    """int32[count, T]: cells that differ in what they compute, each the canonical form of an
    architecture that was drawn uniformly; spaces may be too large to list.
    """
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        drawn = rng.integers(0, space.num_choices, (1, space.num_decisions))
        cell = space.canonical(drawn)[0]
        found.setdefault(cell.tobytes(), cell)
    return np.stack(list(found.values()))


def configure(name: str, space: RecurrentSpace) -> Config:
    """The configuration of a strategy with settings that were chosen on NAS-Bench-201."""
    if name == peers.LOCAL_SEARCH:
        chosen = peers.CHOSEN[name][_CHOSEN_FOR]
        return peers.configure(peers.ARMS[name], chosen, space)
    if name == PG_AS_MEMORY:
        rate, entropy = settings.TUNED[MEMORY]
        weights = {"learning_rate": rate, "entropy_weight": entropy}
        return configs.override(configure(PG, space), {"strategy": weights})
    return settings.configure(name, settings.SIZES["quick"], space)
