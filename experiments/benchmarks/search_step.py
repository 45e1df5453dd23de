"""How near do shared steps and rewards come to the matrix products that they consist of?

For every point of a grid: the time of a shared step as a search runs it (dropout, clipping, SGD,
several to a compiled call, donated state), of its forward pass and of the rewards of several
architectures, beside the bare products of the same shapes and the time that the same arithmetic
takes at the rate of one large product. All take turns in one process; ratios are medians over
repetitions. Then how a step grows when its width, nodes, batch or vocabulary are doubled. Prints
tables, writes search_step.json and performance.html. The defaults take several minutes on two
cores.
"""

import itertools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.benchmarks import files, page
from experiments.benchmarks.products import (
    Point,
    bare_products,
    large_product,
    products,
    used_products,
)
from launch import common, device
from launch.paths import define_path
from nas.data.tokens import Tokens
from nas.errors import UserError
from nas.parallel import Devices
from nas.progress import each
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import shared
from nas.supernets.recurrent.language_model import supernet_reward
from nas.supernets.recurrent.settings import LanguageModelSettings

flags.DEFINE_list("widths", "64,200", "Hidden widths of the grid.")
flags.DEFINE_list("nodes", "8,12", "Nodes of the cell.")
flags.DEFINE_list("batches", "64", "Rows of tokens.")
flags.DEFINE_list("vocabularies", "10000", "Types.")
flags.DEFINE_list("architectures", "1,8", "Architectures whose rewards are computed in one call.")
flags.DEFINE_list(
    "matmul", "", "Of float32, tf32 (accelerators) and bfloat16. Empty: all that the device has."
)
flags.DEFINE_integer("steps", 35, "Tokens a row.", lower_bound=1)
flags.DEFINE_integer("chunk", 10, "Shared steps in one call.", lower_bound=1)
flags.DEFINE_integer(
    "reward_chunk", 1, "Architectures that an accelerator scores as one batch.", lower_bound=1
)
flags.DEFINE_integer("repeats", 7, "Timed repetitions.", lower_bound=1)
flags.DEFINE_list(
    "growth",
    "100,6,32,5000",
    "Width, nodes, batch and vocabulary to be doubled, twice each. Empty: none.",
)
flags.DEFINE_enum(
    "platform", "", ("", *device.PLATFORMS), "Device to compute on. Empty: the best there is."
)
define_path("out", "Folder for the results.", default="runs/benchmarks")
FLAGS = flags.FLAGS

PRECISION = {
    "float32": "float32",
    "tf32": "tensorfloat32",
    "bfloat16": "float32",
}  # of products of float32 operands
DTYPE = {"float32": jnp.float32, "tf32": jnp.float32, "bfloat16": jnp.bfloat16}  # of operands
LARGE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # side of the large product


class Operation(NamedTuple):
    """What is timed."""

    call: Callable[[], Any]
    count: int  # of what is timed in one call
    compile_seconds: float
    bytes: int  # arguments, results and temporary arrays, as XLA plans them


def main():
    axes = [_numbers(name) for name in ("widths", "nodes", "batches", "vocabularies")]
    architectures, base = _numbers("architectures"), _numbers("growth")
    if len(base) not in (0, 4):
        raise UserError(
            "--growth: must be width,nodes,batch,vocabulary or empty, got "
            f"{','.join(FLAGS.growth)!r}"
        )
    platform = device.select_device(FLAGS.platform)[0].platform
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    available = [name for name in PRECISION if name != "tf32" or platform != "cpu"]
    if unknown := [name for name in FLAGS.matmul if name not in available]:
        raise UserError(
            f"--matmul: must be of {', '.join(available)} on this device, got {unknown[0]!r}"
        )
    environment = files.environment()
    cases = [
        (Point(*x, FLAGS.steps), matmul)
        for x in itertools.product(*axes)
        for matmul in FLAGS.matmul or available
    ]
    measured = [
        measure(*case, architectures, LARGE[platform]) for case in each("grid", cases, unit="point")
    ]
    results = {
        "environment": environment,
        "operations": [row for operations, _ in measured for row in operations],
        "products": [row for _, parts in measured for row in parts],
        "growth": measure_growth(Point(*base, FLAGS.steps)) if base else [],
        "load_after": os.getloadavg(),
    }
    out = pathlib.Path(FLAGS.out)
    path = files.write(out, files.SEARCH_STEP, results)
    for table in page.step_tables(results):
        print(table.text())
    print(f"written: {out / files.SEARCH_STEP}, {path}")


