"""A task of one's own in one file: a regression network whose activations are searched for.

It is its configuration as well: python -m launch.search --config=tests/own_task.py
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from launch.configs import kjv_quick
from nas.data.rows import Rows
from nas.spaces import Graphs, SearchSpace
from nas.tasks import Metric, Parts, Splits
from nas.types import Model, Reward

CHOICES, DEPTH = ("tanh", "relu", "identity"), 4


@dataclasses.dataclass(frozen=True)
class Layers(SearchSpace):
    """An activation for each layer of a chain: a `SearchSpace` of nas/spaces/space.py."""

    num_choices: tuple = dataclasses.field(init=False, default=(len(CHOICES),) * DEPTH)
    kinds: tuple = dataclasses.field(init=False, default=("activation",) * DEPTH)
    label_names: tuple = dataclasses.field(init=False, default=(*CHOICES, "input", "output"))
    label_kind: ClassVar[str] = "activation"
    choice_names: ClassVar[dict] = {"activation": CHOICES}

    def graphs(self, decisions, *, io=True):
        labels = self.validate(decisions)
        if io:
            labels = np.pad(labels, ((0, 0), (1, 1)), constant_values=len(CHOICES))
            labels[:, -1] = len(CHOICES) + 1
        chain = np.eye(labels.shape[1], k=1, dtype=bool)
        return (Graphs(np.broadcast_to(chain, (len(labels), *chain.shape)), labels),)


class Points(NamedTuple):
    x: np.ndarray  # [B, 2]
    y: np.ndarray  # [B]


@dataclasses.dataclass(frozen=True)
class Surface:
    """Noisy points of a surface: `Data` of nas/tasks.py."""

    batch: int
    eval_batch: int
    name: ClassVar[str] = "surface"

    def examples(self, rows):
        return rows

    def load(self, *, raw_dir=None, data_dir=None):
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, (3, 512, 2)).astype(np.float32)
        y = np.float32(np.sin(3 * x[..., 0]) * x[..., 1] + rng.normal(0, 0.05, (3, 512)))
        train, valid, test = (Points(*part) for part in zip(x, y, strict=True))
        shuffled = Rows.of(train, self.batch, shuffled=True)
        return Splits(shuffled, *(Rows.of(part, self.eval_batch) for part in (valid, test)))


@dataclasses.dataclass(frozen=True)
class Perceptron:
    """A matrix for each layer and activation: a `Network` of nas/tasks.py."""

    width: int
    learning_rate: float
    baselines: ClassVar[tuple] = ()
    compared: ClassVar[dict] = {}
    published: ClassVar[dict] = {}

    def metric(self, data):
        return Metric("error", "squared error", "a point", "1 - squared error", np.sqrt, 3, 0.2)

    def yardsticks(self, data, train, held_out):
        return {"constant": float(np.std(held_out.leaves.y))}

    def init(self, key):
        shapes = (2, self.width), (DEPTH, len(CHOICES), self.width, self.width), (self.width,)
        keys = jax.random.split(key, 3)
        return [jax.random.normal(k, s) * s[-1] ** -0.5 for k, s in zip(keys, shapes, strict=True)]

    def loss(self, params, decisions, batch):
        first, matrices, last = params
        hidden = batch.x @ first
        for layer, choice in enumerate(decisions):
            z = hidden @ matrices[layer, choice]
            hidden = jax.lax.select_n(choice, jnp.tanh(z), jnp.maximum(z, 0), z)
        return jnp.mean((hidden @ last - batch.y) ** 2)

    def reward(self, space, data):
        def train(params, carry, decisions, batch, key, epoch, axis_name=None):
            found = jax.value_and_grad(self.loss)(params, decisions, batch)
            value, gradient = found if axis_name is None else jax.lax.pmean(found, axis_name)
            step = jax.tree.map(lambda p, g: p - self.learning_rate * g, params, gradient)
            return step, carry, {"loss": value}

        losses = jax.vmap(self.loss, in_axes=(None, 0, None))  # of several architectures

        def evaluate(params, decisions, batches):
            return jnp.mean(jax.vmap(lambda batch: losses(params, decisions, batch))(batches), 0)

        return Reward(self.init, lambda rows: (), train, lambda *args: 1 - losses(*args), evaluate)

    def model(self, space, data, architecture):
        decisions, evaluate = space.parse(architecture), self.reward(space, data).evaluate
        return Model(
            init=self.init,
            initial_carry=lambda rows: (),
            loss=lambda params, batch, carry, key: (self.loss(params, decisions, batch), carry),
            evaluate=lambda params, batches: evaluate(params, decisions[None], batches)[0],
            width=self.width,
        )


TASK = Parts(Layers, Surface, Perceptron)


def get_config():  # nas/config.py explains its fields
    config = kjv_quick.get_config().to_dict() | {"task": "own_task:TASK", "space": {}}
    config |= {"data": {"batch": 32, "eval_batch": 32}}
    config |= {"network": {"width": 16, "learning_rate": 0.2}}
    config["search"] |= {
        "epochs": 3,
        "warmup_epochs": 1,
        "shared_steps": 50,
        "controller_steps": 25,
    }
    config["evaluation"] = {"architectures": 20, "examples": 256}
    config["training"] |= {"epochs": 2, "learning_rate": 0.05}
    return config
