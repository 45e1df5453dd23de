"""Settings: checked at the door, every error names its field."""

import dataclasses

import pytest

from nas import config
from nas.config import Config
from nas.errors import UserError


def test_round_trip():
    values = dataclasses.asdict(Config(seed=3))
    assert config.from_dict(values) == Config(seed=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, "sed: unknown"),
        ({"data": {"rows": 1}}, "data.rows: unknown"),
        ({"data": 3}, "data: must be a group"),
        ({"seed": 1.5}, "seed: must be of type int, got 1.5"),
        ({"supernet": {"clip": "x"}}, "supernet.clip: must be of type float"),
        ({"memory": {"refresh_size": 2000}}, "memory.refresh_size: must be at most memory.capacity"),
        ({"search": {"chunk": 30}}, "search.shared_steps: must be a multiple"),
        ({"policy": {"name": "gru"}}, "policy.name: must be one of lstm"),
    ],
)
def test_errors_name_the_field(values, message):
    with pytest.raises(UserError, match=message):
        config.from_dict(values)


def test_whole_numbers_are_numbers():
    assert config.from_dict({"supernet": {"clip": 1}}).supernet.clip == 1.0


def test_difference_lists_fields():
    other = config.from_dict({"seed": 2, "policy": {"width": 7}})
    assert config.difference(Config(), other) == ["seed: 0 -> 2", "policy.width: 100 -> 7"]
