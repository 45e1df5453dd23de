"""The compiled time loop against XLA's, its activations against numpy's, and what happens without a
compiler.
"""

import functools
import os
import pathlib
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.spaces.recurrent import ACTIVATIONS, RecurrentSpace
from nas.supernets import native
from nas.supernets.recurrent import native_loop, shared, time_loop
from nas.supernets.recurrent.time_loop import Cell, LoopInputs

# Rows and widths that fill tiles and panels of a processor's vectors, and that do not.
SIZES = [(1, 1, 2, 2), (3, 5, 4, 3), (8, 16, 3, 5), (21, 49, 3, 4), (64, 130, 2, 6)]  # B, H, T, N


@pytest.fixture(autouse=True)
def compiler():
    if not all(map(native_loop.available, ("float32", "float64"))):
        pytest.skip("no C++ compiler")


def problem(rows, width, steps, nodes, dtype, seed=0):
    """Cells of random decisions [A, ...] and arguments of `states` after the cell."""
    rng = np.random.default_rng(seed)
    space = RecurrentSpace(num_nodes=nodes)
    decisions = rng.integers(space.num_choices, size=(6, space.num_decisions), dtype=np.int32)
    cells = jax.jit(jax.vmap(functools.partial(shared.read_cell, space)))(decisions)

    def normal(*shape, scale=1.0):
        return rng.normal(scale=scale, size=shape).astype(dtype)

    matrices = tuple(normal(width, 2 * width, scale=2 * width**-0.5) for _ in range(nodes))
    mask = (rng.binomial(1, 0.7, size=(rows, width)) / 0.7).astype(dtype)
    return jax.tree.map(np.asarray, cells), (
        matrices,
        normal(steps, rows, 2 * width),
        mask,
        normal(rows, width),
    )


def states_and_gradients(max_norm, cell, arguments, direction, *, matmul="float32"):
    """The states, and the gradients of their product with a direction by matrices, projected inputs
    and first state.
    """

    def objective(matrices, projected, mask, hidden):
        inputs = LoopInputs(cell, matrices, projected, mask, hidden)
        states = time_loop.states(max_norm, matmul, inputs)
        return jnp.sum(states * direction), states

    (_, states), gradients = jax.value_and_grad(objective, argnums=(0, 1, 3), has_aux=True)(
        *arguments
    )
    return states, gradients


