"""How exactly accelerators multiply: what every product of a search asks for.

Processors multiply in full whatever is asked, so that the traced programs are read instead.
"""

import dataclasses

import jax
import numpy as np
import pytest
from jax.lax import Precision

from launch.configs import kjv_quick, mnist_macro, mnist_micro
from nas import config as configs
from nas import steps
from nas.data.images import Images
from nas.data.tokens import Tokens

PRESETS = {"text": kjv_quick, "macro": mnist_macro, "micro": mnist_micro}
ASKED = {"float32": Precision.HIGHEST, "tf32": Precision.HIGH}


def precisions(jaxpr):
    """Of every product in a program and in those that it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield from np.ravel(equation.params["precision"] or [None])
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda of: hasattr(of, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from precisions(inner)


@pytest.mark.parametrize("precision", ASKED)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_product_asks_for_the_precision_of_the_configuration(preset, precision):
    config = configs.from_dict(PRESETS[preset].get_config().to_dict())
    config = dataclasses.replace(config, precision=precision)
    parts = steps.components(config)
    first = jax.eval_shape(lambda: steps.initial_checkpoint(config, parts))
    data = parts.task.data
    found = []
    for make, rows in ((steps.shared_chunk, data.batch), (steps.controller_chunk, data.eval_batch)):
        batch = example(parts.task, rows)
        common = np.arange(2, dtype=np.int32), np.int32(0)
        chunk = make(config, parts)
        traced = jax.make_jaxpr(lambda s, c, b, k, chunk=chunk: chunk(s, c, b, k, None))(
            first["search"], first["carry"], batch, common
        )
        found += precisions(traced.jaxpr)
    assert len(found) > 10
    assert set(found) == {ASKED[precision]}


def example(task, rows):
    """The shapes of two stacked batches of B rows."""
    data = task.data
    if hasattr(data, "vocabulary"):
        return Tokens(
            jax.ShapeDtypeStruct((2, rows, data.steps + 1), np.int32),
            jax.ShapeDtypeStruct((2, rows), np.bool_),
        )
    return Images(
        jax.ShapeDtypeStruct((2, rows, data.size, data.size, data.channels), np.uint8),
        jax.ShapeDtypeStruct((2, rows), np.int32),
    )
