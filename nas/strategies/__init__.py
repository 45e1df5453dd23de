"""Search strategies: what proposes architectures and learns from their rewards. A new one is one file and one line here."""

import dataclasses

from nas.config import Config
from nas.spaces import SearchSpace
from nas.strategies.evolution import evolution
from nas.strategies.reinforce import reinforce
from nas.types import Policy, Strategy


def _evolution(space: SearchSpace, policy: Policy, config: Config) -> Strategy:
    del policy
    return evolution(space, **dataclasses.asdict(config.evolution))


STRATEGIES = {"reinforce": reinforce, "evolution": _evolution}

__all__ = ["STRATEGIES", "evolution", "reinforce"]
