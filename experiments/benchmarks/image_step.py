"""How near does a step of the image networks come to the multiply-adds of the chosen operations?

The bound: those multiply-adds, three times for a step, at the rate of one large convolution,
forward, in the same run. Our C++ is timed beside what XLA compiles and, if PyTorch is installed,
beside the same network in it, run operation by operation. All take turns in one process on steps of
the same random architectures; times are medians. Prints a table, writes image_step.json.
"""

import json
import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.benchmarks import files, operations
from launch import common, device
from launch.paths import define_path
from nas.data.images import Images
from nas.errors import UserError
from nas.files import write_atomic
from nas.report.tables import Column, Empty, Row, Table
from nas.spaces.macro import MacroSpace
from nas.spaces.micro import MicroSpace
from nas.supernets.images import native_networks
from nas.supernets.images.augmentation import standardise
from nas.supernets.images.classifier import supernet_reward
from nas.supernets.images.macro import MacroNetwork
from nas.supernets.images.micro import MicroNetwork
from nas.supernets.images.wiring import ImageShape, dropout_mask

flags.DEFINE_list(
    "cases",
    "macro-6-16-14,macro-12-16-14,micro-3-16-14,macro-12-36-32",
    "network-layers-channels-size; layers of a micro network are its normal cells.",
)
flags.DEFINE_integer("batch", 64, "Images.", lower_bound=1)
flags.DEFINE_integer("chunk", 8, "Steps in one call.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Timed repetitions.", lower_bound=1)
flags.DEFINE_enum(
    "platform", "", ("", *device.PLATFORMS), "Device to compute on. Empty: the best there is."
)
define_path("out", "Folder for the results.", default="runs/benchmarks")
FLAGS = flags.FLAGS

_COLORS, _CLASSES = 3, 10
_SETTINGS = {
    "learning_rate": 0.01,
    "learning_rate_min": 0.0,
    "cosine_epochs": 10,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "clip": 5.0,
    "dropout": 0.0,
    "crop": 0,
    "flip": False,
    "cutout": 0,
}


class Case(NamedTuple):
    """A network to be timed."""

    name: str
    layers: int
    channels: int
    size: int


def main():
    cases = [_case(text) for text in FLAGS.cases]
    device.select_device(FLAGS.platform)
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    results = {"environment": files.environment(), "cases": [measure(case) for case in cases]}
    out = pathlib.Path(FLAGS.out) / "image_step.json"
    write_atomic(out, json.dumps(results, indent=2) + "\n")
    print(table(results).text())
    print(f"written: {out}")


def measure(case: Case) -> dict:
    """Milliseconds a step of every form, and the bound."""
    space, network, wiring = wiring_of(case)
    decisions = np.asarray(space.sample_uniform(jax.random.key(0), FLAGS.chunk))
    rng = np.random.default_rng(0)
    shape = (FLAGS.chunk, FLAGS.batch, case.size, case.size, _COLORS)
    batch = Images(
        rng.integers(0, 256, shape).astype(np.uint8),
        rng.integers(0, _CLASSES, shape[:2]).astype(np.int32),
    )
    calls, compiling, traced = {}, {}, native_networks.available
    for form in ("C++", "XLA"):
        if form == "C++" and not traced("float32"):
            continue
        native_networks.available = lambda dtype, form=form: form == "C++"
        steps = operations.image_steps(supernet_reward(wiring, network), decisions, batch)
        calls[form], compiling[form] = steps.call, steps.compile_seconds
    native_networks.available = traced
    if torch_call := _torch(case, wiring, decisions, batch):
        calls["PyTorch"] = torch_call
    calls["large convolution"], arithmetic = _large_convolution()
    seconds = files.interleaved(calls, FLAGS.repeats)
    rate = arithmetic / np.median(seconds.pop("large convolution"))
    multiply_adds = np.mean([wiring.multiply_adds(of) for of in decisions])
    return {
        "case": case._asdict(),
        "gigaflops of a large convolution": rate / 1e9,
        "bound": 2 * 3 * multiply_adds * FLAGS.batch / rate * 1e3,
        "milliseconds": {
            form: files.quartiles(of / FLAGS.chunk * 1e3) for form, of in seconds.items()
        },
        "seconds to compile": compiling,
    }


