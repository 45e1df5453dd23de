"""Trains one fixed model from scratch: SGD, then perhaps averaged SGD, and a single evaluation on
the test split at the end.

The published recipe for text: plain SGD, the gradient clipped by its global norm, the learning rate
decayed by a factor per epoch, weight decay. Once validation has not improved for a number of
epochs, the iterates from there on are averaged at a constant rate (NT-ASGD, Merity et al. 2018,
algorithm 1), and the average is what is validated. For images: Nesterov's momentum and a cosine
schedule. The parameters of the best epoch are kept. An epoch is one pass; a run is saved after
each, and every random number is derived from (seed, step).
"""

import math
import pathlib
import time
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nas import logs, progress
from nas.checkpoint import Checkpoints
from nas.config import Config, TrainingConfig
from nas.errors import UserError
from nas.tasks import Splits, Task
from nas.types import Array, Batch, Info, Model, Params

_INIT, _STEP = range(2)  # streams of random numbers


@flax.struct.dataclass
class TrainState:
    """What an update depends on, except the carry."""

    params: Params
    average: Params  # mean of the iterates since averaging began; before that, the last iterate
    averaged: Array  # [] int32; number of iterates in that mean
    velocity: Params  # velocity of Nesterov's momentum; (): no momentum


class Result(NamedTuple):
    """What a finished run found."""

    loss: float  # validation loss of the best epoch
    test_loss: float  # test loss of the same parameters
    best_epoch: int
    test_reward: float | None  # mean on the test split; None: the loss is all there is to report
    averaging_from: int | None  # first epoch of averaged SGD; None: there was none
    parameters: int
    width: int


def initial_state(model: Model, seed: int, momentum: float = 0.0) -> TrainState:
    """The state before the first step."""
    params = model.init(jax.random.fold_in(jax.random.key(seed), _INIT))
    velocity = jax.tree.map(jnp.zeros_like, params) if momentum else ()
    return TrainState(params, params, jnp.int32(0), velocity)


def averaging_start(valid: list[float], patience: int) -> int | None:
    """The first epoch of averaged SGD, given the validation losses of the epochs so far; None: not
    yet.

    It follows the first epoch whose loss is above the best of those more than `patience` epochs
    before it.
    """
    for epoch in range(patience + 1, len(valid)):
        if valid[epoch] > min(valid[: epoch - patience]):
            return epoch + 1
    return None


def learning_rate(config: TrainingConfig, epoch: int, averaging_from: int | None) -> float:
    """The learning rate of an epoch: decays from epoch `decay_start` on, until averaging begins; or
    follows a cosine from the full rate to zero after the last epoch.
    """
    if config.schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    last = epoch if averaging_from is None else min(epoch, averaging_from - 1)
    return config.learning_rate * config.learning_rate_decay ** max(
        0, last - config.decay_start + 1
    )


def train_chunk(model: Model, *, clip: float, weight_decay: float, momentum: float = 0.0):
    """The compiled function (state, carry, K batches, seed, step numbers [K], rate, averaging) ->
    state, carry, info [K].
    """

    def decayed(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: model.decays(path), params)

    direction = optax.chain(
        optax.clip_by_global_norm(clip), optax.add_decayed_weights(weight_decay, decayed)
    )

    @jax.jit
    def run(
        state: TrainState, carry, batch: Batch, seed, steps, rate, averaging
    ) -> tuple[TrainState, Array, Info]:
        def step(carried, x):
            state, carry = carried
            batch, index = x
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STEP), index)
            differentiate = jax.value_and_grad(model.loss, has_aux=True)
            (loss, carry), gradient = differentiate(state.params, batch, carry, key)
            downhill, _ = direction.update(gradient, direction.init(state.params), state.params)
            velocity = state.velocity
            if momentum:
                velocity = jax.tree.map(lambda v, d: momentum * v + d, velocity, downhill)
                downhill = jax.tree.map(lambda d, v: d + momentum * v, downhill, velocity)
            params = jax.tree.map(lambda p, d: p - rate * d, state.params, downhill)
            count = state.averaged + averaging.astype(jnp.int32)
            share = 1.0 / count.astype(jnp.float32)
            average = jax.tree.map(
                lambda a, p: jnp.where(count > 1, a + share * (p - a), p), state.average, params
            )
            return (TrainState(params, average, count, velocity), carry), {
                "loss": loss,
                "gradient_norm": optax.tree.norm(gradient),
            }

        (state, carry), info = jax.lax.scan(step, (state, carry), (batch, steps))
        return state, carry, info

    return run


