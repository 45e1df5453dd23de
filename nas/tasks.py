"""What is searched for, on what, and how it is judged: the registry of tasks. Imports no JAX.

A task is a search space, a data set and a network with shared weights. Each is a frozen dataclass
whose fields are the settings of its group of the configuration, defined and checked in the file
that uses them. A new task is one line of TASKS. A task outside this package is named in a
configuration as module:attribute, where the attribute is a `Parts`.
"""

import dataclasses
import functools
import importlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from nas import config as configs
from nas.config import Config, Settings
from nas.errors import UserError
from nas.spaces.space import SearchSpace

if TYPE_CHECKING:
    from nas.types import Model, Reward


class Metric(NamedTuple):
    """How a validation loss is shown.

    The better of two architectures has the smaller loss and the smaller shown number.
    """

    name: str  # name of the shown number, such as "error (%)"
    loss: str  # name of the loss itself, such as "error"
    unit: str  # unit of the loss, such as "nats a token"
    reward: str  # what a reward is, such as "accuracy"
    shown: Callable[[np.ndarray], np.ndarray]  # loss -> shown number, elementwise
    digits: int  # decimals of the shown number
    guessing: float  # loss of guessing; an architecture with this loss or more has diverged
    # name under which mean rewards are shown beside losses, such as "error (%)"; empty: not shown
    also: str = ""
    also_shown: Callable[[np.ndarray], np.ndarray] = np.asarray  # mean reward -> shown number

    def text(self, loss: float) -> str:
        """Name and value of the shown number: "error (%) 4.23"."""
        return f"{self.name} {self.shown(loss):.{self.digits}f}"

    def texts(self, loss: float, reward: float | None) -> str:
        """The same, and the reward if it is shown: "cross-entropy 0.123, error (%) 4.23"."""
        told = f", {self.also} {self.also_shown(reward):.2f}" if self.also else ""
        return self.text(loss) + told


class Stream(Protocol):
    """Batches by number: a number always means the same batch, and numbers run on from one pass
    over the data to the next.
    """

    length: int  # batches in a pass
    examples: int  # examples in a batch: images, or tokens to be predicted

    def take(self, first: int, count: int) -> Any:
        """Batches first .. first + count - 1, counted over all passes, stacked [count, B, ...]."""

    def head(self, examples: int) -> Any:
        """The first batches, stacked: as many as hold `examples` (rounded up; 0: a whole pass)."""

    def share(self, rows: slice) -> "Stream":
        """The stream of these rows of every batch: what one process reads."""

    def halves(self, slices: int, seed: int) -> tuple[list[Any], list[Any]]:
        """Two disjoint halves of a pass, of one size, each in at most `slices` slices: one half to
        choose on, one to report on.

        Args:
          slices: a power of two; halved until every slice holds a batch.
          seed: shuffles the first half before it is cut into slices.
        """


class Splits(NamedTuple):
    """The streams of a data set."""

    train: Stream
    valid: Stream
    test: Stream


class Data(Protocol):
    """A data set, cut into batches; its fields are the group `data`."""

    name: str  # name in sentences and titles
    batch: int  # rows of a training batch
    eval_batch: int  # rows of a batch for rewards and validation

    def examples(self, rows: int) -> int:
        """Examples in a batch of `rows` rows: images, or tokens to be predicted."""

    def load(self, *, raw_dir: str | None = None, data_dir: str | None = None) -> Splits:
        """The batches; the data is prepared on first use.

        Args:
          raw_dir: the user's folder of raw files; None: they are downloaded or installed.
          data_dir: folder of prepared data; None: TFDS' default.

        Raises:
          UserError: the data cannot be obtained, is damaged, or holds too few examples.
        """


class Network(Protocol):
    """A network with shared weights; its fields are the group `network`."""

    baselines: tuple[str, ...]  # names that `model` takes besides architectures
    compared: Mapping[str, str]  # baselines that a study of searches trains -> names in tables
    # Spearman's correlations of the distance of states with "labelled edges" and "performance" that
    # Adam and Lorraine (2019) report with their memory; empty: they did not search this task.
    published: Mapping[str, float]

    def metric(self, data: Data) -> Metric:
        """How its validation losses are shown."""

    def reward(self, space: SearchSpace, data: Data) -> "Reward":
        """The shared weights as a source of rewards."""

    def model(self, space: SearchSpace, data: Data, architecture: str) -> "Model":
        """One architecture of the space alone, or a baseline with as many parameters.

        Raises:
          UserError: `architecture` is neither decisions of the space nor a baseline.
        """

    def yardsticks(self, data: Data, train: Stream, held_out: Stream) -> dict[str, float]:
        """name -> shown number that a model without a network reaches on `held_out`."""


