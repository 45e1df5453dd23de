"""The sensitivity study: variants are what their names say, tables hold what was measured, and
pieces are kept.
"""

import dataclasses

import numpy as np
import pytest

from experiments.tabular import seeds, sensitivity, settings, variants
from nas import config as configs
from nas.data import table as tables
from nas.data.table import SPACE

SIZE = settings.Size(seeds=2, updates=4, data_sets=(), epoch=2)


@pytest.mark.parametrize("arm", [variants.RECONSTRUCT, variants.NEXT])
def test_a_variant_changes_what_it_says_and_no_two_are_alike(arm):
    every = [variant for variant in variants.one_at_a_time() if arm in variant.arms]
    base, *others = [
        (variants.configure(arm, variant, SIZE, SPACE), *variant[3:]) for variant in every
    ]
    assert base[0] == settings.configure(arm, SIZE, SPACE)
    assert len(set(others)) == len(others) and base not in others
    for variant, (config, *rest) in zip(every[1:], others, strict=True):
        changed = configs.difference(base[0], config)
        assert len(changed) <= 2 and bool(changed) == (tuple(rest) == base[1:])
        if variant.value.replace(".", "").isdigit():
            assert {float(line.rpartition("-> ")[2]) for line in changed} == {float(variant.value)}


def test_a_variant_is_measured_once(small_arms, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OWN_SAMPLES", 12)
    bench = variants.Bench(tables.synthetic_table(0, 0.5), SIZE, tmp_path)
    base, tanh_off = variants.Variant("base", ""), variants.Variant("tanh", "off", tanh=False)
    found, flat = bench.measure(variants.NEXT, base), bench.measure(variants.NEXT, tanh_off)
    assert all(values.shape == (2,) for values in found.values())
    # After four updates a policy is nearly uniform: of six decisions of five choices. Without the
    # constant it is nearer still.
    limit = 6 * np.log(5)
    assert np.all(
        (found[variants.ENTROPY] < flat[variants.ENTROPY]) & (flat[variants.ENTROPY] < limit)
    )
    np.testing.assert_allclose(found[variants.ENTROPY], limit, atol=0.05)
    np.testing.assert_allclose(found[variants.CONDITIONING], 0, atol=0.01)
    monkeypatch.setattr(seeds, "run", None)
    again = bench.measure(variants.NEXT, base)
    assert all(np.array_equal(again[name], found[name]) for name in found)
    with pytest.raises(TypeError):  # another number of seeds is another piece
        bench._replace(size=dataclasses.replace(SIZE, seeds=3)).measure(variants.NEXT, base)


def test_tables_and_figures():
    names = (variants.UNIFORM, variants.OWN, variants.CONDITIONING, variants.ENTROPY)
    numbers = dict.fromkeys(names, np.array([0.25, 0.75]))
    measured = {("base", "", arm): numbers for arm in (variants.RECONSTRUCT, variants.NEXT)}
    measured[variants.DOUBLE_SOFTMAX, "on", variants.NEXT] = numbers
    (base, double) = sensitivity.variants_table(measured, "the command").cells()
    # Deviation .3536, and 12.706 times .3536 / sqrt(2).
    assert [cell.text for cell in base][2:4] == ["+0.500 ± 3.177"] * 2
    assert [cell.text for cell in double][2:] == ["-", "-", "-", "0.500 ± 3.177", "0.50 ± 3.18"]
    phase = {
        (size, period): {**numbers, variants.ENTROPY: np.array([period, size])}
        for size in variants.SIZES
        for period in variants.PERIODS
    }
    row = [cell.text for cell in sensitivity.phase_table(phase, "").cells()[1]]
    assert row == ["100", "0.50 (50.5)", "0.50 (51.0)", "0.50 (52.5)", "0.50 (50.0)"]
    assert len(sensitivity.variants_figure(measured).axes) == 3
    written = {text.get_text() for ax in sensitivity.phase_figure(phase).axes for text in ax.texts}
    assert {"0.50", "50.50", "51.00", "52.50", "50.00"} <= written
