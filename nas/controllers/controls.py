"""Policies that cannot condition on past decisions: what a controller has to be compared with."""

import jax
import jax.numpy as jnp

from nas.config import PolicyConfig
from nas.controllers import masking
from nas.spaces import SearchSpace
from nas.types import Array, Params, Policy, Trace


def factorised_policy(space: SearchSpace, config: PolicyConfig) -> Policy:
    """One free categorical distribution per position (logits [T, K], squashed like the controller's); starts uniform."""
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
        drawn = jax.random.categorical(key, log_probs(params)[None], shape=(n, shape[0])).astype(jnp.int32)
        fixed = masking.forced(prefix, n, shape[0])
        return jnp.where(fixed >= 0, fixed, drawn)

    def score(params: Params, decisions: Array) -> Trace:
        every = jnp.broadcast_to(log_probs(params)[None], (len(decisions), *shape))
        return Trace(masking.take(every, decisions), masking.entropy(every), every, None)

    return Policy(init, sample, score)


def uniform_policy(space: SearchSpace, config: PolicyConfig) -> Policy:
    """Every choice equally likely, nothing to learn: the factorised policy with its logits held at zero."""
    free = factorised_policy(space, config)
    zeros = free.init(None)

    def sample(params: Params, key: Array, n: int, prefix: Array | None = None) -> Array:
        del params
        return free.sample(zeros, key, n, prefix)

    return Policy(lambda key: {}, sample, lambda params, decisions: free.score(zeros, decisions))
