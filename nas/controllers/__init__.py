"""Policies over decision vectors. A new one is one file and one line here."""

import jax
import jax.numpy as jnp

from nas.controllers.controls import factorised_policy, uniform_policy
from nas.controllers.lstm import lstm_policy
from nas.spaces import SearchSpace
from nas.types import Policy

POLICIES = {"lstm": lstm_policy, "factorised": factorised_policy, "uniform": uniform_policy}

__all__ = ["POLICIES", "factorised_policy", "has_state", "lstm_policy", "uniform_policy"]


def has_state(space: SearchSpace, policy: Policy) -> bool:
    """Whether the policy has hidden states to read an embedding from."""
    decisions = jnp.zeros((1, space.num_decisions), jnp.int32)
    return jax.eval_shape(lambda key: policy.score(policy.init(key), decisions), jax.random.key(0)).hidden is not None
