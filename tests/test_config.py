"""Settings: what is taken, what is refused, and that a refusal names the field and the value."""

import dataclasses
import math

import ml_collections
import pytest

from nas.config import Config, StrategyConfig, difference, from_dict
from nas.errors import UserError

# field -> (values at the edge of what is allowed, values just outside)
LIMITS = {
    "nodes": ([2], [1, 0, -5]),
    "seed": ([0, 2**31, 2**32 - 1], [-1, 2**32]),
    "data.corpus": (["kjv", "ptb"], ["wikitext", "KJV", ""]),
    "data.vocabulary": ([3], [2, 0]),
    "data.batch": ([1], [0, -1]),
    "data.steps": ([1], [0, -1]),
    "data.eval_batch": ([1], [0]),
    "data.eval_tokens": ([0], [-1]),
    "supernet.width": ([1], [0]),
    "supernet.init_scale": ([1e-9], [0.0, -0.1, math.nan]),
    "supernet.dropout_input": ([0.0, 0.999], [-0.001, 1.0, math.nan]),
    "supernet.dropout_hidden": ([0.0, 0.999], [-0.001, 1.0, math.nan]),
    "supernet.dropout_output": ([0.0, 0.999], [-0.001, 1.0, math.nan]),
    "supernet.max_norm": ([0.0], [-1.0, math.nan]),
    "supernet.learning_rate": ([1e-9], [0.0, -1.0, math.nan]),
    "supernet.learning_rate_decay": ([1e-9, 1.0], [0.0, math.nan]),
    "supernet.warmup_epochs": ([0, 3], [-1]),
    "supernet.decay_start": ([0, 15], []),
    "supernet.clip": ([1e-9], [0.0, math.nan]),
    "supernet.reward_chunk": ([1], [0]),
    "supernet.matmul": (["float32", "bfloat16"], ["float16", ""]),
    "policy.name": (["lstm", "factorised", "uniform"], ["gru", "LSTM"]),
    "policy.width": ([1], [0]),
    "policy.temperature": ([1e-9], [0.0, -1.0, math.nan]),
    "policy.tanh_constant": ([1e-9], [0.0, math.nan]),
    "policy.init_scale": ([1e-9], [0.0, math.nan]),
    "memory.source": (["old", "shuffled", "snapshot", "uniform", "current", "current_with_gradient"], ["new", ""]),
    "memory.capacity": ([1000], [0]),
    "memory.refresh_size": ([1, 1000], [0, 1001]),
    "memory.refresh_period": ([0], [-1]),
    "memory.lag": ([1], [0]),
    "memory.batch": ([1], [0]),
    "strategy.name": (["reinforce", "evolution"], ["annealing", ""]),
    "strategy.supervised": (["reconstruct", "next_decision", "double_softmax"], ["none"]),
    "strategy.supervised_weight": ([0.0], [-1e-9, math.nan]),
    "strategy.policy_weight": ([0.0], [-1e-9, math.nan]),
    "strategy.entropy_weight": ([0.0], [-1e-9, math.nan]),
    "strategy.baseline_decay": ([0.0, 0.999], [-0.1, 1.0, math.nan]),
    "strategy.learning_rate": ([1e-9], [0.0, math.nan]),
    "evolution.population": ([1], [0]),
    "evolution.tournament": ([1], [0]),
    "search.epochs": ([1], [0]),
    "search.warmup_epochs": ([0], [-1]),
    "search.shared_steps": ([1, 25, 50], [0, 26]),
    "search.controller_steps": ([1, 25, 50], [0, 99]),
    "search.architectures": ([1], [0]),
    "search.chunk": ([1, 50, 200], [0, 30]),
    "search.valid_architectures": ([1], [0]),
    "search.checkpoint_epochs": ([1], [0]),
    "search.keep": ([1], [0]),
    "search.on_nonfinite": (["stop", "skip"], ["ignore"]),
    "evaluation.architectures": ([3], [2]),
    "training.architecture": (["", "lstm"], []),
    "training.epochs": ([1], [0]),
    "training.learning_rate": ([1e-9], [0.0, math.nan]),
    "training.learning_rate_decay": ([1e-9, 1.0], [0.0, math.nan]),
    "training.decay_start": ([0, 15], []),
    "training.clip": ([1e-9], [0.0, math.nan]),
    "training.weight_decay": ([0.0], [-1e-9, math.nan]),
    "training.patience": ([0], [-1]),
}
WRONG_TYPES = {int: [1.0, True, "1", None], float: ["1", True, None, [1.0]], str: [1, None, ["kjv"]]}


