"""ENAS with a memory: one optax step on L = L_PG + lambda * L_Sup, for any policy.

With lambda = 0 this is ENAS; with the uniform policy it is random search. With an archive, what was
scored is not proposed again, and the memory may hold the best of it. Numbers in which the arms of a
study differ (the weights of the losses, the learning rate) are part of the state and traced, so
that one compilation serves all arms.
"""

import dataclasses
import functools

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from nas import archive as archives
from nas import memory as memories
from nas import objectives
from nas.archive import Archive
from nas.config import check, check_choice
from nas.errors import UserError
from nas.memory import Memory, MemorySettings
from nas.objectives import Baseline
from nas.parallel import gather_over_devices, mean_over_devices
from nas.spaces import SearchSpace
from nas.strategies import screening
from nas.types import Array, Info, Params, Policy, Strategy

LOSSES = ("reconstruct", "next_decision", "double_softmax", "likelihood")


@dataclasses.dataclass(frozen=True)
class ReinforceSettings:
    """Policy gradient and supervised loss: L = L_PG + supervised_weight * L_Sup.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    supervised: str = "reconstruct"  # one of LOSSES (see nas/objectives.py)
    supervised_weight: float = 0.0  # lambda; 0 is ENAS
    policy_weight: float = 1.0  # factor of L_PG; 0 trains on the memory alone
    entropy_weight: float = 1e-4
    baseline_decay: float = 0.95  # decay of the exponential moving average of rewards
    learning_rate: float = 1e-3  # Adam
    adam_beta1: float = 0.9  # decay of Adam's mean of gradients; ENAS' image searches: 0
    adam_epsilon: float = 1e-8  # ENAS' image searches: 1e-3
    skip_weight: float = 0.0  # weight of the skip penalty; 0: no penalty
    skip_target: float = 0.4  # probability of a skip at which the penalty is zero
    archive: int = 0  # architectures scored most recently, not proposed again; 0: no archive
    candidates: int = 8  # drawn for each proposal if there is an archive
    mutations: float = 0.0  # share of proposals that are the memory's with one decision changed
    screening: str = "none"  # how candidates are ranked; see nas/strategies/screening.py
    value_weight: float = 1.0  # weight of the value head's loss, with screening="value"
    memory: MemorySettings = dataclasses.field(default_factory=MemorySettings)

    def __post_init__(self):
        check_choice("supervised", self.supervised, LOSSES)
        for name in ("supervised_weight", "policy_weight", "entropy_weight"):
            check(name, getattr(self, name) >= 0, "0 or more", getattr(self, name))
        check("baseline_decay", 0 <= self.baseline_decay < 1, "in [0, 1)", self.baseline_decay)
        for name in ("learning_rate", "adam_epsilon"):
            check(name, getattr(self, name) > 0, "positive", getattr(self, name))
        check("adam_beta1", 0 <= self.adam_beta1 < 1, "in [0, 1)", self.adam_beta1)
        check("skip_weight", self.skip_weight >= 0, "0 or more", self.skip_weight)
        check("skip_target", 0 < self.skip_target < 1, "in (0, 1)", self.skip_target)
        check("archive", self.archive >= 0, "0 (none) or more", self.archive)
        check("candidates", self.candidates >= 1, "at least 1", self.candidates)
        check("mutations", 0 <= self.mutations <= 1, "in [0, 1]", self.mutations)
        check_choice("screening", self.screening, screening.KINDS)
        check("value_weight", self.value_weight > 0, "positive", self.value_weight)
        if self.screening != "none":
            check("archive", self.archive > 0, f"positive with screening={self.screening}", 0)
        if self.memory.source == "best":
            wanted = f"at least memory.capacity = {self.memory.capacity} with memory.source=best"
            check("archive", self.archive >= self.memory.capacity, wanted, self.archive)


@flax.struct.dataclass
class Weights:
    """The numbers of the objective, as traced arrays."""

    policy: Array  # [] factor of L_PG
    supervised: Array  # [] lambda
    entropy: Array  # [] weight of the entropy bonus
    learning_rate: Array  # []


@flax.struct.dataclass
class ReinforceState:
    """Everything that the next update depends on."""

    params: Params  # {"policy": the policy's, "decoder": heads of the reconstruction loss}
    optimiser: optax.OptState
    baseline: Baseline
    memory: Memory
    history: Params  # policy parameters of the last `lag` epochs, oldest first
    snapshot: Params  # policy parameters of the last refresh
    weights: Weights
    archive: Archive | None  # None: no archive
    untrained: Params | None  # the policy's before the first update; None: nothing needs them


def reinforce(space: SearchSpace, policy: Policy, settings: ReinforceSettings) -> Strategy:
    """Policy gradient with a memory.

    Raises:
      UserError: a supervised loss that the policy cannot have: without a hidden state there is
        nothing to reconstruct from; or a skip penalty in a space without skips.
    """
    memory = settings.memory
    skips = space.positions("skip")
    if settings.skip_weight > 0 and not len(skips):
        raise UserError("config field strategy.skip_weight: must be 0: this space has no skips")
    width = policy.state_width or 1  # a checkpoint holds no empty array
    wants_state = settings.supervised == "reconstruct" and settings.supervised_weight > 0
    if wants_state and not policy.state_width:
        raise UserError(
            "config field strategy.supervised: the policy has no hidden state to reconstruct from; "
            "use next_decision, or strategy.supervised_weight=0"
        )
    if settings.screening in screening.WITH_STATE and not policy.state_width:
        raise UserError(
            f"config field strategy.screening: the policy has no hidden state for "
            f"{settings.screening}"
        )
    adam = optax.scale_by_adam(b1=settings.adam_beta1, eps=settings.adam_epsilon)
    mask = jnp.asarray(space.choice_mask())

    def init(key: Array) -> ReinforceState:
        policy_key, decoder_key = jax.random.split(key)
        decoder = {
            "weight": jax.random.uniform(
                decoder_key,
                (space.num_decisions, width, space.max_choices),
                minval=-0.1,
                maxval=0.1,
            ),
            "bias": jnp.zeros((space.num_decisions, space.max_choices)),
        }
        params = {"policy": policy.init(policy_key), "decoder": decoder}
        if settings.screening == "value":
            params["value"] = {"weight": jnp.zeros(width), "bias": jnp.float32(0)}
        history = memories.start_history(params["policy"], memory.lag)
        untrained = None
        if settings.screening == "untrained":
            untrained = jax.tree.map(jnp.copy, params["policy"])
        return ReinforceState(
            params=params,
            optimiser=adam.init(params),
            baseline=objectives.start_baseline(),
            memory=memories.empty(memory.capacity, space.num_decisions),
            history=history,
            snapshot=memories.oldest(history),  # own arrays: a donated state may not share any
            weights=Weights(
                policy=jnp.float32(settings.policy_weight),
                supervised=jnp.float32(settings.supervised_weight),
                entropy=jnp.float32(settings.entropy_weight),
                learning_rate=jnp.float32(settings.learning_rate),
            ),
            archive=archives.empty(settings.archive, space.num_decisions)
            if settings.archive
            else None,
            untrained=untrained,
        )

    def draw(old: Params, key: Array, n: int) -> Array:
        """[n, T] sequences, drawn as a refresh of the memory draws them."""
        drawn = (
            space.sample_uniform(key, n)
            if memory.source == "uniform"
            else policy.sample(old, key, n)
        )
        if memory.source == "shuffled":
            drawn = jax.random.permutation(jax.random.fold_in(key, 1), drawn, independent=True)
        return drawn

    def begin_epoch(state: ReinforceState, key: Array, epoch: Array) -> ReinforceState:
        history = memories.push(state.history, state.params["policy"])
        if memory.source == "best":
            return state.replace(history=history, snapshot=memories.oldest(history))

        def refresh() -> tuple[Memory, Params]:
            old = memories.oldest(history)
            return memories.write(state.memory, draw(old, key, memory.refresh_size)), old

        due = epoch == 0 if memory.refresh_period == 0 else epoch % memory.refresh_period == 0
        held, snapshot = jax.lax.cond(due, refresh, lambda: (state.memory, state.snapshot))
        return state.replace(history=history, memory=held, snapshot=snapshot)

    def propose(state: ReinforceState, key: Array, n: int) -> Array:
        def draw(key: Array, count: int) -> Array:
            drawn = suggest(state, key, count)
            if settings.screening == "none":
                return drawn
            return drawn[jnp.argsort(-predict(state, drawn), stable=True)]

        return archives.propose(state.archive, draw, space, key, n, settings.candidates)

    def predict(state: ReinforceState, decisions: Array) -> Array:
        """[n] predicted quality of decisions [n, T]."""
        if settings.screening == "value":
            return value_of(state.params, decisions)
        read = state.untrained if settings.screening == "untrained" else state.params["policy"]
        features = {
            "one_hot": functools.partial(screening.one_hot, space),
            "pairs": functools.partial(screening.pairs, space),
        }.get(settings.screening, lambda of: policy.score(read, of).embedding())
        return screening.ridge(state.archive, features, decisions)

    def value_of(params: Params, decisions: Array) -> Array:
        embedding = policy.score(params["policy"], decisions).embedding()
        return embedding @ params["value"]["weight"] + params["value"]["bias"]

    def value_loss(params: Params, archive: Archive, rows: Array) -> Array:
        """[] mean squared error of the value head on rows of the archive."""
        wanted = screening.normal_scores(archive)[rows]
        return jnp.mean((value_of(params, archive.decisions[rows]) - wanted) ** 2)

    def suggest(state: ReinforceState, key: Array, n: int) -> Array:
        """[n, T], some perhaps scored before; includes mutations once the memory is full."""
        if settings.mutations == 0:
            return policy.sample(state.params["policy"], key, n)
        policy_key, parent_key, mutation_key, which_key = jax.random.split(key, 4)
        drawn = policy.sample(state.params["policy"], policy_key, n)
        mutants = space.mutate(mutation_key, memories.sample(state.memory, parent_key, n))
        chosen = jax.random.bernoulli(which_key, settings.mutations, (n, 1))
        return jnp.where(chosen & (state.memory.size == memory.capacity), mutants, drawn)

    def supervised_loss(params: Params, decisions: Array) -> Array:
        """[] mean loss over sequences [n, T]."""
        trace = policy.score(params["policy"], decisions)
        if settings.supervised == "next_decision":
            losses = jax.vmap(objectives.next_decision_loss)(trace.log_prob)
        elif settings.supervised == "likelihood":
            losses = jax.vmap(objectives.likelihood_loss)(trace.log_prob)
        elif settings.supervised == "double_softmax":
            losses = jax.vmap(objectives.double_softmax_loss, in_axes=(0, 0, None))(
                trace.log_probs, decisions, mask
            )
        elif trace.hidden is None:  # no state to reconstruct from; here lambda is always 0
            return jnp.float32(0)
        else:
            losses = jax.vmap(objectives.reconstruction_loss, in_axes=(None, 0, 0, None))(
                params["decoder"], trace.embedding(), decisions, mask
            )
        if memory.source == "current_with_gradient":
            # Each loss less the mean of the others: a baseline that does not bias the gradient.
            others = (jnp.sum(losses) - losses) / max(1, len(losses) - 1)
            centred = jax.lax.stop_gradient(losses - others)
            # Adds the gradient through the sampling, and zero to the value.
            score = jnp.sum(trace.log_prob, axis=1)
            losses = losses + centred * (score - jax.lax.stop_gradient(score))
        return jnp.mean(losses)

    def update(
        state: ReinforceState,
        decisions: Array,
        rewards: Array,
        key: Array,
        axis_name: str | None = None,
    ) -> tuple[ReinforceState, Info]:
        chex.assert_rank([decisions, rewards], [2, 1])
        weights = state.weights
        if state.archive is not None:
            scored = gather_over_devices((decisions, rewards), axis_name)
            state = state.replace(archive=archives.write(state.archive, *scored, field="archive"))
        if memory.source == "best":
            state = state.replace(
                memory=memories.of(*archives.best(state.archive, memory.capacity))
            )
        if memory.source in ("old", "shuffled", "uniform", "best"):
            remembered = memories.sample(state.memory, key, memory.batch)
        else:
            drawn_from = state.snapshot if memory.source == "snapshot" else state.params["policy"]
            remembered = policy.sample(drawn_from, key, memory.batch)

        def loss(params: Params) -> tuple[Array, Info]:
            trace = policy.score(params["policy"], decisions)
            bonus = weights.entropy * jax.lax.stop_gradient(jnp.sum(trace.entropy, axis=1))
            total = rewards + bonus
            mean = mean_over_devices(jnp.mean(total), axis_name)
            advantage = total - objectives.current_baseline(state.baseline, mean)
            gradient_loss = jnp.mean(
                jax.vmap(objectives.policy_gradient_loss, in_axes=(0, 0, 0, None))(
                    trace.log_prob, trace.entropy, advantage, weights.entropy
                )
            )
            # Not computed where lambda = 0: it costs several times as much as the policy gradient.
            supervised = jax.lax.cond(
                weights.supervised > 0,
                lambda: supervised_loss(params, remembered),
                lambda: jnp.float32(0),
            )
            info = {
                "policy_loss": gradient_loss,
                "supervised_loss": supervised,
                "entropy": jnp.mean(jnp.sum(trace.entropy, axis=1)),
                "reward": jnp.mean(rewards),
                "total_reward": mean,
            }
            value = weights.policy * gradient_loss + weights.supervised * supervised
            if settings.screening == "value":
                rows = jax.random.randint(
                    jax.random.fold_in(key, 1),
                    (memory.batch,),
                    0,
                    jnp.minimum(state.archive.scored, settings.archive),
                )
                info["value_loss"] = value_loss(params, state.archive, rows)
                value += settings.value_weight * info["value_loss"]
            if settings.skip_weight > 0:
                info["skip_penalty"] = jnp.mean(
                    jax.vmap(objectives.skip_penalty, in_axes=(0, None))(
                        trace.log_probs[:, skips], settings.skip_target
                    )
                )
                value += settings.skip_weight * info["skip_penalty"]
            return value, info

        (value, info), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        gradient, info = mean_over_devices((gradient, info | {"loss": value}), axis_name)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int32 power
            direction, optimiser = adam.update(gradient, state.optimiser)
        params = optax.apply_updates(
            state.params, jax.tree.map(lambda d: -weights.learning_rate * d, direction)
        )
        baseline = objectives.update_baseline(
            state.baseline, info.pop("total_reward"), settings.baseline_decay
        )
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(info["loss"]) & jnp.isfinite(norm)
        info |= {"gradient_norm": norm, "skipped": 1.0 - finite.astype(jnp.float32)}
        # An update that is not finite is dropped and counted; the search decides whether the run
        # goes on.
        params, optimiser, baseline = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, optimiser, baseline),
            (state.params, state.optimiser, state.baseline),
        )
        info["baseline"] = baseline.value
        return state.replace(params=params, optimiser=optimiser, baseline=baseline), info

    def measure(state: ReinforceState, key: Array) -> Info:
        """The supervised loss on remembered sequences, and on fresh ones drawn in the same way; it
        is smaller on the remembered ones if they are memorised.
        """
        memory_key, draw_key = jax.random.split(key)
        sequences = {
            "remembered": memories.sample(state.memory, memory_key, memory.refresh_size),
            "fresh": draw(state.snapshot, draw_key, memory.refresh_size),
        }
        return {
            f"supervised_{name}": supervised_loss(state.params, drawn)
            for name, drawn in sequences.items()
        }

    return Strategy(
        init, begin_epoch, propose, update, measure, lambda state: state.params["policy"]
    )