def _numbers(name: str) -> list[int]:
    values = FLAGS[name].value
    if not all(value.isdigit() and int(value) for value in values):
        raise UserError(
            f"--{name}: must be positive whole numbers separated by commas, got "
            f"{','.join(values)!r}"
        )
    return [int(value) for value in values]


def measure(
    point: Point, matmul: str, architectures: list[int], large: int
) -> tuple[list[dict], list[dict]]:
    """Rows of the operations, and of the products, at one point."""
    with jax.default_matmul_precision(PRECISION[matmul]):
        files.reset_peak_memory()
        operations = {"step": shared_step(point, matmul)}
        jax.block_until_ready(operations["step"].call())
        resident = files.peak_memory()
        operations |= {
            "plain step": shared_step(point, matmul, deferred=False),
            "forward": forward(point, matmul),
        }
        operations |= {
            f"reward of {count}": rewards(point, matmul, count) for count in architectures
        }
        bare = bare_products(point, DTYPE[matmul])
        largest = {"large": large_product(large, DTYPE[matmul])}
    with jax.default_matmul_precision("float32"):
        largest["large float32"] = large_product(large, jnp.float32)
    seconds = files.interleaved(
        {name: operation.call for name, operation in operations.items()} | bare | largest,
        FLAGS.repeats,
    )
    seconds |= {name: seconds[name] / operation.count for name, operation in operations.items()}
    rates = {name: 2 * large**3 / seconds[name] for name in largest}
    shapes, every = point._asdict() | {"matmul": matmul}, products(point)
    rows = []
    for name, operation in operations.items():
        used = used_products(name)
        flops = sum(count * every[part].flops for part, count in used.items())
        bare_seconds = sum(count * seconds[part] for part, count in used.items())
        rows.append(
            shapes
            | {
                "operation": name,
                "flops": flops,
                "seconds": files.quartiles(seconds[name]),
                "bare_seconds": files.quartiles(bare_seconds),
                "to_bare": files.quartiles(seconds[name] / bare_seconds),
                "to_bound": files.quartiles(seconds[name] * rates["large"] / flops),
                "to_float32_bound": files.quartiles(seconds[name] * rates["large float32"] / flops),
                "compile_seconds": operation.compile_seconds,
                "xla_bytes": operation.bytes,
                "resident_bytes": resident if name == "step" else None,
            }
        )
    parts = [
        shapes
        | {
            "product": name,
            "flops": every[name].flops,
            "seconds": files.quartiles(seconds[name]),
            "flops_per_second": files.quartiles(every[name].flops / seconds[name]),
        }
        for name in bare
    ]
    largest_rows = [
        shapes
        | {"product": name, "flops": 2 * large**3, "seconds": files.quartiles(seconds[name])}
        | {"flops_per_second": files.quartiles(rate)}
        for name, rate in rates.items()
    ]
    return rows, parts + largest_rows


def measure_growth(base: Point) -> list[dict]:
    """The shared step in float32 as each of the four sizes is doubled, twice: all points take
    turns.
    """
    points = {("base", 1): base}
    for axis in ("width", "nodes", "batch", "vocabulary"):
        for factor in (2, 4):
            points[axis, factor] = base._replace(**{axis: factor * getattr(base, axis)})
    compiling = each("growth: compile", points.items(), unit="point")
    operations = {key: shared_step(point, "float32") for key, point in compiling}
    seconds = files.interleaved(
        {key: operation.call for key, operation in operations.items()}, FLAGS.repeats
    )
    seconds = {key: seconds[key] / operation.count for key, operation in operations.items()}
    flops = {
        key: sum(product.flops for product in products(point).values())
        for key, point in points.items()
    }
    first = "base", 1
    return [
        point._asdict()
        | {
            "axis": key[0],
            "factor": key[1],
            "seconds": files.quartiles(seconds[key]),
            "time_growth": files.quartiles(seconds[key] / seconds[first]),
            "arithmetic_growth": flops[key] / flops[first],
        }
        for key, point in points.items()
    ]


