"""What tests of studies on tables share."""

import functools

import pytest


@pytest.fixture
def cells(tmp_path):
    """A file of all cells of 3 nodes; their bits are random, those of two seeds alike."""
    import numpy as np

    from nas.data import cell_table
    from nas.spaces.recurrent import RecurrentSpace

    decisions = cell_table.canonical_cells(RecurrentSpace(num_nodes=3))
    rng = np.random.default_rng(0)
    level = rng.uniform(2, 2.3, (len(decisions), 1))
    bits = {
        measure: level + rng.uniform(0, 0.02, (len(decisions), 2))
        for measure in cell_table.MEASURES
    }
    table = cell_table.CellTable(3, (0, 1), {}, decisions, bits)
    return cell_table.write_cells(table, tmp_path / "cells.csv.gz")


@pytest.fixture(scope="module")
def small_arms():
    """Arms with a small policy on one device, the functions of each compiled once for a file."""
    from experiments.tabular import seeds, settings
    from nas import config as configs

    configure, program = settings.configure, functools.cache(seeds.program)

    def small(name, size, space):
        config = configure(name, size, space)
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
