"""The registry of arms: each is a search that can start, and differs from plain policy gradient in
what its name says.
"""

import dataclasses

import pytest

from experiments.arms import ARMS
from nas import config as configs
from nas import steps
from tests.helpers import tiny

BASE = tiny(strategy={"supervised_weight": 0.5})
GROUPS = {"strategy", "policy"}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_is_a_search_that_can_start(name):
    config = ARMS[name].configure(BASE, 7)
    steps.components(config)
    assert config.seed == 7 and set(ARMS[name].settings) <= GROUPS
    for group in {field.name for field in dataclasses.fields(config)} - GROUPS - {"seed"}:
        assert getattr(config, group) == getattr(BASE, group)


def test_titles_and_settings_are_all_different():
    made = [ARMS[name].configure(BASE, 0) for name in ARMS]
    assert len({arm.title for arm in ARMS.values()}) == len(ARMS) == len(set(made))


def test_whether_an_arm_uses_the_memory_does_not_depend_on_the_base():
    """What the base asks for is what the arms are about."""
    for base in (BASE, tiny(strategy={"supervised_weight": 0.0})):
        used = {
            name for name in ARMS if ARMS[name].configure(base, 0).strategy["supervised_weight"] > 0
        }
        assert used == set(ARMS) - {"pg", "factorised", "uniform", "entropy"}


def test_the_papers_two_arms_differ_in_lambda_alone():
    told = configs.difference(ARMS["pg"].configure(BASE, 0), ARMS["memory"].configure(BASE, 0))
    assert [line.split(":")[0] for line in told] == ["strategy.supervised_weight"]
