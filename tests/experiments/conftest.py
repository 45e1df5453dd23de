"""What tests of the study on NAS-Bench-201 share."""

import functools

import pytest


@pytest.fixture(scope="module")
def small_arms():
    """Arms with a small policy on one device, the functions of each compiled once for a file."""
    from experiments.nasbench201 import seeds, settings
    from nas import config as configs

    configure, program = settings.configure, functools.cache(seeds.program)

    def small(name, size):
        config = configure(name, size)
        return (
            configs.override(config, {"policy": {"width": 8}})
            if "width" in config.policy
            else config
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "configure", small)
        patch.setattr(seeds, "components", functools.cache(seeds.components))
        patch.setattr(seeds, "program", lambda config, parts: program(config, parts, devices=1))
        yield
