"""Stages that measure how fast the device is at what a search consists of."""

import functools
import gzip
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import files, operations
from experiments.benchmarks.products import (
    bare_products,
    large_product,
    products,
    used_products,
)
from experiments.gpu_check.work import Stage, pictures, tokens, use_precision
from nas import config as configs
from nas import estimate, logs, search, steps
from nas.checkpoint import Checkpoints

_REPEATS = 9
_CHUNK = 10  # shared steps in one call


def environment(stage: Stage) -> None:
    """The card, versions, and how fast it multiplies and copies."""
    asked = "name,memory.total,driver_version,clocks.max.sm"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
        shown = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        stage.tell(card=shown)
    stage.tell(**files.environment())
    stage.tell(copy_terabytes_per_second=_copy_rate(stage.size.copied))
    rates = {}
    for matmul in operations.PRECISION:
        use_precision(matmul)
        call = large_product(stage.size.side, operations.DTYPE[matmul])
        milliseconds = _median({matmul: call})
        rates[matmul] = 2 * stage.size.side**3 / milliseconds[matmul] / 1e9
        stage.tell(teraflops=rates)


def _copy_rate(count):
    """Terabytes per second, read and written."""
    numbers = jnp.ones(count, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return 2 * numbers.nbytes / _median({"copy": lambda: copy(numbers)})["copy"] / 1e9


def step(stage: Stage, matmul: str) -> None:
    """A shared step, beside its arithmetic at the rate of a large product, and beside the products
    of the time loop alone, each of which waits for the one before.
    """
    timed = _step(stage, matmul)
    bare = bare_products(stage.size.point, operations.DTYPE[matmul])
    chains = {name: bare[name] for name in ("nodes", "nodes, gradient of states")}
    large = large_product(stage.size.side, operations.DTYPE[matmul])
    milliseconds = _median(chains | {"large": large, "step": timed.call})
    flops = sum(product.flops for product in products(stage.size.point).values())
    rate = 2 * stage.size.side**3 / milliseconds["large"]
    stage.tell(
        step_ms=milliseconds["step"] / timed.count,
        loop_ms=sum(milliseconds[name] for name in chains),
        bound_ms=flops / rate,
        gigaflops=flops / 1e9,
    )


def variant(stage: Stage, matmul: str) -> None:
    """A shared step with flags of XLA that the environment gives."""
    _step(stage, matmul)


def _step(stage, matmul):
    use_precision(matmul)
    timed = operations.shared_step(stage.size.point, matmul, chunk=_CHUNK)
    stage.tell(
        matmul=matmul,
        xla_flags=os.environ["XLA_FLAGS"],
        compile_seconds=timed.compile_seconds,
        planned_mebibytes=timed.bytes / 2**20,
    )
    stage.tell(step_ms=_median({"step": timed.call})["step"] / timed.count)
    return timed


def rewards(stage: Stage, matmul: str) -> None:
    """Rewards of 1, 10 and 40 architectures, each time as one batch."""
    use_precision(matmul)
    found = {}
    for count in (1, 10, 40):
        timed = operations.rewards(stage.size.point, matmul, count, together=count)
        flops = sum(
            times * products(stage.size.point)[name].flops
            for name, times in used_products(f"reward of {count}").items()
        )
        found[count] = {
            "reward_ms": _median({"reward": timed.call})["reward"],
            "compile_seconds": timed.compile_seconds,
            "planned_mebibytes": timed.bytes / 2**20,
            "gigaflops": flops / 1e9,
        }
        stage.tell(matmul=matmul, rewards=found)


def controller(stage: Stage) -> None:
    """An update of the controller of `ptb_paper` without its rewards, policy gradient alone and
    with the memory.
    """
    found = {}
    for name, weight in (("policy gradient", 0.0), ("with the memory", 1.0)):
        config = stage.preset("ptb_paper", {"strategy": {"supervised_weight": weight}})
        strategy = steps.components(config).strategy
        state = jax.jit(strategy.init)(jax.random.key(0))
        if not found:  # the weight is traced: one compilation serves both
            compiled = _updates(strategy, state, config.search.architectures, stage.size.updates)
        milliseconds = _median({name: functools.partial(compiled, state)})
        found[name] = milliseconds[name] / stage.size.updates
        stage.tell(update_ms=found)


def _updates(strategy, state, architectures, count):
    def update(state, key):
        propose_key, update_key = jax.random.split(key)
        decisions = strategy.propose(state, propose_key, architectures)
        return strategy.update(state, decisions, jnp.ones(architectures), update_key)

    def chunk(state):
        return jax.lax.scan(update, state, jax.random.split(jax.random.key(1), count))

    return jax.jit(chunk).lower(state).compile()


def short_search(stage: Stage) -> None:
    """The loop of `ptb_paper` as a user runs it, cut short, on tokens drawn by Zipf's law; and what
    its 150 epochs would take.
    """
    whole = stage.preset("ptb_paper", matmul="tf32")
    plan = {"warmup_epochs": 0, **stage.size.search}
    config = configs.override(whole, {"search": plan, "evaluation": {"examples": 1}})
    splits = tokens(config)
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder)
        started = time.perf_counter()
        search.run(config, workdir, splits)
        seconds = time.perf_counter() - started
        # The first epoch compiles.
        lines = [line for line in logs.read(workdir) if line["epoch"]]
        size = sum(path.stat().st_size for path in workdir.rglob("*") if path.is_file())
    of_phase = {
        phase: 1e3 * np.mean([line["seconds"] for line in lines if line["phase"] == phase])
        for phase in ("shared", "controller", "valid")
    }
    batches = splits.valid.length
    stage.tell(
        seconds=seconds,
        step_ms=of_phase,
        epochs=whole.search.epochs,
        hours=estimate.scaled(lines, whole, batches=batches) / 3600,
        run_mebibytes=size / 2**20,
    )


