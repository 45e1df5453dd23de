"""What benchmarks time of the shared weights: training steps, forward passes and rewards, each
compiled and with all its inputs.
"""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.products import Point
from nas.config import PRECISIONS
from nas.data.tokens import Tokens
from nas.parallel import Devices
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import shared
from nas.supernets.recurrent.language_model import supernet_reward
from nas.supernets.recurrent.settings import LanguageModelSettings
from nas.types import Array, Batch, Reward

PRECISION = PRECISIONS | {"bfloat16": PRECISIONS["float32"]}  # for products of float32
DTYPE = {"float32": jnp.float32, "tf32": jnp.float32, "bfloat16": jnp.bfloat16}  # of operands
SETTING = {"float32": "float32", "tf32": "float32", "bfloat16": "bfloat16"}  # network.matmul


class Operation(NamedTuple):
    """A call that is timed."""

    call: Callable[[], Any]
    count: int  # how many of the operations one call makes
    compile_seconds: float
    bytes: int  # arguments, results and temporary arrays, as XLA plans them


def shared_step(point: Point, matmul: str, *, chunk: int, deferred: bool = True) -> Operation:
    """Updates of the shared weights, `chunk` to a call, each on the next of some architectures."""
    _, source, state, decisions, batch = _setting(point, matmul, deferred=deferred)

    def steps(state, carry, batch, common, axis_name):
        def step(carried, x):
            decisions, seed = x
            *carried, info = source.train(
                *carried, decisions, batch, jax.random.key(seed), jnp.int32(0), axis_name
            )
            return tuple(carried), info

        (state, carry), info = jax.lax.scan(step, (state, carry), common)
        return state, carry, info

    lifted = Devices("jit", 1, 1).lift(steps)
    held = [state, source.initial_carry(point.batch)]
    first = itertools.count(step=chunk)

    def common_of(number):
        numbers = np.arange(number, number + chunk, dtype=np.uint32)
        return decisions[numbers % len(decisions)], numbers

    compiled, seconds, size = _compile(lifted.compiled, *held, batch, common_of(0))

    def call():
        *held[:], info = compiled(*held, batch, common_of(next(first)))
        return held, info

    return Operation(call, chunk, seconds, size)


def forward(point: Point, matmul: str) -> Operation:
    """The training loss of one architecture, without gradients."""
    space, source, state, decisions, batch = _setting(point, matmul)
    config = _config(point, matmul)

    def loss(params, decisions, tokens, seed):
        cell = shared.read_cell(space, decisions)
        dropout = shared.sample_dropout(config, jax.random.key(seed), point.batch)
        hidden = source.initial_carry(point.batch)
        options = {"max_norm": config.max_norm, "matmul": config.matmul, "dropout": dropout}
        return shared.loss(shared.gather(params, cell), cell, tokens, hidden, **options)

    arguments = state.params, decisions[0], batch.tokens, np.uint32(0)
    compiled, seconds, size = _compile(jax.jit(loss), *arguments)
    return Operation(lambda: compiled(*arguments), 1, seconds, size)


def rewards(point: Point, matmul: str, architectures: int, *, together: int) -> Operation:
    """The rewards of A architectures on one window; on an accelerator, `together` of them are one
    batch.
    """
    _, source, state, decisions, batch = _setting(
        point, matmul, architectures=architectures, together=together
    )
    return scores(source, state, decisions, batch)


def scores(source: Reward, state: Any, decisions: Array, batch: Batch) -> Operation:
    """The rewards of architectures [A, T] on one batch, from any source."""
    compiled, seconds, size = _compile(jax.jit(source.score), state, decisions, batch)
    return Operation(lambda: compiled(state, decisions, batch), 1, seconds, size)


def image_steps(source: Reward, decisions: Array, batch: Batch) -> Operation:
    """Updates of the shared weights of an image network, all in one call: architectures [K, T],
    each on the next of K batches.
    """

    def steps(state, decisions, batch, keys):
        def step(state, x):
            state, _, info = source.train(state, (), *x, jnp.int32(0))
            return state, info["loss"]

        return jax.lax.scan(step, state, (decisions, batch, keys))

    arguments = decisions, batch, jax.random.split(jax.random.key(1), len(decisions))
    held = [jax.jit(source.init)(jax.random.key(0))]
    compiled, seconds, size = _compile(jax.jit(steps, donate_argnums=0), *held, *arguments)

    def call():
        held[0], losses = compiled(held[0], *arguments)
        return losses

    return Operation(call, len(decisions), seconds, size)


def _config(point, matmul, together=1):
    dropout = {"dropout_input": 0.2, "dropout_hidden": 0.2, "dropout_output": 0.2}
    return LanguageModelSettings(
        width=point.width,
        init_scale=point.width**-0.5,
        reward_chunk=together,
        matmul=SETTING[matmul],
        **dropout,
    )


def _setting(point, matmul, *, deferred=True, architectures=16, together=1):
    """Space, reward, first state, random decisions [A, T] and a window of random tokens."""
    space = RecurrentSpace(num_nodes=point.nodes)
    config = _config(point, matmul, together)
    source = supernet_reward(space, config, point.vocabulary, deferred=deferred)
    rng = np.random.default_rng(0)
    decisions = rng.integers(
        space.num_choices, size=(architectures, space.num_decisions), dtype=np.int32
    )
    tokens = rng.integers(point.vocabulary, size=(point.batch, point.steps + 1), dtype=np.int32)
    return (
        space,
        source,
        jax.jit(source.init)(jax.random.key(0)),
        decisions,
        Tokens(tokens, np.zeros(len(tokens), bool)),
    )


def _compile(jitted, *arguments):
    """The compiled function, the seconds that compiling took, and the most bytes it needs."""
    start = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return compiled, seconds, size - memory.alias_size_in_bytes
