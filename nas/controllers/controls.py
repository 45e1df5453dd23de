"""Policies that cannot condition on past decisions: what a controller has to be compared with."""

import dataclasses

import jax
import jax.numpy as jnp

from nas.config import check
from nas.controllers import masking
from nas.spaces import SearchSpace
from nas.types import Array, Params, Policy, Trace


@dataclasses.dataclass(frozen=True)
class FactorisedSettings:
    """How the logits of the factorised policy are squashed.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    temperature: float = 5.0  # logits are tanh_constant * tanh(logits / temperature)
    tanh_constant: float = 2.5

    def __post_init__(self):
        for name in ("temperature", "tanh_constant"):
            check(name, getattr(self, name) > 0, "positive", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class UniformSettings:
    """The uniform policy has no settings."""


def factorised_policy(space: SearchSpace, config: FactorisedSettings) -> Policy:
    """One free categorical distribution per position (logits [T, K], squashed like the
    controller's); starts uniform.
    """
    shape = (space.num_decisions, space.max_choices)

    def init(key: Array) -> Params:
        del key
        return {"logits": jnp.zeros(shape)}

    def log_probs(params: Params) -> Array:
        return masking.log_probabilities(
            params["logits"],
            jnp.asarray(space.choice_mask()),
            temperature=config.temperature,
            tanh_constant=config.tanh_constant,
        )

    def sample(params: Params, key: Array, n: int, prefix: Array | None = None) -> Array:
        drawn = jax.random.categorical(key, log_probs(params)[None], shape=(n, shape[0])).astype(
            jnp.int32
        )
        fixed = masking.forced(prefix, n, shape[0])
        return jnp.where(fixed >= 0, fixed, drawn)

    def score(params: Params, decisions: Array) -> Trace:
        every = jnp.broadcast_to(log_probs(params)[None], (len(decisions), *shape))
        return Trace(masking.take(every, decisions), masking.entropy(every), every, None)

    return Policy(init, sample, score)


def uniform_policy(space: SearchSpace, config: UniformSettings = UniformSettings()) -> Policy:
    """Every choice equally likely, nothing to learn: the factorised policy with its logits held at
    zero.
    """
    del config
    free = factorised_policy(space, FactorisedSettings())
    zeros = free.init(None)

    def sample(params: Params, key: Array, n: int, prefix: Array | None = None) -> Array:
        del params
        return free.sample(zeros, key, n, prefix)

    return Policy(lambda key: {}, sample, lambda params, decisions: free.score(zeros, decisions))
