"""The recurrent language model: the network of the task `recurrent`, and its rewards."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nas.data import ngrams
from nas.data.text import Text
from nas.data.tokens import Tokens, Windows
from nas.parallel import gather_over_devices, mean_over_devices
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import alone, native_loop, shared
from nas.supernets.recurrent.settings import LanguageModelSettings
from nas.tasks import Metric
from nas.types import Array, Info, Model, Params, Reward

REWARD_SCALE = 80.0  # reward = 80 / perplexity (ENAS, section 3.1)

prepare = native_loop.prepare


@dataclasses.dataclass(frozen=True)
class LanguageModel(LanguageModelSettings):
    """A `nas.tasks.Network`."""

    baselines: ClassVar[tuple[str, ...]] = tuple(alone.BASELINES)
    compared: ClassVar[Mapping[str, str]] = {"lstm": "LSTM"}
    published: ClassVar[Mapping[str, float]] = {"labelled edges": -0.404, "performance": 0.163}

    def metric(self, data: Text) -> Metric:
        return Metric(
            name="perplexity",
            loss="log perplexity",
            unit="nats a token",
            reward="80 / perplexity",
            shown=np.exp,
            digits=1,
            guessing=math.log(data.vocabulary),
        )

    def reward(self, space: RecurrentSpace, data: Text) -> Reward:
        return supernet_reward(space, self, data.vocabulary)

    def model(self, space: RecurrentSpace, data: Text, architecture: str) -> Model:
        return alone.build(space, self, data.vocabulary, architecture)

    def yardsticks(self, data: Text, train: Windows, held_out: Windows) -> dict[str, float]:
        """Perplexities of n-gram models."""
        arguments = train.tokens, held_out.tokens, data.vocabulary
        return {
            "unigram": ngrams.unigram_perplexity(*arguments),
            "bigram, Kneser-Ney": ngrams.kneser_ney_bigram_perplexity(*arguments),
        }


@flax.struct.dataclass
class SupernetState:
    """The shared weights and their optimiser."""

    params: Params
    optimiser: optax.OptState


def perplexity_reward(log_perplexity: Array) -> Array:
    """80 / perplexity; finite for any finite input."""
    return REWARD_SCALE * jnp.exp(-log_perplexity)


def supernet_reward(
    space: RecurrentSpace,
    config: LanguageModelSettings,
    vocabulary: int,
    *,
    deferred: bool = True,
) -> Reward:
    """The shared-weight recurrent language model as a source of rewards.

    Training is SGD on one window and one cell, the gradient of the weights in use clipped by its
    global norm; the learning rate decays by a factor per epoch. A reward is 80 / perplexity of one
    validation window, from a zero state, without dropout.

    Args:
      deferred: False differentiates the time loop plainly, to the same numbers; for tests and
        benchmarks.
    """
    options = {"max_norm": config.max_norm, "matmul": config.matmul}
    clip = optax.clip_by_global_norm(config.clip)

    def init(key: Array) -> SupernetState:
        params = shared.init(space, config, vocabulary, key)
        return SupernetState(params, clip.init(params))

    def initial_carry(rows: int) -> Array:
        return jnp.zeros((rows, config.width))

    def train(
        state: SupernetState,
        carry: Array,
        decisions: Array,
        batch: Tokens,
        key: Array,
        epoch: Array,
        axis_name: str | None = None,
    ) -> tuple[SupernetState, Array, Info]:
        cell = shared.read_cell(space, decisions)
        hidden = jnp.where(batch.start[:, None], 0.0, carry)
        dropout = shared.sample_dropout(config, key, len(batch.tokens))

        def loss(used: Params) -> tuple[Array, Array]:
            return shared.loss(
                used, cell, batch.tokens, hidden, **options, dropout=dropout, deferred=deferred
            )

        (value, hidden), gradient = jax.value_and_grad(loss, has_aux=True)(
            shared.gather(state.params, cell)
        )
        gradient, value = (
            _mean_gradient(state.params, cell, gradient, axis_name),
            mean_over_devices(value, axis_name),
        )
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        clipped, optimiser = clip.update(gradient, state.optimiser)
        rate = _learning_rate(config, epoch.astype(jnp.float32))
        # An update that is not finite is dropped and counted; the search decides whether the run
        # goes on.
        updates = jax.tree.map(lambda g: jnp.where(finite, -rate * g, 0.0), clipped)
        # On several devices each trained its own cell, and any of the stored weights may move.
        if axis_name is None:
            params = shared.add(state.params, cell, updates)
        else:
            params = optax.apply_updates(state.params, updates)
        info = {
            "loss": value,
            "gradient_norm": norm,
            "learning_rate": rate,
            "skipped": 1.0 - finite.astype(jnp.float32),
        }
        return SupernetState(params, optimiser), jnp.where(finite, hidden, 0.0), info

    def score(state: SupernetState, decisions: Array, batch: Tokens) -> Array:
        cells = jax.vmap(lambda d: shared.read_cell(space, d))(decisions)
        hidden = jnp.zeros((len(decisions), len(batch.tokens), config.width))
        values, _ = shared.losses(
            state.params, cells, batch.tokens, hidden, **options, chunk=config.reward_chunk
        )
        return perplexity_reward(values)

    def evaluate(state: SupernetState, decisions: Array, batches: Tokens) -> Array:
        cells = jax.vmap(lambda d: shared.read_cell(space, d))(decisions)
        hidden = jnp.zeros((len(decisions), batches.tokens.shape[1], config.width))

        def step(hidden, tokens):
            values, hidden = shared.losses(
                state.params, cells, tokens, hidden, **options, chunk=len(decisions)
            )
            return hidden, values

        return jnp.mean(jax.lax.scan(step, hidden, batches.tokens)[1], axis=0)

    return Reward(init, initial_carry, train, score, evaluate)


def _learning_rate(config: LanguageModelSettings, epoch: Array) -> Array:
    """[] learning rate: rises in equal steps to its full value in epoch `warmup_epochs`, and decays
    from epoch `decay_start` on.
    """
    risen = jnp.minimum(1.0, (epoch + 1.0) / (config.warmup_epochs + 1.0))
    return (
        config.learning_rate
        * risen
        * config.learning_rate_decay ** jnp.maximum(0.0, epoch - (config.decay_start - 1.0))
    )


def _mean_gradient(
    params: Params, cell: shared.Cell, gradient: Params, axis_name: str | None
) -> Params:
    """The mean over devices of the gradients of their cells: `gradient` itself on one device, else
    a gradient of all stored weights.
    """
    if axis_name is None:
        return gradient
    gradient |= {"recurrent": jnp.stack(gradient["recurrent"])}
    devices, stored, nodes = jax.lax.axis_size(axis_name), len(params["recurrent"]), len(cell.edge)
    zeros = jnp.zeros_like(params["recurrent"])
    if devices * nodes < 2 * stored:
        # Sends only what the cells use; an average of all matrices would send each of them twice.
        edges, used = gather_over_devices((cell.edge, gradient["recurrent"]), axis_name)
        matrices = zeros.at[edges].add(used / devices)
    else:
        matrices = mean_over_devices(zeros.at[cell.edge].set(gradient["recurrent"]), axis_name)
    rest = {name: leaf for name, leaf in gradient.items() if name != "recurrent"}
    return mean_over_devices(rest, axis_name) | {"recurrent": matrices}
