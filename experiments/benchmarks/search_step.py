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

import jax
import jax.numpy as jnp
from absl import flags

from experiments.benchmarks import files, operations, page
from experiments.benchmarks.operations import DTYPE, PRECISION
from experiments.benchmarks.products import (
    Point,
    bare_products,
    large_product,
    products,
    used_products,
)
from launch import common, device
from launch.paths import define_path
from nas.errors import UserError
from nas.progress import each

flags.DEFINE_list("widths", "64,200", "Hidden widths of the grid.")
flags.DEFINE_list("nodes", "8,12", "Nodes of the cell.")
flags.DEFINE_list("batches", "64", "Rows of tokens.")
flags.DEFINE_list("vocabularies", "10000", "Types.")
flags.DEFINE_list("architectures", "1,8", "Architectures whose rewards are computed in one call.")
flags.DEFINE_list(
    "matmul",
    "",
    "Any of float32, tf32 (accelerators only) and bfloat16. Empty: all that the device supports.",
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

LARGE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # side of the large product


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
        step = operations.shared_step(point, matmul, chunk=FLAGS.chunk)
        jax.block_until_ready(step.call())
        resident = files.peak_memory()
        plain = operations.shared_step(point, matmul, chunk=FLAGS.chunk, deferred=False)
        timed = {
            "step": step,
            "plain step": plain,
            "forward": operations.forward(point, matmul),
        }
        timed |= {
            f"reward of {count}": operations.rewards(
                point, matmul, count, together=FLAGS.reward_chunk
            )
            for count in architectures
        }
        bare = bare_products(point, DTYPE[matmul])
        largest = {"large": large_product(large, DTYPE[matmul])}
    with jax.default_matmul_precision("float32"):
        largest["large float32"] = large_product(large, jnp.float32)
    seconds = files.interleaved(
        {name: operation.call for name, operation in timed.items()} | bare | largest,
        FLAGS.repeats,
    )
    seconds |= {name: seconds[name] / operation.count for name, operation in timed.items()}
    rates = {name: 2 * large**3 / seconds[name] for name in largest}
    shapes, every = point._asdict() | {"matmul": matmul}, products(point)
    rows = []
    for name, operation in timed.items():
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
    """The shared step in float32 as each of the four sizes is doubled, twice; all points take
    turns.
    """
    points = {("base", 1): base}
    for axis in ("width", "nodes", "batch", "vocabulary"):
        for factor in (2, 4):
            points[axis, factor] = base._replace(**{axis: factor * getattr(base, axis)})
    compiling = each("growth: compile", points.items(), unit="point")
    timed = {
        key: operations.shared_step(point, "float32", chunk=FLAGS.chunk) for key, point in compiling
    }
    seconds = files.interleaved(
        {key: operation.call for key, operation in timed.items()}, FLAGS.repeats
    )
    seconds = {key: seconds[key] / operation.count for key, operation in timed.items()}
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


if __name__ == "__main__":
    common.run(main)