def shared_step(point: Point, matmul: str, *, deferred: bool = True) -> Operation:
    """Updates of the shared weights, --chunk to a call, each on the next of some architectures."""
    space, source, state, decisions, batch = _setting(point, matmul, deferred)

    def chunk(state, carry, batch, common, axis_name):
        def step(carried, x):
            decisions, seed = x
            *carried, info = source.train(
                *carried, decisions, batch, jax.random.key(seed), jnp.int32(0), axis_name
            )
            return tuple(carried), info

        (state, carry), info = jax.lax.scan(step, (state, carry), common)
        return state, carry, info

    lifted = Devices("jit", 1, 1).lift(chunk)
    held = [state, source.initial_carry(point.batch)]
    first = itertools.count(step=FLAGS.chunk)

    def common_of(number):
        numbers = np.arange(number, number + FLAGS.chunk, dtype=np.uint32)
        return decisions[numbers % len(decisions)], numbers

    compiled, seconds, size = _compile(lifted.compiled, *held, batch, common_of(0))

    def call():
        *held[:], info = compiled(*held, batch, common_of(next(first)))
        return held, info

    return Operation(call, FLAGS.chunk, seconds, size)


def forward(point: Point, matmul: str) -> Operation:
    """The training loss of one architecture, without gradients."""
    space, source, state, decisions, batch = _setting(point, matmul)
    config = _config(point, matmul)

    def loss(params, decisions, tokens, seed):
        cell = shared.read_cell(space, decisions)
        dropout = shared.sample_dropout(config, jax.random.key(seed), point.batch)
        hidden = source.initial_carry(point.batch)
        options = {"max_norm": config.max_norm, "matmul": config.matmul, "dropout": dropout}
        return shared.loss(shared.gather(params, cell), cell, tokens, hidden, **options)

    arguments = state.params, decisions[0], batch.tokens, np.uint32(0)
    compiled, seconds, size = _compile(jax.jit(loss), *arguments)
    return Operation(lambda: compiled(*arguments), 1, seconds, size)


def rewards(point: Point, matmul: str, architectures: int) -> Operation:
    """The rewards of A architectures on one window."""
    _, source, state, decisions, batch = _setting(point, matmul, architectures=architectures)
    compiled, seconds, size = _compile(jax.jit(source.score), state, decisions, batch)
    return Operation(lambda: compiled(state, decisions, batch), 1, seconds, size)


def _config(point, matmul):
    dropout = {"dropout_input": 0.2, "dropout_hidden": 0.2, "dropout_output": 0.2}
    return LanguageModelSettings(
        width=point.width,
        init_scale=point.width**-0.5,
        reward_chunk=FLAGS.reward_chunk,
        matmul="bfloat16" if matmul == "bfloat16" else "float32",
        **dropout,
    )


def _setting(point, matmul, deferred=True, architectures=16):
    """Space, reward, first state, random decisions [A, T] and a window of random tokens."""
    space = RecurrentSpace(num_nodes=point.nodes)
    source = supernet_reward(space, _config(point, matmul), point.vocabulary, deferred=deferred)
    rng = np.random.default_rng(0)
    decisions = rng.integers(
        space.num_choices, size=(architectures, space.num_decisions), dtype=np.int32
    )
    tokens = rng.integers(point.vocabulary, size=(point.batch, point.steps + 1), dtype=np.int32)
    return (
        space,
        source,
        jax.jit(source.init)(jax.random.key(0)),
        decisions,
        Tokens(tokens, np.zeros(len(tokens), bool)),
    )


def _compile(jitted, *arguments):
    """The compiled function, the seconds that took, and the bytes it needs at most."""
    start = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return compiled, seconds, size - memory.alias_size_in_bytes


if __name__ == "__main__":
    common.run(main)
