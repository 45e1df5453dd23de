"""The device that a program computes on. Imports no JAX at the top, so that --help is quick."""

import os
import shutil
import subprocess
import sys
from typing import Any

from absl import flags

from launch import processes
from nas.config import PRECISIONS
from nas.errors import UserError
from nas.user_cache import user_cache

PLATFORMS = ("cpu", "gpu", "tpu")


def define_flag() -> None:
    """Defines --platform."""
    flags.DEFINE_enum(
        "platform",
        "",
        ("", *PLATFORMS),
        "Device to compute on; an error if there is none of that kind. Empty: the best one "
        "available.",
    )


def define_parallel_flag() -> None:
    """Defines --parallel."""
    flags.DEFINE_enum(
        "parallel",
        "",
        ("", "jit", "pmap"),
        "jit: one device; pmap: all devices. Empty: pmap where there are several.",
    )


def select_device(platform: str) -> list[Any]:
    """Selects and returns JAX's devices; call it before anything else uses JAX.

    Compiled programs are kept in the user's cache folder, so that a second start is quick. What a
    program computes outside a run, which has its own `precision`, multiplies float32 in full.

    Args:
      platform: one of PLATFORMS, or empty for JAX's own choice.

    Raises:
      UserError: there is no such device; names those that there are. Or GPUs that Slurm gave to
        this node would stay unused, and `platform` does not ask for another device.
    """
    import jax

    if processes.is_one_of_many():
        processes.join()
    if "jobs" in flags.FLAGS and flags.FLAGS.jobs > 1:
        # The GPU's memory is for the processes of `launch.workers`; this one takes what it needs.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if platform:
        # Not "gpu": JAX would then also demand devices of other makers. None lets JAX choose, and
        # its choice is checked below.
        jax.config.update("jax_platforms", "cpu" if platform == "cpu" else None)
    if not jax.config.jax_default_matmul_precision:  # recent NVIDIA GPUs would round to TF32
        jax.config.update("jax_default_matmul_precision", PRECISIONS["float32"])
    if not jax.config.jax_compilation_cache_dir and (folder := user_cache("jax")):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        # AssertionError if JAX_PLATFORMS names no device that is there.
        asked = jax.config.jax_platforms
        reason = (
            f"JAX_PLATFORMS={asked}: there is no such device here"
            if asked
            else f"JAX cannot use the device here: {error}"
        )
        raise UserError(f"{reason}; --platform=cpu computes on the CPU") from None
    found = devices[0].platform
    if platform and found != platform:
        extra = {"gpu": "cuda13", "tpu": "tpu"}.get(platform)
        hint = f" (JAX for it comes with pip install -e '.[{extra}]')" if extra else ""
        there = ", ".join(dict.fromkeys((found, "cpu")))
        raise UserError(f"--platform={platform}: there is no such device here, only {there}{hint}")
    if platform in ("", "gpu"):
        processes.check_devices(os.environ, found, len(jax.local_devices()))
    if not jax.config.jax_platforms and found == "cpu" and _nvidia_answers():
        print(
            "warning: there is an NVIDIA GPU, but JAX computes on the CPU: pip install -e "
            "'.[cuda13]' (cuda12 for a driver of CUDA 12), or --platform=cpu if this is intended",
            file=sys.stderr,
        )
    return devices


def _nvidia_answers():
    if not shutil.which("nvidia-smi"):
        return False
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
