"""Every setting of a run, as frozen dataclasses. Imports no JAX.

Presets in `launch/configs/` and command-line overrides end here: `from_dict` turns the nested dictionary that the
flags produce into a checked `Config`, or raises a `UserError` that names the field.
"""

import dataclasses
from typing import Any

from nas.errors import UserError


def _check(field: str, good: bool, wanted: str, value: Any) -> None:
    if not good:
        raise UserError(f"config field {field}: must be {wanted}, got {value!r}")


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    _check(field, value in choices, "one of " + ", ".join(choices), value)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The corpus and how it is cut into batches."""

    corpus: str = "kjv"  # kjv (comes with the installation) or ptb (downloaded, or read from a folder)
    vocabulary: int = 4000  # types kept, <unk> and <eos> included; the rest become <unk>
    batch: int = 32  # rows of the token stream, training
    steps: int = 20  # tokens per row and update: truncated back-propagation through time
    eval_batch: int = 32  # rows of the token stream, validation and rewards
    eval_tokens: int = 10_000  # validation tokens that an evaluation reads; 0: all

    def __post_init__(self):
        _check_choice("data.corpus", self.corpus, ("kjv", "ptb"))
        for name in ("batch", "steps", "eval_batch"):
            _check(f"data.{name}", getattr(self, name) >= 1, "at least 1", getattr(self, name))
        _check("data.vocabulary", self.vocabulary >= 3, "at least 3", self.vocabulary)
        _check("data.eval_tokens", self.eval_tokens >= 0, "0 (all) or more", self.eval_tokens)


@dataclasses.dataclass(frozen=True)
class SupernetConfig:
    """The shared-weight recurrent language model and its optimiser."""

    width: int = 96  # hidden and embedding width H
    init_scale: float = 0.1  # weights start uniform in [-init_scale, init_scale]
    dropout_input: float = 0.2  # variational: one mask per sequence
    dropout_hidden: float = 0.0
    dropout_output: float = 0.0
    max_norm: float = 25.0  # L2 norm to which the recurrent state of one sequence is clipped; 0: off
    learning_rate: float = 10.0
    warmup_epochs: int = 0  # epochs in which the learning rate rises in equal steps, to be full in the one after them
    learning_rate_decay: float = 0.96  # factor per epoch ...
    decay_start: int = 15  # ... from this epoch on
    matmul: str = "float32"  # of matrix products' operands, or bfloat16; sums, weights and state stay float32
    clip: float = 0.25  # global norm of the gradient of the weights in use
    reward_chunk: int = 1  # architectures that accelerators score as one batch; CPUs score one at a time

    def __post_init__(self):
        _check("supernet.width", self.width >= 1, "at least 1", self.width)
        for name in ("dropout_input", "dropout_hidden", "dropout_output"):
            _check(f"supernet.{name}", 0 <= getattr(self, name) < 1, "in [0, 1)", getattr(self, name))
        _check_choice("supernet.matmul", self.matmul, ("float32", "bfloat16"))
        _check("supernet.max_norm", self.max_norm >= 0, "0 (off) or more", self.max_norm)
        _check("supernet.warmup_epochs", self.warmup_epochs >= 0, "0 or more", self.warmup_epochs)
        _check("supernet.reward_chunk", self.reward_chunk >= 1, "at least 1", self.reward_chunk)
        for name in ("init_scale", "learning_rate", "learning_rate_decay", "clip"):
            _check(f"supernet.{name}", getattr(self, name) > 0, "positive", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """The policy that proposes architectures."""

    name: str = "lstm"  # lstm (the controller of ENAS), factorised or uniform (controls that condition on nothing)
    width: int = 100  # LSTM hidden width
    temperature: float = 5.0  # logits are tanh_constant * tanh(logits / temperature)
    tanh_constant: float = 2.5
    init_scale: float = 0.1

    def __post_init__(self):
        _check_choice("policy.name", self.name, ("lstm", "factorised", "uniform"))
        _check("policy.width", self.width >= 1, "at least 1", self.width)
        for name in ("temperature", "tanh_constant", "init_scale"):
            _check(f"policy.{name}", getattr(self, name) > 0, "positive", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """Where the sequences of the supervised loss come from."""

    source: str = "old"  # old, shuffled, snapshot, uniform, current or current_with_gradient (see nas/memory.py)
    capacity: int = 1000  # sequences held
    refresh_size: int = 1000  # sequences written per refresh; with refresh_size = capacity each refresh replaces all
    refresh_period: int = 1  # epochs between refreshes; 0: filled once
    lag: int = 1  # epochs between the stored parameters and the refresh
    batch: int = 64  # sequences per update

    def __post_init__(self):
        _check_choice(
            "memory.source", self.source, ("old", "shuffled", "snapshot", "uniform", "current", "current_with_gradient")
        )
        for name in ("capacity", "refresh_size", "lag", "batch"):
            _check(f"memory.{name}", getattr(self, name) >= 1, "at least 1", getattr(self, name))
        _check("memory.refresh_size", self.refresh_size <= self.capacity, "at most memory.capacity", self.refresh_size)
        _check("memory.refresh_period", self.refresh_period >= 0, "0 (once) or more", self.refresh_period)


@dataclasses.dataclass(frozen=True)
class StrategyConfig:
    """What proposes architectures: policy gradient and supervised loss, L = L_PG + supervised_weight * L_Sup, or evolution."""

    name: str = "reinforce"  # reinforce, whose settings follow, or evolution, which has a group of its own
    supervised: str = "reconstruct"  # reconstruct, next_decision or double_softmax (see nas/objectives.py)
    supervised_weight: float = 0.0  # lambda; 0 is ENAS
    policy_weight: float = 1.0  # factor of L_PG; 0 trains on the memory alone
    entropy_weight: float = 1e-4
    baseline_decay: float = 0.95  # of the exponential moving average of rewards
    learning_rate: float = 1e-3  # Adam

    def __post_init__(self):
        _check_choice("strategy.name", self.name, ("reinforce", "evolution"))
        _check_choice("strategy.supervised", self.supervised, ("reconstruct", "next_decision", "double_softmax"))
        for name in ("supervised_weight", "policy_weight", "entropy_weight"):
            _check(f"strategy.{name}", getattr(self, name) >= 0, "0 or more", getattr(self, name))
        _check("strategy.baseline_decay", 0 <= self.baseline_decay < 1, "in [0, 1)", self.baseline_decay)
        _check("strategy.learning_rate", self.learning_rate > 0, "positive", self.learning_rate)


@dataclasses.dataclass(frozen=True)
class EvolutionConfig:
    """Regularised evolution (see nas/strategies/evolution.py); the sizes are those of Real et al. (2019)."""

    population: int = 100  # the youngest architectures, which are alive
    tournament: int = 25  # drawn from them, the best of which is a parent

    def __post_init__(self):
        for name in ("population", "tournament"):
            _check(f"evolution.{name}", getattr(self, name) >= 1, "at least 1", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The alternating loop."""

    epochs: int = 10
    warmup_epochs: int = 0  # epochs at the start that train shared weights only
    shared_steps: int = 100  # updates of the shared weights per epoch
    controller_steps: int = 100  # updates of the controller per epoch
    architectures: int = 4  # architectures per controller update
    chunk: int = 25  # steps per compiled call: what is logged and can be interrupted together
    valid_architectures: int = 10  # architectures validated at the end of an epoch
    checkpoint_epochs: int = 1  # epochs between checkpoints
    keep: int = 3  # checkpoints kept
    on_nonfinite: str = "stop"  # stop, or skip: drop an update whose loss or gradient is not finite, and count it

    def __post_init__(self):
        for name in ("epochs", "shared_steps", "controller_steps", "architectures", "chunk", "valid_architectures"):
            _check(f"search.{name}", getattr(self, name) >= 1, "at least 1", getattr(self, name))
        for name in ("checkpoint_epochs", "keep"):
            _check(f"search.{name}", getattr(self, name) >= 1, "at least 1", getattr(self, name))
        _check_choice("search.on_nonfinite", self.on_nonfinite, ("stop", "skip"))
        _check("search.warmup_epochs", self.warmup_epochs >= 0, "0 or more", self.warmup_epochs)
        for name in ("shared_steps", "controller_steps"):
            steps = getattr(self, name)
            _check(f"search.{name}", steps % min(self.chunk, steps) == 0, f"a multiple of search.chunk = {self.chunk}", steps)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What `launch.evaluate` compares."""

    architectures: int = 100  # per evaluation set; all pairs are compared

    def __post_init__(self):
        _check("evaluation.architectures", self.architectures >= 3, "at least 3", self.architectures)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What `launch.train_from_scratch` trains and how; the model's size, dropout and initial weights are `supernet`'s."""

    architecture: str = ""  # decisions as text, lstm or highway (see nas/standalone.py); empty in a search
    epochs: int = 10  # passes over the training split
    learning_rate: float = 10.0
    learning_rate_decay: float = 0.96  # factor per epoch ...
    decay_start: int = 15  # ... from this epoch on, until averaging begins
    clip: float = 0.25  # global norm of the gradient
    weight_decay: float = 1e-6  # added to the gradient, times the weights
    patience: int = 5  # epochs without a better validation loss after which iterates are averaged

    def __post_init__(self):
        _check("training.epochs", self.epochs >= 1, "at least 1", self.epochs)
        for name in ("learning_rate", "learning_rate_decay", "clip"):
            _check(f"training.{name}", getattr(self, name) > 0, "positive", getattr(self, name))
        for name in ("weight_decay", "patience"):
            _check(f"training.{name}", getattr(self, name) >= 0, "0 or more", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    nodes: int = 12  # nodes of the recurrent cell
    seed: int = 0
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    supernet: SupernetConfig = dataclasses.field(default_factory=SupernetConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    memory: MemoryConfig = dataclasses.field(default_factory=MemoryConfig)
    strategy: StrategyConfig = dataclasses.field(default_factory=StrategyConfig)
    evolution: EvolutionConfig = dataclasses.field(default_factory=EvolutionConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self):
        _check("nodes", self.nodes >= 2, "at least 2", self.nodes)
        _check("seed", 0 <= self.seed < 2**32, "in 0..2**32 - 1", self.seed)


def from_dict(values: dict[str, Any]) -> Config:
    """The checked `Config` of a nested dictionary.

    Raises:
      UserError: an unknown or missing field, or a value that its field does not allow; names the field.
    """
    return _build(Config, values, "")


def difference(ours: Config, theirs: Config) -> list[str]:
    """The fields in which two configurations differ, as `name: ours -> theirs`."""
    a, b = _flatten(dataclasses.asdict(ours)), _flatten(dataclasses.asdict(theirs))
    return [f"{name}: {a[name]!r} -> {b[name]!r}" for name in a if a[name] != b[name]]


def _build(cls, values, prefix):
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - set(fields)):
        raise UserError(f"config field {prefix}{unknown[0]}: unknown; {cls.__name__} has {', '.join(fields)}")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(fields[name].type):
            if not hasattr(value, "items"):
                raise UserError(f"config field {prefix}{name}: must be a group of fields, got {value!r}")
            built[name] = _build(fields[name].type, dict(value.items()), f"{prefix}{name}.")
        else:
            built[name] = _convert(prefix + name, fields[name].type, value)
    return cls(**built)


def _convert(name, kind, value):
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    _check(name, type(value) is kind, f"of type {kind.__name__}", value)
    return value


def _flatten(values, prefix=""):
    flat = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
