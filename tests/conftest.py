"""Settings of JAX under test, made before it looks for devices, and strict in what users' runs
leave lenient.

`--platform=gpu` runs the tests that are marked `device` on a GPU; all others need several devices,
the processor's C++, or programs that have their own device.
"""

import functools
import os
import pathlib

import jax
import jaxlib.version
import optax
import pytest

from nas.user_cache import user_cache

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEVICES = 8
# Most programs of the tests run once or twice, so that optimising them costs more than it gives
# back: 5.2 s of compiling the gradient of an LSTM are .8 s so, or 1.9 s with jaxlib 0.12, which has
# no other emitters of fusions to fall back on.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
OPTIMISED = {"xla_backend_optimization_level": 3}
if jaxlib.version.__version_info__ < (0, 11):
    QUICK_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
    OPTIMISED["xla_cpu_use_fusion_emitters"] = True
# Without what is set below: a worker of pytest-xdist starts with the environment of the process
# that has set it.
_USERS_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")
}

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
if folder := user_cache("jax"):
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Adam raises a Python float to the integer number of its step, which strict promotion rejects; that
# is optax's own affair.
optax.tree.bias_correction = jax.numpy_dtype_promotion("standard")(optax.tree.bias_correction)


def pytest_addoption(parser):
    parser.addoption(
        "--platform",
        choices=("cpu", "gpu"),
        default="cpu",
        help="gpu: run the tests that are marked `device`, on a GPU",
    )


def pytest_configure(config):
    """Selects the device: fake ones on the processor; on a GPU products without any rounding of
    their operands.
    """
    if config.getoption("--platform") == "cpu":
        # A worker of pytest-xdist inherits them. XLA sizes its thread pool by NPROC; with fewer
        # threads, collectives between fake devices may wait for each other for ever.
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = (
            f"--xla_force_host_platform_device_count={DEVICES} {QUICK_TO_COMPILE}"
        )
        os.environ["NPROC"] = str(4 * DEVICES)
        jax.config.update("jax_platforms", "cpu")
        return
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # workers share its memory
    jax.config.update("jax_default_matmul_precision", "highest")
    if (found := jax.default_backend()) != "gpu":
        raise pytest.UsageError(f"--platform=gpu: there is no such device here, only {found}")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--platform") == "cpu":
        return
    left_out = [item for item in items if not item.get_closest_marker("device")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item.get_closest_marker("device")]


@pytest.fixture(scope="module", autouse=True)
def compiled_programs():
    """What a file of tests has compiled is freed with it: a worker would grow to gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def optimised(request) -> dict[str, int]:
    """Options of `jax.jit` for a program whose bits or speed matter: it is compiled as for
    users.
    """
    return OPTIMISED if request.config.getoption("--platform") == "cpu" else {}


@pytest.fixture(scope="session")
def user_environment() -> dict[str, str]:
    """The environment of a program that a user starts on a machine without accelerator: one device,
    nothing strict.
    """
    return _USERS_ENVIRONMENT | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def quick_environment(user_environment) -> dict[str, str]:
    """The same for a program whose speed and last bits do not matter: it compiles quickly."""
    return user_environment | {"XLA_FLAGS": QUICK_TO_COMPILE}


@pytest.fixture(scope="module")
def compiled_once():
    """All searches of one configuration share their compiled functions; so do those who sample and
    score its policy.
    """
    from nas import steps
    from nas.parallel import Devices

    make = steps.components

    @functools.cache
    def components(config):
        parts = make(config)
        sample = jax.jit(parts.policy.sample, static_argnums=2)
        policy = parts.policy._replace(
            init=jax.jit(parts.policy.init), sample=sample, score=jax.jit(parts.policy.score)
        )
        return parts._replace(policy=policy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "components", components)
        for name in ("shared_chunk", "controller_chunk", "epoch_start", "validation"):
            patch.setattr(steps, name, functools.cache(getattr(steps, name)))
        patch.setattr(Devices, "lift", functools.cache(Devices.lift))
        yield