def relative_error(found, expected):
    """Of numbers of size one or more."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected)
    return np.linalg.norm(found - expected) / max(1.0, np.linalg.norm(expected))


def direction_of(steps, rows, width, dtype=np.float32):
    return np.random.default_rng(1).normal(size=(steps, rows, width)).astype(dtype)


@pytest.mark.parametrize(
    ("size", "max_norm"),
    [*((size, 1.5) for size in SIZES), (SIZES[1], 0.0), (SIZES[3], 0.0)],
    ids=str,
)
def test_it_computes_what_xla_does(size, max_norm, monkeypatch):
    with jax.enable_x64(True):
        cells, arguments = problem(*size, np.float64)
        rows, width, steps, _ = size
        direction = direction_of(steps, rows, width, np.float64)
        results = []
        for is_native in (True, False):
            monkeypatch.setattr(native_loop, "available", lambda dtype, found=is_native: found)
            run = jax.jit(functools.partial(states_and_gradients, max_norm))
            assert (
                "nas_forward"
                in run.lower(jax.tree.map(lambda x: x[0], cells), arguments, direction).as_text()
            ) == is_native
            each = [
                run(jax.tree.map(lambda x, a=a: x[a], cells), arguments, direction)
                for a in range(6)
            ]
            results.append(each)
    for found, expected in zip(*map(jax.tree.leaves, results), strict=True):
        assert relative_error(found, expected) < 1e-12


def test_single_precision_is_as_exact_as_xlas(monkeypatch):
    rows, width, steps, nodes = SIZES[-1]
    with jax.enable_x64(True):
        cells, arguments = problem(*SIZES[-1], np.float64)
        cell = jax.tree.map(lambda x: x[0], cells)
        direction = direction_of(steps, rows, width, np.float64)
        exact = jax.tree.leaves(
            jax.jit(functools.partial(states_and_gradients, 1.5))(cell, arguments, direction)
        )
    cells, arguments = problem(*SIZES[-1], np.float32)
    cell, direction = jax.tree.map(lambda x: x[0], cells), direction.astype(np.float32)
    errors = []
    for is_native in (True, False):
        monkeypatch.setattr(native_loop, "available", lambda dtype, found=is_native: found)
        found = jax.tree.leaves(
            jax.jit(functools.partial(states_and_gradients, 1.5))(cell, arguments, direction)
        )
        assert all(leaf.dtype == np.float32 for leaf in found)
        errors.append([relative_error(*pair) for pair in zip(found, exact, strict=True)])
    assert (np.array(errors[0]) < 2 * np.array(errors[1])).all() and np.max(errors) < 1e-5


@pytest.mark.parametrize("rows, width", [(21, 49), (64, 130)])
def test_operands_are_rounded_where_xla_rounds_them(rows, width, monkeypatch, optimised):
    """Sums differ in their last bits, by which an operand of the next product may be rounded the
    other way: seldom, but a long chain of products would spread it.
    """
    cells, arguments = problem(rows, width, 1, 2, np.float32)
    direction = direction_of(1, rows, width)
    results = []
    for is_native, matmul, options in (
        (True, "rounded", {}),
        (False, "bfloat16", optimised),
        (False, "float32", {}),
    ):
        monkeypatch.setattr(native_loop, "available", lambda dtype, found=is_native: found)
        run = jax.jit(
            functools.partial(states_and_gradients, 1.5, matmul=matmul), compiler_options=options
        )
        results.append(
            [run(jax.tree.map(lambda x, a=a: x[a], cells), arguments, direction) for a in range(6)]
        )
    for found, expected, unrounded in zip(*map(jax.tree.leaves, results), strict=True):
        moved = relative_error(unrounded, expected)
        assert moved > 1e-4 and relative_error(found, expected) < moved / 10


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], ids=hex)
def test_rounding_keeps_nan(bits):
    """Of these some would otherwise become an infinity, or zero."""
    cell = Cell(
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
        np.full(1, 2, np.int32),
        np.ones(1, np.float32),
    )
    hidden = np.array([[bits]], np.uint32).view(np.float32)
    arguments = (jnp.ones((1, 2)),), jnp.zeros((1, 1, 2)), jnp.ones((1, 1)), hidden
    states, (((_, gate, candidate),), _) = native_loop.forward(
        0.0, "rounded", LoopInputs(cell, *arguments), keep=True
    )
    assert np.isnan(states).all() and np.isnan(gate).all() and np.isnan(candidate).all()


def test_rows_do_not_meet():
    cells, (matrices, projected, mask, hidden) = problem(37, 24, 3, 5, np.float32)
    cell = jax.tree.map(lambda x: x[1], cells)
    together, _ = jax.jit(functools.partial(native_loop.forward, 2.0, "float32"))(
        LoopInputs(cell, matrices, projected, mask, hidden)
    )
    together, alone = (
        np.asarray(together),
        jax.jit(functools.partial(native_loop.forward, 2.0, "float32")),
    )
    for row in range(37):
        part = slice(row, row + 1)
        found, _ = alone(LoopInputs(cell, matrices, projected[:, part], mask[part], hidden[part]))
        np.testing.assert_array_equal(found, together[:, part])


def save_results(file):
    """States and gradients of some cells, but for those of matrices, which XLA sums over the
    rows.
    """
    cells, arguments = problem(64, 40, 3, 6, np.float32)
    run = jax.jit(functools.partial(states_and_gradients, 1.5))
    direction = np.cos(np.arange(3 * 64 * 40, dtype=np.float32)).reshape(3, 64, 40)
    each = [run(jax.tree.map(lambda x, a=a: x[a], cells), arguments, direction) for a in range(6)]
    np.savez(file, *[leaf for states, gradients in each for leaf in (states, *gradients[1:])])


def test_threads_change_no_bit(tmp_path, quick_environment):
    """The tests' pool has so many threads that each block is one tile of rows; one thread takes all
    rows as one block.
    """
    program = "import runpy, sys; runpy.run_path(sys.argv[1])['save_results'](sys.argv[2])"
    command = [sys.executable, "-c", program, __file__, str(tmp_path / "one.npz")]
    subprocess.run(command, env=quick_environment | {"NPROC": "1"}, check=True)
    save_results(tmp_path / "many.npz")
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "many.npz") as many:
        assert len(one.files) == 18
        for name in one.files:
            np.testing.assert_array_equal(one[name], many[name])


def activate(kind, x):
    """The activation as a cell of one node computes it, its gate open and its parent zero."""
    x = np.asarray(x, np.float32)
    cell = Cell(
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
        np.array([kind], np.int32),
        np.ones(1, np.float32),
    )
    open_gate = np.full_like(x, 60)  # sigmoid(60) is 1 in single precision
    zeros = np.zeros((1, len(x)), np.float32)
    arguments = (
        (np.zeros((len(x), 2 * len(x)), np.float32),),
        np.concatenate([open_gate, x])[None, None],
        zeros,
        zeros,
    )
    return np.asarray(native_loop.forward(0.0, "float32", LoopInputs(cell, *arguments))[0])[0, 0]


EXPECTED = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
}


@pytest.mark.parametrize("kind", range(len(ACTIVATIONS)), ids=ACTIVATIONS)
def test_activations_are_exact_to_a_few_bits(kind):
    sizes = np.concatenate(
        [np.geomspace(1e-30, 1, 200), np.linspace(0, 20, 200), [50, 88, 1e3, 1e30, np.inf]]
    )
    x = np.concatenate([sizes, -sizes]).astype(np.float32)
    expected = EXPECTED[ACTIVATIONS[kind]](x.astype(np.float64))
    # e^-87, the smallest that is distinguished, is 1.6e-38.
    np.testing.assert_allclose(activate(kind, x), expected, rtol=4e-7, atol=2e-38)


@pytest.mark.parametrize("kind", range(len(ACTIVATIONS)), ids=ACTIVATIONS)
def test_nan_is_not_swallowed(kind):
    found = activate(kind, [1, np.nan, -1, 0.5])
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, False])


def test_a_state_that_is_not_finite_reaches_the_loss_and_the_gradients():
    cells, (matrices, projected, mask, hidden) = problem(5, 6, 3, 3, np.float32)
    cell = jax.tree.map(lambda x: x[0], cells)
    run = jax.jit(functools.partial(states_and_gradients, 1.0))
    hidden[2, 3] = np.nan
    states, gradients = run(
        cell, (matrices, projected, mask, hidden), np.ones((3, 5, 6), np.float32)
    )
    states = np.asarray(states)
    assert np.isnan(states[-1, 2]).all() and np.isfinite(states[:, [0, 1, 3, 4]]).all()
    assert all(np.isnan(leaf).any() for leaf in jax.tree.leaves(gradients))


def test_numbers_of_another_type_are_refused():
    cells, (matrices, projected, mask, hidden) = problem(5, 6, 3, 3, np.float32)
    cell = jax.tree.map(lambda x: x[0], cells)
    with pytest.raises(AssertionError, match="float16"):
        inputs = LoopInputs(cell, matrices, projected.astype(np.float16), mask, hidden)
        native_loop.forward(0.0, "float32", inputs)


def test_it_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = pathlib.Path(native.load(native_loop._SOURCE, REAL="float")._name)
    assert library.is_relative_to(tmp_path) and list(library.parent.iterdir()) == [library]
    made = library.stat().st_mtime_ns
    again = native.load(native_loop._SOURCE, REAL="float")
    assert again._name == str(library) and library.stat().st_mtime_ns == made


def test_without_a_cache_it_leaves_no_file(monkeypatch):
    monkeypatch.setattr(native, "user_cache", lambda name: None)
    library = native.load(native_loop._SOURCE, REAL="float")
    assert library.multiplies_bfloat16() == native_loop.multiplies_bfloat16()
    assert not pathlib.Path(library._name).parent.exists()


@pytest.mark.parametrize(
    "cxx, reason",
    [
        ("no-such-compiler", "tried no-such-compiler"),
        ("false", "failed"),
        ("env false", "failed"),  # a compiler behind another program, as ccache is
    ],
)
def test_without_a_compiler_it_warns_and_leaves_the_loop_to_xla(
    cxx, reason, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", cxx)
    assert native_loop._register.__wrapped__("float32") is None
    (record,) = caplog.records
    assert "run in XLA" in record.message and cxx in record.message and reason in record.message


def test_accelerators_and_other_types_have_none(monkeypatch):
    assert not native_loop.available("bfloat16") and not native_loop.available("float16")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert native_loop._register.__wrapped__("float32") is None


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of another kind")
@pytest.mark.parametrize("march", ["x86-64", "x86-64-v3"])
def test_shorter_vectors_compute_the_same(march, tmp_path):
    """In a process of its own: a name is registered once in one."""
    options = tuple(
        f"-march={march}" if name == "-march=native" else name for name in native._OPTIONS
    )
    program = (
        "import pytest; from nas.supernets import native; native._OPTIONS = "
        f"{options!r}\n"
        "raise SystemExit(pytest.main(['-q', '-k', 'computes or activations or nan', "
        f"{__file__!r}]))"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