def checkpoint(stage: Stage) -> None:
    """How long a checkpoint of `ptb_paper` keeps the loop waiting, and takes to be written and
    to be read.
    """
    config = stage.preset("ptb_paper")
    parts = steps.components(config)
    first = jax.jit(lambda: steps.initial_checkpoint(config, parts))
    state = jax.block_until_ready(first())
    template = jax.eval_shape(first)
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder)
        checkpoints = Checkpoints(workdir, config.search.keep)
        for number in range(2):  # the first also begins threads
            started = time.perf_counter()
            checkpoints.save(number, state, {"epoch": number})
            waited = time.perf_counter() - started
        checkpoints.close()
        written = time.perf_counter() - started
        size = sum(path.stat().st_size for path in workdir.rglob("*") if path.is_file()) / 2
        stage.tell(save_waits_seconds=waited, save_seconds=written, mebibytes=size / 2**20)
        checkpoints = Checkpoints(workdir, config.search.keep)
        started = time.perf_counter()
        jax.block_until_ready(checkpoints.restore(template)[0])
        stage.tell(restore_seconds=time.perf_counter() - started)
        checkpoints.close()


def images(stage: Stage, name: str) -> None:
    """A step and rewards of an image network at the size of a preset, on random images, in TF32."""
    config = stage.preset(name, {"precision": "tf32"})
    parts = steps.components(config)
    splits = pictures(config)
    plan = config.search
    uniform = parts.task.space.sample_uniform(jax.random.key(0), 8)
    timed = operations.image_steps(parts.reward, uniform, splits.train.take(0, len(uniform)))
    stage.tell(
        step_compile_seconds=timed.compile_seconds,
        planned_mebibytes=timed.bytes / 2**20,
        batch=parts.task.data.batch,
    )
    stage.tell(step_ms=_median({"steps": timed.call})["steps"] / timed.count)
    state = jax.jit(parts.reward.init)(jax.random.key(0))
    decisions = parts.task.space.sample_uniform(jax.random.key(1), plan.architectures)
    batch = jax.tree.map(lambda leaf: leaf[0], splits.valid.take(0, 1))
    timed = operations.scores(parts.reward, state, decisions, batch)
    stage.tell(
        reward_compile_seconds=timed.compile_seconds,
        reward_ms=_median({"rewards": timed.call})["rewards"] / plan.architectures,
        architectures=plan.architectures,
        eval_batch=parts.task.data.eval_batch,
    )


def profile(stage: Stage) -> None:
    """A trace of two shared steps: which kernels take the time, and how long the device waits for
    them. The trace itself is kept, for xprof.
    """
    use_precision("tf32")
    timed = operations.shared_step(stage.size.point, "tf32", chunk=2)
    jax.block_until_ready(timed.call())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # else calls of Python would be most of the file
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            started = time.perf_counter()
            jax.block_until_ready(timed.call())
            wall = time.perf_counter() - started
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        with gzip.open(stage.out / "shared_step.xplane.pb.gz", "wb") as file:
            file.write(path.read_bytes())
        kernels, spans = _kernels(jax.profiler.ProfileData.from_file(str(path)), stage.size)
    longest = sorted(kernels.items(), key=lambda kernel: -kernel[1][1])[:25]
    stage.tell(
        steps=timed.count,
        wall_ms=1e3 * wall,
        kernels=len(spans),
        busy_ms=sum(length for _, length in spans) / 1e6,
        span_ms=(max(map(sum, spans)) - min(start for start, _ in spans)) / 1e6 if spans else 0.0,
        longest=[[name, count, of / 1e6] for name, (count, of) in longest],
    )


def _kernels(trace, size):
    """name -> [times, ns] of what ran on the device, and (start, length) of every run in ns."""
    kernels, spans = {}, []
    for plane in trace.planes:
        for line in plane.lines:
            on_device = "GPU" in plane.name and "Stream" in line.name
            if on_device or size.platform == "cpu" and "XLA" in line.name:
                for event in line.events:
                    of = kernels.setdefault(event.name.partition("(")[0][:60], [0, 0.0])
                    of[0] += 1
                    of[1] += event.duration_ns
                    spans.append((event.start_ns, event.duration_ns))
    return kernels, spans


def _median(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each call: the median of repetitions that take turns."""
    seconds = files.interleaved(calls, _REPEATS)
    return {name: 1e3 * float(np.median(of)) for name, of in seconds.items()}