def fields(cls=Config, prefix=""):
    """Dotted name -> type of every setting."""
    found = {}
    for field in dataclasses.fields(cls):
        name = prefix + field.name
        found |= fields(field.type, name + ".") if dataclasses.is_dataclass(field.type) else {name: field.type}
    return found


FIELDS = fields()


def one(name, value):
    """The nested dictionary that sets one field: memory.lag, 2 -> {"memory": {"lag": 2}}."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def read(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def refused(values):
    with pytest.raises(UserError) as error:
        from_dict(values)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_setting_has_limits_here():
    assert set(LIMITS) == set(FIELDS)
    assert set(FIELDS.values()) == set(WRONG_TYPES)


# What is taken.


def test_round_trip():
    assert from_dict({}) == Config() == from_dict(dataclasses.asdict(Config()))
    other = from_dict({"nodes": 5, "strategy": {"supervised_weight": 2.0}, "memory": {"source": "uniform", "lag": 3}})
    assert from_dict(dataclasses.asdict(other)) == other != Config()
    assert from_dict(ml_collections.ConfigDict(dataclasses.asdict(other))) == other  # what flags hand over


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (good, _) in LIMITS.items() for value in good])
def test_a_field_is_set_and_no_other(name, value):
    config = from_dict(one(name, value))
    assert read(config, name) == value and type(read(config, name)) is FIELDS[name]
    assert {n for n in FIELDS if read(config, n) != read(Config(), n)} <= {name}


def test_whole_numbers_are_taken_for_floats():
    config = from_dict({"strategy": {"supervised_weight": 1}})
    assert repr(config.strategy.supervised_weight) == "1.0"


def test_configurations_are_values():
    assert hash(from_dict({})) == hash(Config())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


# What is refused.


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, bad) in LIMITS.items() for value in bad])
def test_out_of_range(name, value):
    told = refused(one(name, value))
    # Steps have to be a multiple of the chunk: a bad chunk is told of the steps that it does not divide.
    named = name if (name, value) != ("search.chunk", 30) else "search.shared_steps"
    assert told.startswith(f"config field {named}: must be ")
    assert told.endswith(f"got {value!r}") or named != name


def test_a_setting_that_depends_on_another():
    told = refused({"memory": {"capacity": 10, "refresh_size": 11}})
    assert told == "config field memory.refresh_size: must be at most memory.capacity, got 11"
    told = refused({"search": {"chunk": 40, "shared_steps": 100}})
    assert told == "config field search.shared_steps: must be a multiple of search.chunk = 40, got 100"
    # Fewer steps than a chunk are one chunk.
    assert from_dict({"search": {"chunk": 40, "shared_steps": 7, "controller_steps": 80}}).search.shared_steps == 7


@pytest.mark.parametrize("name", FIELDS)
def test_wrong_type(name):
    for value in WRONG_TYPES[FIELDS[name]]:
        told = refused(one(name, value))
        assert told == f"config field {name}: must be of type {FIELDS[name].__name__}, got {value!r}"


@pytest.mark.parametrize("name", ["node", "strategy.lambda", "strategy.Clip", "memory.memory", "search.search.epochs"])
def test_unknown_field(name):
    known = ".".join(name.split(".")[:2])
    assert refused(one(name, 1)).startswith(f"config field {known}: unknown; ")


def test_an_unknown_field_is_told_what_there_is():
    told = refused({"strategy": {"lambda": 1.0}})
    assert all(field.name in told for field in dataclasses.fields(StrategyConfig))


@pytest.mark.parametrize("value", [3, "x", None, [1]])
def test_a_group_that_is_none(value):
    assert refused({"memory": value}) == f"config field memory: must be a group of fields, got {value!r}"


# What differs.


def test_difference_lists_the_fields_that_differ():
    ours, theirs = Config(), from_dict({"nodes": 4, "policy": {"name": "uniform"}, "strategy": {"supervised_weight": 2.5}})
    assert difference(ours, ours) == []
    assert difference(ours, theirs) == [
        "nodes: 12 -> 4",
        "policy.name: 'lstm' -> 'uniform'",
        "strategy.supervised_weight: 0.0 -> 2.5",
    ]
    assert difference(theirs, ours)[0] == "nodes: 4 -> 12"
