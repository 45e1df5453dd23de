"""Settings: what is taken, what is refused, and that a refusal names the field and the value."""

import dataclasses
import math

import ml_collections
import pytest

from launch.configs.kjv_quick import get_config
from nas import config as configs
from nas import tasks
from nas.config import Config, choose, chosen, difference, from_dict, override
from nas.controllers import POLICIES
from nas.errors import UserError
from nas.strategies import STRATEGIES

BASE = from_dict(get_config().to_dict())
# field -> (values at the edge of what is allowed, values just outside)
LIMITS = {
    "space.num_nodes": ([2], [1, 0, -5]),
    "seed": ([0, 2**31, 2**32 - 1], [-1, 2**32]),
    "data.corpus": (["kjv", "ptb"], ["wikitext", "KJV", ""]),
    "data.vocabulary": ([3], [2, 0]),
    "data.batch": ([1], [0, -1]),
    "data.steps": ([1], [0, -1]),
    "data.eval_batch": ([1], [0]),
    "network.width": ([1], [0]),
    "network.init_scale": ([1e-9], [0.0, -0.1, math.nan]),
    "network.dropout_input": ([0.0, 0.999], [-0.001, 1.0, math.nan]),
    "network.dropout_hidden": ([0.0, 0.999], [-0.001, 1.0, math.nan]),
    "network.dropout_output": ([0.0, 0.999], [-0.001, 1.0, math.nan]),
    "network.max_norm": ([0.0], [-1.0, math.nan]),
    "network.learning_rate": ([1e-9], [0.0, -1.0, math.nan]),
    "network.learning_rate_decay": ([1e-9, 1.0], [0.0, math.nan]),
    "network.warmup_epochs": ([0, 3], [-1]),
    "network.decay_start": ([0, 15], []),
    "network.clip": ([1e-9], [0.0, math.nan]),
    "network.reward_chunk": ([1], [0]),
    "network.matmul": (["float32", "bfloat16"], ["float16", ""]),
    "precision": (["float32", "tf32"], ["bfloat16", ""]),
    "policy.width": ([1], [0]),
    "policy.temperature": ([1e-9], [0.0, -1.0, math.nan]),
    "policy.tanh_constant": ([1e-9], [0.0, math.nan]),
    "policy.init_scale": ([1e-9], [0.0, math.nan]),
    "strategy.memory.source": (
        ["old", "shuffled", "snapshot", "uniform", "current", "current_with_gradient"],
        ["new", ""],
    ),
    "strategy.memory.capacity": ([1000], [0]),
    "strategy.memory.refresh_size": ([1, 1000], [0, 1001]),
    "strategy.memory.refresh_period": ([0], [-1]),
    "strategy.memory.lag": ([1], [0]),
    "strategy.memory.batch": ([1], [0]),
    "strategy.supervised": (
        ["reconstruct", "next_decision", "double_softmax", "likelihood"],
        ["none"],
    ),
    "strategy.supervised_weight": ([0.0], [-1e-9, math.nan]),
    "strategy.policy_weight": ([0.0], [-1e-9, math.nan]),
    "strategy.entropy_weight": ([0.0], [-1e-9, math.nan]),
    "strategy.baseline_decay": ([0.0, 0.999], [-0.1, 1.0, math.nan]),
    "strategy.learning_rate": ([1e-9], [0.0, math.nan]),
    "strategy.adam_beta1": ([0.0, 0.999], [-0.1, 1.0, math.nan]),
    "strategy.adam_epsilon": ([1e-9], [0.0, math.nan]),
    "strategy.skip_weight": ([0.0, 5.0], [-1.0, math.nan]),
    "strategy.skip_target": ([0.01, 0.99], [0.0, 1.0, math.nan]),
    "strategy.archive": ([0, 1], [-1]),
    "strategy.candidates": ([1], [0]),
    "strategy.mutations": ([0.0, 1.0], [-0.1, 1.1, math.nan]),
    "strategy.screening": (["none"], ["state ", ""]),
    "strategy.value_weight": ([1e-9], [0.0, -1.0, math.nan]),
    "search.epochs": ([1], [0]),
    "search.warmup_epochs": ([0], [-1]),
    "search.shared_steps": ([1, 25, 50], [0, 26]),
    "search.controller_steps": ([1, 25, 50], [0, 99]),
    "search.architectures": ([1], [0]),
    "search.chunk": ([1, 50, 200], [0, 30]),
    "search.valid_architectures": ([1], [0]),
    "search.checkpoint_epochs": ([1], [0]),
    "search.checkpoint_minutes": ([0.0, 5.0], [-1.0, math.nan]),
    "search.keep": ([1], [0]),
    "search.on_nonfinite": (["stop", "skip"], ["ignore"]),
    "evaluation.architectures": ([3], [2]),
    "evaluation.pairs": ([500, 10**6], [0, 499]),  # with 100 architectures
    "evaluation.examples": ([0], [-1]),
    "training.architecture": (["", "lstm"], []),
    "training.epochs": ([1], [0]),
    "training.learning_rate": ([1e-9], [0.0, math.nan]),
    "training.schedule": (["decay", "cosine"], ["", "linear"]),
    "training.momentum": ([0.0, 0.9], [-0.1, 1.0, math.nan]),
    "training.learning_rate_decay": ([1e-9, 1.0], [0.0, math.nan]),
    "training.decay_start": ([0, 15], []),
    "training.clip": ([1e-9], [0.0, math.nan]),
    "training.weight_decay": ([0.0], [-1e-9, math.nan]),
    "training.patience": ([0], [-1]),
}
WRONG_TYPES = {
    int: [1.0, True, "1", None],
    float: ["1", True, None, [1.0]],
    str: [1, None, ["kjv"]],
}


