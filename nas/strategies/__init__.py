"""Search strategies: what proposes architectures and learns from their rewards.

A new strategy is one file, with its settings, and one line here.
"""

from nas.config import Registered, Settings, chosen
from nas.spaces import SearchSpace
from nas.strategies.evolution import EvolutionSettings, evolution
from nas.strategies.local_search import LocalSearchSettings, local_search
from nas.strategies.reinforce import ReinforceSettings, reinforce
from nas.types import Policy, Strategy


def _without_policy(make):
    return lambda space, policy, settings: make(space, settings)


STRATEGIES = {
    "reinforce": Registered(ReinforceSettings, reinforce),
    "evolution": Registered(EvolutionSettings, _without_policy(evolution)),
    "local_search": Registered(LocalSearchSettings, _without_policy(local_search)),
}


def build_strategy(settings: Settings, space: SearchSpace, policy: Policy) -> Strategy:
    """The strategy of a configuration's group `strategy`.

    Raises:
      UserError: an unknown strategy, or a setting that is unknown, missing, not allowed or at odds
        with the policy.
    """
    make, values = chosen(STRATEGIES, settings, "strategy")
    return make(space, policy, values)


__all__ = ["STRATEGIES", "build_strategy", "evolution", "local_search", "reinforce"]
