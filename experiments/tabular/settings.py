"""What the study runs: its sizes, its strategies, and their settings.

Learning rate and entropy weight of each arm, and population and tournament of evolution, are those
with the lowest regret on CIFAR-10, averaged over 1,000 queries and seeds of their own. This command
chose them; it prints the whole grid:

    python -m experiments.study_nasbench201 --table=nasbench201.csv.gz --tune
"""

import dataclasses

from experiments import arms
from nas import config, tasks
from nas.config import Config
from nas.controllers.lstm import LSTMSettings
from nas.spaces import SearchSpace
from nas.strategies.reinforce import ReinforceSettings

TUNING_SET = "cifar10"
TUNING_SEEDS = tuple(range(1_000_000, 1_000_008))  # no seed of a reported run
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FACTORISED_LEARNING_RATES = (
    1e-2,
    3e-2,
    1e-1,
    3e-1,
    1.0,
)  # its parameters are the logits themselves
ENTROPY_WEIGHTS = (1e-4, 1e-3, 1e-2)
POPULATIONS = (10, 25, 50, 100)
TOURNAMENTS = (3, 5, 10, 25)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is run."""

    seeds: int
    updates: int
    data_sets: tuple[str, ...]  # reported; never the one that settings were tuned on
    piece: int = 50  # seeds that run together and are kept together
    epoch: int = 25  # updates between refreshes of the memory
    architectures: int = (
        4  # queries an update; a query is one architecture evaluated, again if it was before
    )


SIZES = {
    "quick": Size(seeds=50, updates=250, data_sets=("cifar100",)),
    "full": Size(seeds=200, updates=1000, data_sets=("cifar100", "imagenet")),
}
TUNING = Size(seeds=len(TUNING_SEEDS), updates=250, data_sets=(TUNING_SET,))
SWEEP = Size(
    seeds=20, updates=250, data_sets=("cifar100",)
)  # of generated tables, one a seed and strength
UNIFORM_SAMPLE = 400  # architectures, no two of one class, whose accuracy is to be predicted
OWN_SAMPLES = 100  # of a policy; pairs are compared of these and of as many of the uniform sample
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

RANDOM, EVOLUTION, FACTORISED, PG = "uniform", "evolution", "factorised", "pg"
WITH_MEMORY = ("memory", "memory_next", "fixed_next", "uniform_memory")
CONTROLLERS = (PG, *WITH_MEMORY)  # those with a hidden state
STRATEGIES = (RANDOM, EVOLUTION, FACTORISED, *CONTROLLERS)
TITLES = {name: arms.STRATEGIES[name].title for name in STRATEGIES} | {RANDOM: "random search"}
TUNED = {  # arm -> learning rate, entropy weight
    FACTORISED: (3e-1, 1e-2),
    PG: (3e-3, 1e-2),
    "memory": (1e-2, 1e-3),
    "memory_next": (1e-2, 1e-4),
    "fixed_next": (1e-2, 1e-2),
    "uniform_memory": (3e-2, 1e-2),
}
SUPERVISED_WEIGHT = 1.0  # lambda of every arm with a memory, with which the others were tuned
TUNED_EVOLUTION = {"population": 50, "tournament": 25}


def groups(space: SearchSpace) -> dict[str, str | dict]:
    """The fields of a configuration that say what is searched: a space, whose name or place is the
    task's, with a table in the place of data and network.
    """
    kind = type(space)
    where = f"{kind.__module__}:{kind.__qualname__}"
    names = {of: name for name, of in tasks.SPACES.items()}
    fields = {of.name: getattr(space, of.name) for of in dataclasses.fields(kind) if of.init}
    return {"task": names.get(where, where), "space": fields, "data": {}, "network": {}}


def configure(name: str, size: Size, space: SearchSpace) -> Config:
    """The configuration of a strategy."""
    rate, entropy = TUNED.get(name, TUNED[PG])
    reinforce = ReinforceSettings(learning_rate=rate, entropy_weight=entropy)
    base = config.from_dict(
        groups(space)
        | {
            "policy": {"name": "lstm"} | dataclasses.asdict(LSTMSettings()),
            "strategy": {"name": "reinforce"} | dataclasses.asdict(reinforce),
            "search": {
                "controller_steps": size.epoch,
                "architectures": size.architectures,
                "chunk": 1,
            },
        }
    )
    found = arms.STRATEGIES[name].configure(base, seed=0)
    if name == EVOLUTION:
        return config.override(found, {"strategy": TUNED_EVOLUTION})
    if found.strategy["supervised_weight"] > 0:
        return config.override(found, {"strategy": {"supervised_weight": SUPERVISED_WEIGHT}})
    # Without L_Sup the memory is written and never learned from: one sequence is the least.
    least = {"capacity": 1, "refresh_size": 1, "batch": 1}
    return config.override(found, {"strategy": {"memory": least}})