def wiring_of(case: Case):
    """The space, the network and its wiring."""
    if case.name == "macro":
        space = MacroSpace(layers=case.layers)
        network = MacroNetwork(channels=case.channels, **_SETTINGS)
    else:
        space = MicroSpace()
        network = MicroNetwork(channels=case.channels, cells=case.layers, **_SETTINGS)
    return space, network, network.wiring(space, ImageShape(case.size, _COLORS, _CLASSES))


def table(results: dict) -> Table:
    """One row per network and form."""
    rows = []
    for found in results["cases"]:
        case = Case(**found["case"])
        for form, (_, median, _) in found["milliseconds"].items():
            compiling = found["seconds to compile"].get(form, Empty("nothing to compile"))
            rows.append(
                Row(
                    [
                        f"{case.name}, {case.layers} layers, {case.channels} channels, "
                        f"{case.size} x {case.size}",
                        form,
                        median,
                        found["bound"],
                        median / found["bound"],
                        compiling,
                    ]
                )
            )
    columns = [
        Column("network"),
        Column("form"),
        Column("ms a step", 1),
        Column("bound, ms", 1),
        Column("ratio", 2),
        Column("s to compile", 1),
    ]
    return Table(
        f"Steps of the image networks, batches of {FLAGS.batch}",
        columns,
        rows,
        ["Bound: multiply-adds of the chosen operations at the rate of a large convolution."],
        results["environment"]["command"],
    )


def _case(text):
    name, *numbers = text.split("-")
    if name not in ("macro", "micro") or len(numbers) != 3 or not all(map(str.isdigit, numbers)):
        raise UserError(f"--cases: must be like macro-6-16-14, got {text!r}")
    return Case(name, *map(int, numbers))


def _torch(case, wiring, decisions, batch):
    """A call of the same steps in PyTorch, without compiling; None if it is not installed."""
    try:
        import torch

        from experiments.benchmarks import torch_networks
    except ImportError:
        return None
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    weights = wiring.init(jax.random.key(0))
    if case.name == "macro":
        parameters, loss = torch_networks.macro_network(weights, case.layers)
    else:
        parameters, loss = torch_networks.micro_network(weights, MicroSpace().blocks)
    _check_same(wiring, weights, loss, decisions, batch)
    rate, momentum = _SETTINGS["learning_rate"], _SETTINGS["momentum"]
    sgd = torch.optim.SGD(
        parameters,
        rate,
        momentum=momentum,
        nesterov=True,
        weight_decay=_SETTINGS["weight_decay"],
    )

    def call():
        for of, images, labels in zip(decisions, batch.image, batch.label, strict=True):
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
            sgd.zero_grad(set_to_none=True)  # what has no gradient does not move
            value = loss(of, x, torch.from_numpy(labels).long())
            value.backward()
            used = [parameter for parameter in parameters if parameter.grad is not None]
            torch.nn.utils.clip_grad_norm_(used, _SETTINGS["clip"])
            sgd.step()
        return ()

    return call


def _check_same(wiring, weights, loss, decisions, batch):
    """Checks that PyTorch's losses are ours, for every architecture that is timed."""
    import torch

    judge = jax.jit(wiring.loss)
    for of, pixels, labels in zip(decisions, batch.image, batch.label, strict=True):
        images = standardise(jnp.asarray(pixels))
        used = wiring.gather(weights, wiring.use(jnp.asarray(of)))
        mask = dropout_mask(0.0, None, len(labels), used)
        wanted, _ = judge(used, jnp.asarray(of), images, jnp.asarray(labels), mask)
        x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
        found = float(loss(of, x, torch.from_numpy(labels).long()).detach())
        if abs(found - float(wanted)) > 1e-4:
            raise RuntimeError(f"PyTorch computes another loss: {found} instead of {wanted}")


def _large_convolution():
    """A 3 x 3 convolution of 64 channels, forward, and its floating-point operations."""
    x, kernel = jnp.ones((64, 32, 32, 64)), jnp.full((3, 3, 64, 64), 0.01)

    @jax.jit
    def convolve(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return lambda: convolve(x), 2 * 64 * 32 * 32 * 9 * 64 * 64


if __name__ == "__main__":
    common.run(main)
