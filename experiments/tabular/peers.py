"""What a controller is compared with that is meant to search well, and what it needs itself: every
arm with the settings that were best for 100, 300 and 1,000 queries.

Settings are chosen on CIFAR-100 of NAS-Bench-201, of as many for each arm, by regret averaged over
the queries, and are those of every table:

    python -m experiments.study_table --table=nasbench201.csv.gz --tune

No arm but one pays for an architecture twice.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments import kept
from experiments.tabular import judging, seeds, settings
from experiments.tabular.judging import Judge
from nas import config as configs
from nas.config import Config
from nas.controllers import POLICIES
from nas.data.table import ScoreTable
from nas.errors import UserError
from nas.spaces import SearchSpace
from nas.strategies import STRATEGIES

BUDGETS = (100, 300, 1000)  # queries
EPOCH = 100  # queries between two looks of the host
TUNING_SET = "cifar100"
TUNING_SEEDS = tuple(range(1000, 1010))  # no seed of a reported run
CLEAN = ("cifar10", "imagenet")  # nothing was chosen on them

# Measures of what a state encodes, as finished pieces name them.
RIDGE, OVERLAP = "ridge", "common operations"


class Size(NamedTuple):
    """How much is run with the settings that were chosen."""

    seeds: int
    data_sets: tuple[str, ...]  # of NAS-Bench-201

    def of(self, table: ScoreTable) -> "Size":
        """The same on the data sets of a table: all of one that has other ones."""
        shared = tuple(name for name in self.data_sets if name in table.data_sets)
        return self._replace(data_sets=shared or table.data_sets)


SIZES = {"quick": Size(50, CLEAN), "full": Size(200, (*CLEAN, TUNING_SET))}
Setting = Mapping[str, Any]  # fields of the strategy; of its memory, those of _MEMORY


class Arm(NamedTuple):
    """What is compared."""

    title: str
    trials: tuple[Setting, ...]  # of which one is chosen for each number of queries
    strategy: Setting  # what all of them share
    policy: str = "uniform"
    architectures: int = 1  # scored together
    budgets: tuple[int, ...] = BUDGETS  # numbers of queries


def _grid(**values) -> tuple[Setting, ...]:
    return tuple(
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    )


_MEMORY = ("source", "capacity", "refresh_size", "batch")
_LSTM = {"learning_rate": (3e-3, 1e-2, 3e-2), "entropy_weight": (1e-3, 3e-3, 1e-2, 3e-2)}
_RATES = {"lstm": (3e-3, 1e-2, 3e-2), "factorised": (0.1, 0.3, 1.0)}
_ENTROPIES = (1e-2, 1e-1)
_NEW = {"name": "reinforce", "archive": max(BUDGETS)}
_UNUSED = {"capacity": 1, "refresh_size": 1, "batch": 1}
_BEST = _NEW | {"supervised": "likelihood", "source": "best", "capacity": 8, "batch": 16}
RANDOM, LOCAL_SEARCH, PG = "random", "local_search", "pg"
ARMS = {
    RANDOM: Arm("random search", ({},), _NEW | _UNUSED | {"supervised_weight": 0.0}),
    LOCAL_SEARCH: Arm(
        "local search",
        _grid(first_starts=(1, 3, 5, 10, 20, 30), starts=(1, 5)),
        {"name": "local_search", "archive": max(BUDGETS)},
    ),
    "evolution": Arm(
        "regularised evolution, one by one",
        _grid(population=(10, 25, 50, 100), tournament=(3, 5, 10)),
        {"name": "evolution", "archive": max(BUDGETS), "candidates": 16},
    ),
    "mutations": Arm(
        "mutations of the best, no policy",
        _grid(capacity=(1, 2, 3, 5), mutations=(0.5, 0.8, 1.0)),
        _BEST | {"batch": 1, "candidates": 16},
    ),
    PG: Arm("PG only, repeats allowed", _grid(**_LSTM), _NEW | _UNUSED | {"archive": 0}, "lstm", 4),
    "pg_new": Arm("PG only", _grid(**_LSTM), _NEW | _UNUSED, "lstm", 4),
}


def _queue(title: str, policy: str) -> dict[str, Arm]:
    """Controllers trained by both losses on the best, without and with mutations of them."""
    rates, name = _RATES[policy], "best" if policy == "lstm" else f"{policy}_best"
    weights = {"supervised_weight": (0.3, 3.0), "entropy_weight": _ENTROPIES}
    return {
        name: Arm(title, _grid(learning_rate=rates, **weights), _BEST, policy, 4),
        f"{name}_mutations": Arm(
            f"{title}, and mutations",
            _grid(mutations=(0.5, 0.8), learning_rate=rates, entropy_weight=_ENTROPIES),
            _BEST | {"supervised_weight": 1.0, "candidates": 16},
            policy,
        ),
    }


def _screened(title: str, kind: str) -> Arm:
    """The controller with a memory of the best, of whose 16 candidates for each query one is taken;
    up to 300 queries, since ridge regression on states takes its time.
    """
    trials = _grid(mutations=(0.0, 0.5), learning_rate=_RATES["lstm"], entropy_weight=_ENTROPIES)
    shared = _BEST | {"supervised_weight": 1.0, "archive": 300, "candidates": 16}
    return Arm(title, trials, shared | {"screening": kind}, "lstm", 4, BUDGETS[:2])


ARMS |= _queue("PG + memory of the best", "lstm")
ARMS |= _queue("factorised, PG + memory of the best", "factorised")
ARMS |= {
    f"screened_{kind}": _screened(f"PG + memory of the best, screened by {title}", kind)
    for kind, title in {
        "value": "a value head",
        "one_hot": "ridge on decisions",
        "pairs": "ridge on pairs",
        "state": "ridge on the state",
        "untrained": "ridge on the untrained state",
    }.items()
}
# Numbers of the objective are traced: one compilation serves all trials.
_TRACED = {
    "learning_rate": "learning_rate",
    "entropy_weight": "entropy",
    "supervised_weight": "supervised",
}


def configure(arm: Arm, setting: Setting, space: SearchSpace) -> Config:
    """The configuration of an arm with a setting."""
    fields = dict(arm.strategy) | dict(setting)
    name = fields.pop("name")
    memory = {field: fields.pop(field) for field in _MEMORY if field in fields}
    if "capacity" in memory:
        memory["refresh_size"] = 1  # a memory of the best is not refreshed
    base = configs.from_dict(
        settings.groups(space)
        | {
            "policy": configs.choose(POLICIES, {}, arm.policy, "policy") | {"name": arm.policy},
            "strategy": configs.choose(STRATEGIES, {}, name, "strategy"),
            "search": {
                "controller_steps": EPOCH // arm.architectures,
                "architectures": arm.architectures,
                "chunk": 1,
            },
        }
    )
    return configs.override(base, {"strategy": fields | ({"memory": memory} if memory else {})})


class Runner:
    """Runs arms on a table and keeps what is finished.

    Raises:
      UserError: the table has not more different architectures than the least number of queries.
    """

    def __init__(self, table: ScoreTable, folder: pathlib.Path):
        self._table, self._folder = table, folder
        self._digest = judging.digest(table)
        self._budgets = tuple(budget for budget in BUDGETS if budget < table.different)
        if not self._budgets:
            least = f"more than {min(BUDGETS)} different architectures"
            raise UserError(f"--table: must have {least}, got {table.different}")
        folder.mkdir(parents=True, exist_ok=True)

    def budgets(self, arm: str) -> tuple[int, ...]:
        """The numbers of queries of an arm, without those that all different architectures would
        not fill.
        """
        return tuple(budget for budget in ARMS[arm].budgets if budget in self._budgets)

    def tune(self, arm: str) -> np.ndarray:
        """[trials, S, Q] regret on the tuning set."""
        judge, trials = Judge.of(self._table, TUNING_SET), ARMS[arm].trials
        most = max(ARMS[arm].budgets)
        regret = []
        for fixed, group in itertools.groupby(map(_parted, trials), lambda parts: parts[0]):
            traced = [weights for _, weights in group]
            found = self._search(arm, fixed, traced, TUNING_SEEDS, TUNING_SET, most)
            regret.append(judge.regret(found["queries"].astype(np.int32)))
        return np.concatenate(regret).reshape(len(trials), len(TUNING_SEEDS), -1)

    def run(self, arm: str, budget: int, data_set: str, count: int) -> dict[str, np.ndarray]:
        """queries [S, budget], and what the final states encode, with the setting that was chosen.

        RIDGE and OVERLAP, [S], are there for a policy with a state, after the most queries.
        """
        chosen = {number: CHOSEN[arm][number] for number in self.budgets(arm)}
        longest = max(b for b, other in chosen.items() if other == chosen[budget])
        fixed, traced = _parted(chosen[budget])
        found = self._search(arm, fixed, [traced], range(count), data_set, longest)
        return found | {"queries": found["queries"][:, :budget].astype(np.int32)}

    def _search(self, name, setting, traced, run_seeds, data_set, budget):
        arm = ARMS[name]
        config = configure(arm, setting, self._table.space)
        described = [dataclasses.asdict(config), traced, list(run_seeds), budget, self._digest]
        digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
        path = self._folder / f"{data_set}-{name}-{budget}-{digest}.npz"
        if (saved := kept.read(path, described)) is not None:
            return saved
        parts, program = _program(config, self._table.space)
        weights = {
            weight: np.repeat([trial[field] for trial in traced], len(run_seeds))
            for field, weight in _TRACED.items()
            if field in traced[0]
        }
        found = seeds.run(
            program,
            parts,
            np.tile(np.array(run_seeds, np.uint32), len(traced)),
            self._table.rewards(data_set),
            budget // EPOCH,
            weights=weights,
        )
        arrays = {"queries": found.queries.astype(np.int16)}
        if parts.policy.state_width and len(traced) == 1 and budget == max(self._budgets):
            arrays |= self._encodes(program, run_seeds, found.policy, data_set)
        kept.write(path, described, arrays)
        return arrays

    def _encodes(self, program, run_seeds, policy, data_set) -> dict[str, np.ndarray]:
        judge, space = Judge.of(self._table, data_set), self._table.space
        rows = judging.uniform_sample(self._table, settings.UNIFORM_SAMPLE)
        compared = rows[: settings.OWN_SAMPLES]
        pairs = judging.pair_measures(space, compared, judge.test)
        lanes = np.array(run_seeds, np.uint32), policy
        states = np.asarray(program.describe(lanes, space.every()[rows]).embedding)
        found = []
        for state in states[: len(run_seeds)]:
            ridge, _ = judging.prediction(state, judge.test[rows])
            correlations = judging.pair_correlations(state[: len(compared)], pairs)
            found.append((ridge, correlations[judging.OVERLAP]))
        return dict(zip((RIDGE, OVERLAP), np.transpose(found), strict=True))


@functools.cache
def _program(config, space):
    parts = seeds.components(config, space)
    return parts, seeds.program(config, parts)


def _parted(setting) -> tuple[Setting, Setting]:
    """What a program is compiled for, and what is traced."""
    traced = {field: value for field, value in setting.items() if field in _TRACED}
    return {field: value for field, value in setting.items() if field not in traced}, traced


def choose(regret: np.ndarray) -> dict[int, int]:
    """Number of queries -> the trial of [trials, S, Q] with the least regret averaged over them."""
    means = {b: regret[:, :, :b].mean(axis=(1, 2)) for b in BUDGETS if b <= regret.shape[2]}
    return {budget: int(np.argmin(values)) for budget, values in means.items()}


# Those that are trained by both losses.
CONTROLLERS = tuple(
    name
    for name, arm in ARMS.items()
    if arm.strategy.get("source") == "best" and arm.policy != "uniform"
)
# Beside local search: what the memory, the policy and the state add.
COMPARED = (
    ("best", "pg_new"),
    ("best_mutations", "mutations"),
    ("factorised_best_mutations", "mutations"),
    *(
        ("screened_value", name)
        for name in ARMS
        if name.startswith("screened_") and name != "screened_value"
    ),
)
# arm -> number of queries -> setting, as the command above says; an arm that is not there was not
# tuned
CHOSEN: dict[str, dict[int, Setting]] = {
    "random": {100: {}, 300: {}, 1000: {}},
    "local_search": {
        100: {"first_starts": 3, "starts": 5},
        300: {"first_starts": 10, "starts": 1},
        1000: {"first_starts": 10, "starts": 1},
    },
    "evolution": {
        100: {"population": 10, "tournament": 10},
        300: {"population": 10, "tournament": 10},
        1000: {"population": 10, "tournament": 10},
    },
    "mutations": {
        100: {"capacity": 1, "mutations": 0.8},
        300: {"capacity": 1, "mutations": 0.5},
        1000: {"capacity": 5, "mutations": 0.5},
    },
    "pg_new": {
        100: {"learning_rate": 0.03, "entropy_weight": 0.01},
        300: {"learning_rate": 0.01, "entropy_weight": 0.003},
        1000: {"learning_rate": 0.01, "entropy_weight": 0.003},
    },
    "best": {
        100: {"learning_rate": 0.03, "supervised_weight": 0.3, "entropy_weight": 0.01},
        300: {"learning_rate": 0.03, "supervised_weight": 0.3, "entropy_weight": 0.1},
        1000: {"learning_rate": 0.03, "supervised_weight": 0.3, "entropy_weight": 0.1},
    },
    "factorised_best": {
        100: {"learning_rate": 1.0, "supervised_weight": 0.3, "entropy_weight": 0.1},
        300: {"learning_rate": 1.0, "supervised_weight": 0.3, "entropy_weight": 0.1},
        1000: {"learning_rate": 1.0, "supervised_weight": 0.3, "entropy_weight": 0.1},
    },
    "factorised_best_mutations": {
        100: {"mutations": 0.5, "learning_rate": 0.3, "entropy_weight": 0.01},
        300: {"mutations": 0.5, "learning_rate": 1.0, "entropy_weight": 0.1},
        1000: {"mutations": 0.5, "learning_rate": 0.1, "entropy_weight": 0.1},
    },
    "screened_value": {
        100: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.1},
        300: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.1},
    },
    "screened_one_hot": {
        100: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.01},
        300: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.1},
    },
    "screened_pairs": {
        100: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.01},
        300: {"mutations": 0.0, "learning_rate": 0.003, "entropy_weight": 0.01},
    },
    "screened_state": {
        100: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.1},
        300: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.1},
    },
    "screened_untrained": {
        100: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.1},
        300: {"mutations": 0.5, "learning_rate": 0.03, "entropy_weight": 0.01},
    },
}
