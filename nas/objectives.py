"""The two losses of the controller, each written for one sequence, and the baseline.

L = L_PG + lambda * L_Sup (Adam & Lorraine 2019). L_PG is REINFORCE (Williams 1992) with a
moving-average baseline and an entropy bonus. For L_Sup there are two readings of the paper:

  next_decision   predict a_t from a_<t, t = 1..T-1, with the policy itself (what the paper's code
                  appears to do)
  reconstruct     predict every decision from the state after the last one (what its text describes)

one ablation:

  double_softmax  as next_decision, but the cross-entropy takes probabilities for logits, as the
                  paper's code appears to do

and the loss that makes a policy repeat its memory, first decision included (Abolafia et al. 2018):

  likelihood      predict every decision a_t from a_<t, t = 0..T-1
"""

import chex
import flax.struct
import jax
import jax.numpy as jnp

from nas.controllers import masking
from nas.types import Array, Params


def policy_gradient_loss(
    log_prob: Array, entropy: Array, advantage: Array, entropy_weight: Array
) -> Array:
    """-(advantage * log p(a) + entropy_weight * H): its expected gradient is that of -(E[R] +
    entropy_weight * entropy).

    The exact entropies H_t of the conditionals depend on the parameters directly and through the
    prefixes that were sampled; `advantage` must therefore hold R + entropy_weight * sum_t H_t -
    baseline, as a constant.

    Args:
      log_prob: [T] log p(a_t | a_<t).
      entropy: [T] nats, of p(. | a_<t).
      advantage: [] a constant.
      entropy_weight: [] or a float.

    Returns:
      [] loss.
    """
    chex.assert_rank([log_prob, entropy, advantage], [1, 1, 0])
    return -(advantage * jnp.sum(log_prob) + entropy_weight * jnp.sum(entropy))


def next_decision_loss(log_prob: Array) -> Array:
    """Mean cross-entropy of decisions 1..T-1 given those before them, nats, from log_prob [T] under
    teacher forcing.
    """
    chex.assert_rank(log_prob, 1)
    return -jnp.mean(log_prob[1:])


def likelihood_loss(log_prob: Array) -> Array:
    """Mean cross-entropy of all decisions given those before them, nats, from log_prob [T]."""
    chex.assert_rank(log_prob, 1)
    return -jnp.mean(log_prob)


def double_softmax_loss(log_probs: Array, decisions: Array, mask: Array) -> Array:
    """`next_decision_loss` with probabilities in the place of logits; with four choices it is .744
    at best.

    Args:
      log_probs: [T, K] log p(. | a_<t).
      decisions: [T] int32.
      mask: [T, K] bool, which choices exist.

    Returns:
      [] loss.
    """
    chex.assert_rank([log_probs, decisions, mask], [2, 1, 2])
    logits = jnp.where(mask, jnp.exp(log_probs), masking.MASKED)
    return next_decision_loss(masking.take(jax.nn.log_softmax(logits), decisions))


def reconstruction_loss(decoder: Params, embedding: Array, decisions: Array, mask: Array) -> Array:
    """Mean cross-entropy of all T decisions, each from its own linear head on one state, nats.

    Args:
      decoder: weight [T, H, K], bias [T, K].
      embedding: [H] state after the last decision.
      decisions: [T] int32.
      mask: [T, K] bool, which choices exist.

    Returns:
      [] loss.
    """
    chex.assert_rank([embedding, decisions, mask], [1, 1, 2])
    logits = jnp.einsum("h,thk->tk", embedding, decoder["weight"]) + decoder["bias"]
    return -jnp.mean(
        masking.take(jax.nn.log_softmax(jnp.where(mask, logits, masking.MASKED)), decisions)
    )


def skip_penalty(log_probs: Array, target: float) -> Array:
    """Mean Kullback-Leibler divergence of the probabilities of skips from a target, nats.

    ENAS (Pham et al. 2018, section 2.3) penalises skips in its macro search like this. Its code
    takes a tempered probability, this function the policy's own.

    Args:
      log_probs: [S, K] log p(. | a_<t) at the S skip decisions; choice 1 is the skip.

    Returns:
      [] loss.
    """
    chex.assert_rank(log_probs, 2)
    wanted = jnp.log(jnp.array([[1 - target, target]]))
    choices = log_probs[:, :2]
    return jnp.mean(jnp.sum(jnp.exp(choices) * (choices - wanted), axis=1))


@flax.struct.dataclass
class Baseline:
    """An exponential moving average of rewards that starts at the first one."""

    value: Array  # [] float32
    started: Array  # [] bool


def start_baseline() -> Baseline:
    """A baseline that has seen nothing."""
    return Baseline(jnp.float32(0), jnp.bool_(False))


def current_baseline(baseline: Baseline, reward: Array) -> Array:
    """[] what to subtract from rewards: the moving average, or `reward`, the mean of these rewards,
    before any update.
    """
    return jnp.where(baseline.started, baseline.value, reward)


def update_baseline(baseline: Baseline, reward: Array, decay: float) -> Baseline:
    """decay * value + (1 - decay) * reward."""
    value = decay * current_baseline(baseline, reward) + (1 - decay) * reward
    return Baseline(value, jnp.bool_(True))
