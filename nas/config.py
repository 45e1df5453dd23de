"""Every setting of a run. Imports no JAX.

Presets in `launch/configs/` and command-line overrides come together here: `from_dict` turns the
nested dictionary that the flags produce into a `Config`, or raises a `UserError` that names the
field.

Groups that have the same fields in every run are dataclasses in this file. The groups `space`,
`data`, `network`, `policy` and `strategy` are open: a class from a registry (`nas.tasks`,
`nas.controllers`, `nas.strategies`) defines and checks their fields, and `read` turns the group
into an instance of that class.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nas.errors import UserError

Settings = Mapping[str, Any]  # an open group: field -> number, text, bool or a nested group
OPEN = ("space", "data", "network", "policy", "strategy")
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32"}  # our name -> JAX's name
_BLOCKS, _LEAST_BLOCK = 10, 10  # fewest blocks of an evaluation, and fewest architectures in each


def check(field: str, good: bool, wanted: str, value: Any) -> None:
    """Raises a UserError that names the field, unless its value is good."""
    if not good:
        raise UserError(f"{field}: must be {wanted}, got {value!r}")


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises a UserError that names the field and the choices, unless the value is one."""
    check(field, value in choices, "one of " + ", ".join(choices), value)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The loop that alternates between training shared weights and training the controller."""

    epochs: int = 10
    warmup_epochs: int = 0  # epochs at the start that train shared weights only
    shared_steps: int = 100  # updates of the shared weights per epoch
    controller_steps: int = 100  # updates of the controller per epoch
    architectures: int = 4  # architectures per controller update
    chunk: int = 25  # steps per compiled call; a run logs, and can be interrupted, between calls
    valid_architectures: int = 10  # architectures validated at the end of an epoch
    checkpoint_epochs: int = 1  # epochs between checkpoints
    checkpoint_minutes: float = 0.0  # minutes after which a run also saves within an epoch; 0: off
    keep: int = 3  # checkpoints kept
    on_nonfinite: str = "stop"  # or "skip": drop a non-finite update, and count it

    def __post_init__(self):
        positive = ("epochs", "shared_steps", "controller_steps", "architectures", "chunk")
        for name in (*positive, "valid_architectures", "checkpoint_epochs", "keep"):
            check(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        check(
            "checkpoint_minutes",
            self.checkpoint_minutes >= 0,
            "0 (off) or more",
            self.checkpoint_minutes,
        )
        check_choice("on_nonfinite", self.on_nonfinite, ("stop", "skip"))
        check("warmup_epochs", self.warmup_epochs >= 0, "0 or more", self.warmup_epochs)
        for name in ("shared_steps", "controller_steps"):
            steps = getattr(self, name)
            wanted = f"a multiple of search.chunk = {self.chunk}"
            check(name, steps % min(self.chunk, steps) == 0, wanted, steps)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What validations and `launch.evaluate` read and compare."""

    architectures: int = 100  # number in each evaluation set
    # Most pairs that are compared in a set, since memory grows with them. If there are more, only
    # pairs within blocks of architectures are compared.
    pairs: int = 500_000
    examples: int = 10_000  # validation examples (tokens, images) that are read; 0: all

    def __post_init__(self):
        n = self.architectures
        check("architectures", n >= 3, "at least 3", n)
        fewest = n * (n - 1 if n < _BLOCKS * _LEAST_BLOCK else _LEAST_BLOCK) // 2
        wanted = f"at least {fewest:,} of {n:,} architectures"
        check("pairs", self.pairs >= fewest, wanted, self.pairs)
        check("examples", self.examples >= 0, "0 (all) or more", self.examples)

    @property
    def block(self) -> int:
        """Architectures per block, all of which are compared with each other: the whole set, or as
        many as `pairs` allows while intervals and tests still have at least _BLOCKS blocks.
        """
        n = self.architectures
        if n * (n - 1) // 2 <= self.pairs:
            return n
        return min(n // _BLOCKS, 2 * self.pairs // n)

    @property
    def compared(self) -> int:
        """Architectures of a set that are compared: as many as fill whole blocks."""
        return self.architectures // self.block * self.block


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What `launch.train_from_scratch` trains and how; the model's size is in `network`."""

    architecture: str = ""  # decisions as text, or a baseline's name; empty in a search
    epochs: int = 10  # passes over the training split
    learning_rate: float = 10.0
    schedule: str = "decay"  # how the rate falls; "cosine": to zero, without averaging
    momentum: float = 0.0  # Nesterov's; 0: none
    learning_rate_decay: float = 0.96  # factor per epoch ...
    decay_start: int = 15  # ... from this epoch on, until averaging begins
    clip: float = 0.25  # global norm of the gradient
    weight_decay: float = 1e-6  # times the weights, added to the gradient
    patience: int = 5  # epochs without a better validation loss after which iterates are averaged

    def __post_init__(self):
        check("epochs", self.epochs >= 1, "at least 1", self.epochs)
        for name in ("learning_rate", "learning_rate_decay", "clip"):
            check(name, getattr(self, name) > 0, "positive", getattr(self, name))
        for name in ("weight_decay", "patience"):
            check(name, getattr(self, name) >= 0, "0 or more", getattr(self, name))
        check("momentum", 0 <= self.momentum < 1, "in [0, 1)", self.momentum)
        check_choice("schedule", self.schedule, ("decay", "cosine"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting of one run."""

    task: str  # a name in nas.tasks.TASKS, or module:attribute of a user's own task
    seed: int = 0
    precision: str = "float32"  # matrix products on accelerators; tf32: 11-bit factors
    space: Settings
    data: Settings
    network: Settings
    policy: Settings  # its `name` is one of nas.controllers.POLICIES
    strategy: Settings  # its `name` is one of nas.strategies.STRATEGIES
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self):
        check("seed", 0 <= self.seed < 2**32, "in 0..2**32 - 1", self.seed)
        check_choice("precision", self.precision, tuple(PRECISIONS))

    def __hash__(self):
        return hash(str(dataclasses.asdict(self)))


def from_dict(values: Mapping[str, Any]) -> Config:
    """The `Config` of a nested dictionary; open groups are checked later, when they are read.

    Raises:
      UserError: an unknown or missing field, or a value that its field does not allow; names the
        field.
    """
    if "task" not in values and ("nodes" in values or "supernet" in values):
        raise UserError("the configuration is from a version that had no tasks: start a new run")
    return _build(Config, values, "")


def read(kind: type, settings: Settings, group: str) -> Any:
    """The settings of an open group, as the dataclass that defines and checks them.

    Raises:
      UserError: an unknown or missing field, or a value that its field does not allow; names the
        field.
    """
    return _build(kind, settings, f"{group}.", complete=True)


class Registered(NamedTuple):
    """An entry of a registry: what a group chooses by its `name`."""

    settings: type  # dataclass of the group's other fields
    make: Callable[..., Any]  # takes an instance of `settings` as its last argument


def chosen(registry: Mapping[str, Registered], settings: Settings, group: str) -> tuple[Any, Any]:
    """The function that a group's `name` stands for, and the settings to call it with.

    Raises:
      UserError: a missing or unknown name, or as `read`.
    """
    entry = _entry(registry, settings.get("name"), group)
    rest = {field: value for field, value in settings.items() if field != "name"}
    return entry.make, read(entry.settings, rest, group)


def choose(
    registry: Mapping[str, Registered], settings: Settings, name: str, group: str
) -> dict[str, Any]:
    """The group with another name: fields that both entries have stay, others get their defaults.

    Raises:
      UserError: an unknown name.
    """
    defaults = dataclasses.asdict(_entry(registry, name, group).settings())
    return {"name": name} | {field: settings.get(field, of) for field, of in defaults.items()}


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with some fields replaced; of a group, only the fields that `changes` names.

    Raises:
      UserError: as `from_dict`.
    """
    return from_dict(_merge(dataclasses.asdict(config), changes))


def difference(ours: Config, theirs: Config) -> list[str]:
    """The fields in which two configurations differ, as `name: ours -> theirs`."""
    a, b = _flatten(dataclasses.asdict(ours)), _flatten(dataclasses.asdict(theirs))
    names = dict.fromkeys([*a, *b])
    return [
        f"{name}: {a.get(name, 'absent')!r} -> {b.get(name, 'absent')!r}"
        for name in names
        if a.get(name) != b.get(name)
    ]


def obstacles(stored: Config, config: Config) -> list[str]:
    """The differences that keep a run of `stored` from being continued as one of `config`.

    A continued run may have more epochs, and may differ in settings that change no number.
    """
    given = dataclasses.replace(
        stored.search,
        epochs=max(stored.search.epochs, config.search.epochs),
        keep=config.search.keep,
        checkpoint_epochs=config.search.checkpoint_epochs,
        checkpoint_minutes=config.search.checkpoint_minutes,
    )
    compared = dataclasses.replace(stored.evaluation, architectures=config.evaluation.architectures)
    return difference(dataclasses.replace(stored, search=given, evaluation=compared), config)


def _build(cls, values, prefix, complete=False):
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    if unknown := sorted(set(values) - set(fields)):
        known = f"{cls.__name__} has {', '.join(fields) or 'none'}"
        raise UserError(f"config field {prefix}{unknown[0]}: unknown; {known}")
    built = {}
    for name, value in values.items():
        kind = fields[name].type
        if kind is Settings or dataclasses.is_dataclass(kind):
            if not hasattr(value, "items"):
                raise UserError(
                    f"config field {prefix}{name}: must be a group of fields, got {value!r}"
                )
            group = _plain(value)
            inner = f"{prefix}{name}."
            built[name] = group if kind is Settings else _build(kind, group, inner, complete)
        else:
            built[name] = _convert(prefix + name, kind, value)
    required = [name for name, field in fields.items() if complete or _is_required(field)]
    if missing := [name for name in required if name not in values]:
        stated = "a configuration states every field of its open groups"
        raise UserError(f"config field {prefix}{missing[0]}: missing; {stated}")
    try:
        return cls(**built)
    except UserError as error:
        raise UserError(f"config field {prefix}{error}") from None


def _plain(value):
    """A group of any mapping type, and the groups in it, as plain dictionaries."""
    return {k: _plain(v) for k, v in value.items()} if hasattr(value, "items") else value


def _entry(registry, name, group):
    if name not in registry:
        wanted = f"must be one of {', '.join(registry)}, got {name!r}"
        raise UserError(f"config field {group}.name: {wanted}")
    return registry[name]


def _is_required(field):
    return field.default is field.default_factory is dataclasses.MISSING


def _convert(name, kind, value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Whole numbers become int32 when traced, except the seed, whose range `Config` checks.
    if (
        number
        and name != "seed"
        and not abs(value) < (math.inf if isinstance(value, float) else 2**31)
    ):
        raise UserError(
            f"config field {name}: must be finite, and below 2**31 if it is a whole number, got "
            f"{value!r}"
        )
    if kind is float and number:
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"config field {name}: must be of type {kind.__name__}, got {value!r}")
    return value


def _merge(values, changes):
    merged = dict(values)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if both else value
    return merged


def _flatten(values, prefix=""):
    flat = {}
    for name, value in values.items():
        is_group = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{name}.") if is_group else {prefix + name: value}
    return flat
