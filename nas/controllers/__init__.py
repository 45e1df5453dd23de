"""Policies over decision vectors. A new one is one file and one line here."""

from nas.controllers.controls import factorised_policy, uniform_policy
from nas.controllers.lstm import lstm_policy

POLICIES = {"lstm": lstm_policy, "factorised": factorised_policy, "uniform": uniform_policy}

__all__ = ["POLICIES", "factorised_policy", "lstm_policy", "uniform_policy"]
