"""Policies over decision vectors. A new one is a file, with its settings, and one line here."""

from nas.config import Registered, Settings, chosen
from nas.controllers.controls import (
    FactorisedSettings,
    UniformSettings,
    factorised_policy,
    uniform_policy,
)
from nas.controllers.lstm import LSTMSettings, lstm_policy
from nas.spaces import SearchSpace
from nas.types import Policy

POLICIES = {
    "lstm": Registered(LSTMSettings, lstm_policy),
    "factorised": Registered(FactorisedSettings, factorised_policy),
    "uniform": Registered(UniformSettings, uniform_policy),
}


def build_policy(settings: Settings, space: SearchSpace) -> Policy:
    """The policy of a configuration's group `policy`.

    Raises:
      UserError: an unknown policy, or a setting that is unknown, missing or not allowed.
    """
    make, values = chosen(POLICIES, settings, "policy")
    return make(space, values)


__all__ = ["POLICIES", "build_policy", "factorised_policy", "lstm_policy", "uniform_policy"]
