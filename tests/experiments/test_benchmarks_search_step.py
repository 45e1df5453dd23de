"""The benchmark of shared steps: its arithmetic by hand and against what is traced, and one run of
the whole driver.
"""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import files
from experiments.benchmarks.products import Point, bare_products, products, used_products
from nas.data.tokens import Tokens
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import native_loop
from nas.supernets.recurrent.language_model import supernet_reward
from nas.supernets.recurrent.settings import LanguageModelSettings
from tests.forked import run_forked
from tests.helpers import assert_one_line

POINT = Point(width=2, nodes=3, batch=4, vocabulary=5, steps=6)  # 24 rows, 18 products of nodes


def flops_of_products(jaxpr) -> int:
    """Twice the multiplications of all matrix products of traced code, those in loops as often as
    they run.
    """
    total = 0
    for equation in jaxpr.eqns:
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += (
                2
                * int(np.prod(equation.outvars[0].aval.shape))
                * int(np.prod([left[axis] for axis in contracted]))
            )
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if isinstance(inner, jax.extend.core.Jaxpr):
                total += times * flops_of_products(inner)
    return total


def flops(operation, point):
    return sum(
        count * products(point)[name].flops for name, count in used_products(operation).items()
    )


def test_arithmetic_by_hand():
    assert {name: product.flops for name, product in products(POINT).items()} == {
        "input": 2 * 24 * 2 * 4,
        "nodes": 18 * 2 * 4 * 2 * 4,
        "softmax": 2 * 24 * 2 * 5,
        "softmax, gradient of states": 2 * 24 * 2 * 5,
        "softmax, gradient of embedding": 2 * 24 * 2 * 5,
        "nodes, gradient of states": 18 * 2 * 4 * 2 * 4,
        "nodes, gradient of weights": 3 * 2 * 24 * 2 * 4,
        "input, gradient of embedding": 2 * 24 * 2 * 4,
        "input, gradient of weights": 2 * 24 * 2 * 4,
    }
    assert flops("step", POINT) == flops("plain step", POINT) == 3 * (384 + 1152 + 480)
    assert flops("forward", POINT) == flops("reward of 1", POINT) == 384 + 1152 + 480
    assert flops("reward of 8", POINT) == 384 + 8 * (1152 + 480)


@pytest.mark.parametrize("architectures", [1, 3])
def test_arithmetic_is_that_of_the_traced_code(architectures, monkeypatch):
    monkeypatch.setattr(
        native_loop, "available", lambda dtype: False
    )  # what it computes is not traced
    point = Point(width=40, nodes=4, batch=3, vocabulary=70, steps=5)
    space = RecurrentSpace(num_nodes=point.nodes)
    source = supernet_reward(space, LanguageModelSettings(width=point.width), point.vocabulary)
    state = jax.eval_shape(source.init, jax.random.key(0))
    batch = Tokens(np.zeros((point.batch, point.steps + 1), np.int32), np.zeros(point.batch, bool))
    decisions = np.zeros((architectures, space.num_decisions), np.int32)
    score = jax.make_jaxpr(source.score)(state, decisions, batch)
    train = jax.make_jaxpr(source.train)(
        state,
        np.zeros((point.batch, point.width), np.float32),
        decisions[0],
        batch,
        jax.random.key(0),
        np.int32(0),
    )
    # What is not one of the products is small: sums over nodes may be traced as products with their
    # weights.
    expected = flops(f"reward of {architectures}", point)
    assert expected <= flops_of_products(score.jaxpr) < 1.02 * expected
    assert flops("step", point) <= flops_of_products(train.jaxpr) < 1.02 * flops("step", point)


def test_bare_products_make_every_product_once():
    calls = bare_products(POINT, jnp.float32)
    assert list(calls) == list(products(POINT)) == list(used_products("step"))
    for name, call in calls.items():
        for leaf in jax.tree.leaves(call()):
            assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all(), name


def test_calls_take_turns():
    made = []
    seconds = files.interleaved({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, 2)
    assert made == ["a", "b"] * 3  # one round before is not timed
    assert {name: column.shape for name, column in seconds.items()} == {"a": (2,), "b": (2,)}
    assert all((column > 0).all() for column in seconds.values())


def test_peak_memory_sees_what_was_held():
    files.reset_peak_memory()
    before = files.peak_memory()
    held = np.ones(10**8, np.uint8)
    assert files.peak_memory() - before > 9e7
    del held


@pytest.mark.slow
def test_driver_writes_tables_results_and_page(tmp_path, user_environment):
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarks.search_step",
        "--widths=8",
        "--nodes=3",
        "--batches=2",
    ]
    command += [
        "--vocabularies=20",
        "--steps=3",
        "--repeats=2",
        "--growth=",
        "--architectures=2",
        f"--out={tmp_path}",
    ]
    command += ["--matmul=float32"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=user_environment)
    results = json.loads((tmp_path / "search_step.json").read_text())
    assert [row["operation"] for row in results["operations"]] == [
        "step",
        "plain step",
        "forward",
        "reward of 2",
    ]
    point = Point(8, 3, 2, 20, 3)
    for row in results["operations"]:
        assert (
            row["flops"] == flops(row["operation"], point)
            and row["xla_bytes"] > 0
            and row["compile_seconds"] > 0
        )
        assert row["to_bare"][0] <= row["to_bare"][1] <= row["to_bare"][2]
    assert results["operations"][0]["resident_bytes"] > results["operations"][0]["xla_bytes"]
    assert (
        len(results["environment"]["load"]) == 3
        and results["environment"]["jax"] == jax.__version__
    )
    assert (
        "Shared steps and rewards" in run.stdout and "plain automatic differentiation" in run.stdout
    )
    assert "Bare products" in (tmp_path / "performance.html").read_text()


@pytest.mark.parametrize(
    ("flag", "part"),
    [("--widths=8,x", "--widths"), ("--matmul=int8", "int8"), ("--growth=1,2", "--growth")],
)
def test_bad_flags_end_in_one_line(flag, part, user_environment):
    assert_one_line(run_forked(user_environment, "experiments.benchmarks.search_step", flag), part)