def fields(cls, prefix=""):
    """Dotted name -> type of every setting."""
    found = {}
    for field in dataclasses.fields(cls):
        name = prefix + field.name
        if not field.init:
            continue
        is_group = dataclasses.is_dataclass(field.type)
        found |= fields(field.type, name + ".") if is_group else {name: field.type}
    return found


def parts(config):
    """Group -> the dataclass that reads it."""
    task = tasks.build(config)
    found = {group: getattr(task, group) for group in ("space", "data", "network")}
    found["policy"] = chosen(POLICIES, config.policy, "policy")[1]
    found["strategy"] = chosen(STRATEGIES, config.strategy, "strategy")[1]
    return found


FIELDS = {
    name: kind for name, kind in fields(Config).items() if name not in (*configs.OPEN, "task")
}
for _group, _part in parts(BASE).items():
    FIELDS |= fields(type(_part), f"{_group}.")


def one(name, value):
    """The nested dictionary that sets one field: search.chunk, 2 -> {"search": {"chunk": 2}}."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def read(config, name):
    """The value of a field, as the class that reads its group has it."""
    group, *rest = name.split(".")
    value = parts(config)[group] if group in configs.OPEN else getattr(config, group)
    for part in rest:
        value = getattr(value, part)
    return value


def refused(values):
    with pytest.raises(UserError) as error:
        parts(override(BASE, values))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_setting_has_limits_here():
    assert set(LIMITS) == set(FIELDS)
    assert set(FIELDS.values()) == set(WRONG_TYPES)


# What is taken.


def test_round_trip():
    assert from_dict(dataclasses.asdict(BASE)) == BASE
    memory = {"source": "uniform", "lag": 3}
    changes = {"seed": 5, "strategy": {"supervised_weight": 2.0, "memory": memory}}
    other = override(BASE, changes)
    assert from_dict(dataclasses.asdict(other)) == other != BASE
    assert from_dict(ml_collections.ConfigDict(dataclasses.asdict(other))) == other  # as from flags
    assert override(other, {"seed": 0, "strategy": BASE.strategy}) == BASE


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (good, _) in LIMITS.items() for value in good]
)
def test_a_field_is_set_and_no_other(name, value):
    config = override(BASE, one(name, value))
    assert read(config, name) == value and type(read(config, name)) is FIELDS[name]
    ours, theirs = (fields_of(c) for c in (config, BASE))
    assert {n for n in ours if ours[n] != theirs[n]} <= {name}


def fields_of(config):
    return {name: read(config, name) for name in FIELDS}


def test_whole_numbers_are_taken_for_floats():
    for name in ("training.clip", "strategy.supervised_weight"):
        assert repr(read(override(BASE, one(name, 1)), name)) == "1.0"


def test_configurations_are_values():
    again = from_dict(get_config().to_dict())
    assert again == BASE and hash(again) == hash(BASE)
    assert hash(override(BASE, {"strategy": {"supervised_weight": 2.0}})) != hash(BASE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.seed = 1


def test_another_policy_brings_its_settings_and_keeps_those_that_it_shares():
    base = BASE.policy | {"temperature": 3.0}
    factorised = choose(POLICIES, base, "factorised", "policy")
    assert factorised == {"name": "factorised", "temperature": 3.0, "tanh_constant": 2.5}
    assert choose(POLICIES, base, "uniform", "policy") == {"name": "uniform"}
    assert choose(POLICIES, factorised, "lstm", "policy") == base
    evolution = choose(STRATEGIES, BASE.strategy, "evolution", "strategy")
    assert evolution == {
        "name": "evolution",
        "population": 100,
        "tournament": 25,
        "archive": 0,
        "candidates": 8,
    }


# What is refused.


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, bad) in LIMITS.items() for value in bad]
)
def test_out_of_range(name, value):
    told = refused(one(name, value))
    # Steps have to be a multiple of the chunk: a bad chunk is told of the steps.
    named = name if (name, value) != ("search.chunk", 30) else "search.shared_steps"
    assert told.startswith(f"config field {named}: must be ")
    assert told.endswith(f"got {value!r}") or named != name


def test_a_setting_that_depends_on_another():
    told = refused({"strategy": {"memory": {"capacity": 10, "refresh_size": 11}}})
    assert told == "config field strategy.memory.refresh_size: must be at most the capacity, got 11"
    told = refused({"strategy": {"memory": {"source": "best"}, "archive": 999}})
    wanted = "must be at least memory.capacity = 1000 with memory.source=best, got 999"
    assert told == f"config field strategy.archive: {wanted}"
    told = refused({"strategy": {"screening": "one_hot"}})
    wanted = "must be positive with screening=one_hot, got 0"
    assert told == f"config field strategy.archive: {wanted}"
    told = refused({"search": {"chunk": 40, "shared_steps": 100}})
    wanted = "must be a multiple of search.chunk = 40, got 100"
    assert told == f"config field search.shared_steps: {wanted}"
    # Fewer steps than a chunk are one chunk.
    plan = {"chunk": 40, "shared_steps": 7, "controller_steps": 80}
    assert override(BASE, {"search": plan}).search.shared_steps == 7


@pytest.mark.parametrize("name", FIELDS)
def test_wrong_type(name):
    for value in WRONG_TYPES[FIELDS[name]]:
        told = refused(one(name, value))
        wanted = f"must be of type {FIELDS[name].__name__}, got {value!r}"
        assert told == f"config field {name}: {wanted}"


@pytest.mark.parametrize(
    "name",
    ["node", "strategy.lambda", "strategy.Clip", "strategy.memory.memory", "search.search.epochs"],
)
def test_unknown_field(name):
    depth = 3 if "memory" in name else 2
    known = ".".join(name.split(".")[:depth])
    assert refused(one(name, 1)).startswith(f"config field {known}: unknown; ")


def test_an_unknown_field_is_told_what_there_is():
    told = refused({"strategy": {"lambda": 1.0}})
    kind = STRATEGIES["reinforce"].settings
    assert all(field.name in told for field in dataclasses.fields(kind))


@pytest.mark.parametrize("group", ["space", "network", "strategy"])
def test_an_open_group_states_every_field(group):
    values = dataclasses.asdict(BASE)
    name = list(values[group])[-1]
    del values[group][name]
    with pytest.raises(UserError, match=f"config field {group}.{name}: missing; a configuration "):
        parts(from_dict(values))


@pytest.mark.parametrize("group", ["policy", "strategy"])
@pytest.mark.parametrize("name", ["gru", "LSTM", "", 3])
def test_an_unknown_policy_or_strategy(group, name):
    told = refused({group: {"name": name}})
    assert told.startswith(f"config field {group}.name: must be one of ")
    assert told.endswith(f", got {name!r}")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("recurent", "must be one of recurrent, macro, micro, or module:attribute; got 'recurent'"),
        ("no_such_module:TASK", "No module named 'no_such_module'"),
        ("nas.tasks:TASK", "has no attribute 'TASK'"),
        ("nas.tasks:TASKS", "must be nas.tasks.Parts, got dict"),
    ],
)
def test_an_unknown_task(task, reason):
    told = refused({"task": task})
    assert told.startswith("config field task: ") and reason in told


@pytest.mark.parametrize("value", [3, "x", None, [1]])
@pytest.mark.parametrize("group", ["search", "data"])
def test_a_group_that_is_none(group, value):
    told = refused({group: value})
    assert told == f"config field {group}: must be a group of fields, got {value!r}"


def test_a_configuration_of_the_old_shape():
    with pytest.raises(UserError, match="a version that had no tasks: start a new run"):
        from_dict({"nodes": 12, "supernet": {"width": 96}})


# What differs.


def test_difference_lists_the_fields_that_differ():
    theirs = override(BASE, {"space": {"num_nodes": 4}, "strategy": {"supervised_weight": 2.5}})
    theirs = dataclasses.replace(theirs, policy=choose(POLICIES, {}, "uniform", "policy"))
    assert difference(BASE, BASE) == []
    assert difference(BASE, theirs) == [
        "space.num_nodes: 12 -> 4",
        "policy.init_scale: 0.1 -> 'absent'",
        "policy.name: 'lstm' -> 'uniform'",
        "policy.tanh_constant: 2.5 -> 'absent'",
        "policy.temperature: 5.0 -> 'absent'",
        "policy.width: 100 -> 'absent'",
        "strategy.supervised_weight: 0.0 -> 2.5",
    ]
    assert difference(theirs, BASE)[0] == "space.num_nodes: 4 -> 12"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("search", {"epochs": 10_000_000_000}),
        ("strategy", {"memory": {"refresh_period": 10_000_000_000}}),
        ("search", {"keep": 10**400}),
        ("network", {"learning_rate": math.inf}),
        ("network", {"learning_rate": -math.inf}),
        ("policy", {"temperature": math.nan}),
        ("network", {"clip": 10**400}),
    ],
)
def test_numbers_that_no_program_computes_with(field, value):
    told = refused({field: value})
    assert f"{field}." in told and "must be finite, and below 2**31 if it is a whole" in told
