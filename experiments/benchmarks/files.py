"""What benchmarks share: repetitions that take turns, peak memory, and a record of the machine and
versions that they ran on.
"""

import contextlib
import json
import os
import pathlib
import platform
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import page
from nas import runs
from nas.files import write_atomic

SEARCH_STEP, END_TO_END, PAGE = "search_step.json", "end_to_end.json", "performance.html"


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, np.ndarray]:
    """name -> seconds of each repetition [repeats].

    Every call is made once before the next repetition starts, so that other work on the machine
    disturbs all of them alike. One round before is not timed.
    """
    seconds = {name: np.zeros(repeats) for name in calls}
    for repeat in range(-1, repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if repeat >= 0:
                seconds[name][repeat] = time.perf_counter() - start
    return seconds


def quartiles(values: np.ndarray) -> list[float]:
    """First quartile, median and third quartile."""
    return np.percentile(values, (25, 50, 75)).tolist()


def reset_peak_memory() -> None:
    """Forgets the peak of the process so far, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Bytes: the most that the whole process has held in memory since `reset_peak_memory`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def environment() -> dict[str, Any]:
    """The command, the processor, its load (means over 1, 5 and 15 minutes), and versions with the
    device.
    """
    return {
        "command": runs.command(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg(),
        **runs.versions(),
    }


def write(out: pathlib.Path, name: str, results: Mapping[str, Any]) -> pathlib.Path:
    """Writes `results` to the file `name` of the folder `out`, and the page of all that is there;
    returns its path.
    """
    write_atomic(out / name, json.dumps(results, indent=1) + "\n")
    found = [
        json.loads((out / n).read_text()) if (out / n).exists() else None
        for n in (SEARCH_STEP, END_TO_END)
    ]
    return page.write_page(out / PAGE, *found)


def processor() -> str:
    """The name of the processor."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():  # Linux, where platform.processor() says nothing
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