class Task(NamedTuple):
    """What a search works on."""

    name: str
    space: SearchSpace
    data: Data
    network: Network

    @property
    def metric(self) -> Metric:
        return self.network.metric(self.data)


class Parts(NamedTuple):
    """The three classes of a task, or their places as module:class, imported when the task is
    built.
    """

    space: str | type
    data: str | type
    network: str | type


SPACES = {
    "recurrent": "nas.spaces.recurrent:RecurrentSpace",
    "nasbench201": "nas.spaces.nasbench201:NASBench201Space",  # no task: its accuracies are a table
    "macro": "nas.spaces.macro:MacroSpace",
    "micro": "nas.spaces.micro:MicroSpace",
}
TASKS = {
    "recurrent": Parts(
        SPACES["recurrent"],
        "nas.data.text:Text",
        "nas.supernets.recurrent.language_model:LanguageModel",
    ),
    "macro": Parts(
        SPACES["macro"], "nas.data.images:ImageData", "nas.supernets.images.macro:MacroNetwork"
    ),
    "micro": Parts(
        SPACES["micro"], "nas.data.images:ImageData", "nas.supernets.images.micro:MicroNetwork"
    ),
}


def build(config: Config) -> Task:
    """The task of a configuration.

    Raises:
      UserError: an unknown task, or a setting that is unknown, missing or not allowed; names the
        field.
    """
    parts = (part(config.task, group, getattr(config, group)) for group in Parts._fields)
    return Task(config.task, *parts)


def part(task: str, group: str, settings: Settings) -> Any:
    """The space, data or network of a task, from the settings of that group.

    Raises:
      UserError: as `build`.
    """
    kind = getattr(_parts(task), group)
    return configs.read(_load(kind) if isinstance(kind, str) else kind, settings, group)


def space(name: str, settings: Settings) -> SearchSpace:
    """The space of that name in SPACES, or a user's own as module:class; settings that are not
    given have their defaults.

    Raises:
      UserError: there is no such space, or a setting that it does not have or does not allow; names
        the field.
    """
    if name not in SPACES and ":" not in name:
        names = ", ".join(SPACES)
        raise UserError(f"unknown space {name!r}; choose from {names}, or module:class of your own")
    kind = _load(SPACES[name]) if name in SPACES else _own(name)
    if not (isinstance(kind, type) and issubclass(kind, SearchSpace)):
        raise UserError(f"{name} must be a class of nas.spaces.SearchSpace")
    defaults = {of.name: of.default for of in dataclasses.fields(kind) if of.init}
    return configs.read(kind, defaults | dict(settings), "space")


def prepare(config: Config) -> None:
    """Begins the network's slow preparations, while the caller goes on importing."""
    kind = _parts(config.task).network
    module = importlib.import_module(
        kind.partition(":")[0] if isinstance(kind, str) else kind.__module__
    )
    if hasattr(module, "prepare"):
        module.prepare()


def folder(task: str) -> str | None:
    """The folder on the path in which a user's own task was found; None for a task of TASKS."""
    if task in TASKS:
        return None
    _parts(task)
    module = importlib.import_module(task.partition(":")[0])
    root = pathlib.Path(module.__file__).resolve()
    return str(root.parents[module.__name__.count(".")])


def search_also(folder: str | None) -> None:
    """Adds `folder` to the end of the path, so that a user's own task in it is found."""
    if folder and folder not in sys.path:
        sys.path.append(folder)


def _parts(task: str) -> Parts:
    if task in TASKS:
        return TASKS[task]
    if ":" not in task:
        names = ", ".join(TASKS)
        raise UserError(
            f"config field task: must be one of {names}, or module:attribute; got {task!r}"
        )
    try:
        found = _own(task)
    except UserError as error:
        raise UserError(f"config field task: {error}") from None
    if not isinstance(found, Parts):
        raise UserError(
            f"config field task: {task} must be nas.tasks.Parts, got {type(found).__name__}"
        )
    return found


def _own(name: str) -> Any:
    """What a user's own file holds, by its place module:attribute."""
    try:
        return _load(name)
    except (ImportError, AttributeError) as error:
        hint = "its folder must be on the path: PYTHONPATH=FOLDER, or start there"
        raise UserError(f"{name}: {error}; {hint}") from None


@functools.cache
def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