def num_parameters(model: Model) -> int:
    """How many numbers the model learns."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def run(
    model: Model,
    config: Config,
    workdir: pathlib.Path,
    task: Task,
    splits: Splits,
) -> Result:
    """Trains the model in `workdir` on one device, or continues after the last epoch that was saved
    there.

    Raises:
      UserError: a loss that is not finite (step and last good checkpoint are named), or a
        checkpoint that cannot be read or written.
    """
    settings, steps = config.training, splits.train.length
    momentum = settings.momentum
    options = {"clip": settings.clip, "weight_decay": settings.weight_decay, "momentum": momentum}
    chunk, evaluate = train_chunk(model, **options), jax.jit(model.evaluate)
    state, losses = initial_state(model, config.seed, momentum), []
    best = state.params
    checkpoints = Checkpoints(workdir, config.search.keep)
    if restored := checkpoints.restore({"state": state, "best": best}):
        saved, numbers = restored
        state, best, losses = saved["state"], saved["best"], numbers["losses"]
    writer = logs.Writer(workdir, task.metric, {"train": len(losses) * steps, "valid": len(losses)})

    def log(phase, epoch, first_step, values, started):
        for name, column in values.items():
            if len(bad := np.flatnonzero(~np.isfinite(column))):
                last = (checkpoints.steps() or ["none"])[-1]
                raise UserError(
                    f"{name} is not finite at {phase} step {first_step + bad[0]}, epoch {epoch}; "
                    f"last good checkpoint: {last} "
                    f"in {workdir}; lower training.learning_rate or training.clip"
                )
        writer.write(phase, epoch, first_step, values, time.perf_counter() - started)

    planned = {"total": settings.epochs * steps, "done": len(losses) * steps}
    try:
        with progress.track("training", unit="step", **planned) as advance:
            for epoch in range(len(losses), settings.epochs):
                averaging_from = None
                if settings.schedule == "decay":
                    averaging_from = averaging_start(losses, settings.patience)
                rate = learning_rate(settings, epoch, averaging_from)
                numbers = np.float32(rate), np.bool_(averaging_from is not None)
                carry, end = model.initial_carry(task.data.batch), (epoch + 1) * steps
                for first in range(epoch * steps, end, config.search.chunk):
                    started, count = time.perf_counter(), min(config.search.chunk, end - first)
                    indices = np.arange(first, first + count, dtype=np.int32)
                    batches = splits.train.take(first, count)
                    state, carry, info = chunk(
                        state, carry, batches, np.uint32(config.seed), indices, *numbers
                    )
                    info = jax.tree.map(np.asarray, info)
                    log("train", epoch, first, info, started)
                    advance(
                        count,
                        epoch=f"{epoch + 1}/{settings.epochs}",
                        loss=f"{info['loss'].mean():.4g}",
                    )
                started = time.perf_counter()
                loss = float(evaluate(state.average, splits.valid.head(0)))
                log(
                    "valid",
                    epoch,
                    epoch,
                    {"loss": np.array([loss]), "learning_rate": np.array([rate])},
                    started,
                )
                if loss < min(losses, default=math.inf):
                    best = state.average
                losses = [*losses, loss]
                checkpoints.save(len(losses), {"state": state, "best": best}, {"losses": losses})
    finally:
        writer.close()
        checkpoints.close()
    averaged, test = settings.schedule == "decay", splits.test.head(0)
    return Result(
        loss=min(losses),
        test_loss=float(evaluate(best, test)),
        best_epoch=int(np.argmin(losses)),
        test_reward=float(jax.jit(model.reward)(best, test)) if model.reward else None,
        averaging_from=averaging_start(losses[:-1], settings.patience) if averaged else None,
        parameters=num_parameters(model),
        width=model.width,
    )
