"""What does a search do besides its steps, and how long does it take to start?

Runs the search of --config for a few epochs, logging, progress bar and checkpoints on, with a clock
around its compiled calls; then its shared chunk alone. Then starts `launch.search`, with an empty
and with a filled cache of compiled programs, up to the first chunk that it logs, and asks it for
--help. Prints tables, writes end_to_end.json and performance.html.

Command:   python -m experiments.benchmarks.end_to_end --config.network.width=200
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from launch import common, configuration, device
from launch.paths import define_path
from nas.config import Config, override

common.define_flags(default_config="kjv_quick")
flags.DEFINE_integer(
    "epochs", 4, "Epochs of the search; the first, which compiles, is not counted.", lower_bound=2
)
flags.DEFINE_integer(
    "starts", 3, "How often each kind of start is timed; 0: not at all.", lower_bound=0
)
define_path("out", "Folder for the results.", default="runs/benchmarks")
FLAGS = flags.FLAGS
STEPS = 10  # steps of the chunk up to which a start is timed


def main():
    config = configuration.config()
    config = override(config, {"search": {"epochs": FLAGS.epochs, "warmup_epochs": 0}})
    device.select_device(FLAGS.platform)
    from experiments.benchmarks import files, page

    environment = files.environment()
    results = {
        "environment": environment,
        "setting": f"{configuration.config_name()}, width {config.network['width']}",
    }
    with tempfile.TemporaryDirectory() as folder:
        results |= measure_loop(config, pathlib.Path(folder))
    results |= {"start": measure_starts(), "load_after": os.getloadavg()}
    out = pathlib.Path(FLAGS.out)
    path = files.write(out, files.END_TO_END, results)
    for table in page.run_tables(results):
        print(table.text())
    print(f"written: {out / files.END_TO_END}, {path}")


def measure_loop(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Seconds of a search's parts from the end of its first epoch to that of its last, and its
    speed beside that of a bare chunk.
    """
    from nas import search, steps
    from nas.parallel import Devices

    calls, lifted = [], {}  # (name, start, end) of each; name -> the compiled function

    class Timed(Devices):
        def lift(self, fn):
            name = fn.__qualname__.partition(".")[0].replace("_", " ")
            lifted[name] = call = super().lift(fn)

            def timed(*arguments):
                start = time.perf_counter()
                result = call(*arguments)
                calls.append((name, start, time.perf_counter()))
                return result

            timed.compiled = call.compiled
            return timed

    parts_of, chunk = steps.components(config), min(config.search.chunk, config.search.shared_steps)
    data = parts_of.task.data
    splits = data.load(**common.data_options())
    state = search.run(config, workdir, splits, devices=Timed("jit", 1, 1))
    ends = [end for name, _, end in calls if name == "validation"]
    counted = [(name, end - start) for name, start, end in calls if start > ends[0]]
    parts = []
    for name in dict.fromkeys(name for name, _ in counted):
        seconds = [s for n, s in counted if n == name]
        parts.append({"part": name, "calls": len(seconds), "seconds": sum(seconds)})
    whole = ends[-1] - ends[0]
    inside = sum(part["seconds"] for part in parts)
    parts.append({"part": "around them", "calls": 0, "seconds": whole - inside})

    carry, batch = parts_of.reward.initial_carry(data.batch), splits.train.take(0, chunk)
    bare = []
    for _ in range(sum(name == "shared chunk" for name, _ in counted)):
        start = time.perf_counter()
        state, carry, _ = lifted["shared chunk"](
            state, carry, batch, (np.arange(chunk, dtype=np.int32), np.int32(config.search.epochs))
        )
        bare.append(time.perf_counter() - start)
    speed = []
    shared = [s for n, s in counted if n == "shared chunk"]
    # In the loop a chunk also bears its share of what is around the calls.
    for name, seconds in (("loop", np.median(shared) * whole / inside), ("bare", np.median(bare))):
        speed.append(
            {
                "name": name,
                "steps": chunk / seconds,
                "tokens": chunk * data.examples(data.batch) / seconds,
            }
        )
    return {
        "loop": {"epochs": config.search.epochs, "seconds": whole, "parts": parts},
        "speed": speed,
    }


def measure_starts() -> list[dict[str, Any]]:
    """Seconds from the command to a result: least, median and most."""
    seconds = {"first chunk, empty cache": [], "first chunk, filled cache": [], "--help": []}
    for _ in range(FLAGS.starts):
        with tempfile.TemporaryDirectory() as cache:
            first_chunk = functools.partial(_first_chunk, os.environ | {"XDG_CACHE_HOME": cache})
            for name, call in zip(
                seconds, (first_chunk, first_chunk, lambda: _search("--help").wait()), strict=True
            ):
                seconds[name].append(_timed(call))
    return [
        {
            "start": name,
            "least": min(values),
            "median": float(np.median(values)),
            "most": max(values),
        }
        for name, values in seconds.items()
        if values
    ]


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _first_chunk(environment):
    """Starts a search of kjv_quick and ends it when it has logged its first chunk."""
    from nas.logs import FILE

    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"--workdir={folder}",
            f"--config.search.chunk={STEPS}",
            f"--platform={FLAGS.platform}",
        ]
        process = _search(
            "--config=kjv_quick", f"--data_dir={FLAGS.data_dir}", *options, env=environment
        )
        metrics = pathlib.Path(folder, FILE)
        while process.poll() is None and not (
            metrics.exists() and metrics.read_bytes().count(b"\n") > 1
        ):
            time.sleep(0.01)
        if process.poll() is not None:
            raise RuntimeError(
                f"launch.search ended with {process.returncode} before its first chunk"
            )
        process.kill()
        process.wait()


def _search(*arguments, **options):
    command = [sys.executable, "-m", "launch.search", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )


if __name__ == "__main__":
    common.run(main)
