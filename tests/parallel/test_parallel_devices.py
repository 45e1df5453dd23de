"""How values are laid over devices and brought back: keys, shares of rows, replicas and what tells
them apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.data.tokens import Tokens
from nas.errors import UserError
from nas.parallel import (
    Devices,
    choose_devices,
    device_key,
    gather_over_devices,
    mean_over_devices,
    share,
)

JIT = Devices("jit", 1, 1)
NUMBERS = (1, 2, 4, 8)


def pmap(number):
    return Devices("pmap", number, number)


def ids(devices):
    return f"{devices.kind}{devices.total}"


every_devices = pytest.mark.parametrize(
    "devices", [JIT, *(pmap(number) for number in NUMBERS)], ids=ids
)
several_devices = pytest.mark.parametrize(
    "devices", [pmap(number) for number in NUMBERS[1:]], ids=ids
)


def values():
    """A tree with a leaf of every type that a state holds, and with values that comparisons stumble
    over.
    """
    return {
        "numbers": np.array([1.5, np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45], np.float32),
        "nested": [np.array([[1, -2], [2**31 - 1, -(2**31)]], np.int32), np.float32(-0.0)],
        "started": np.bool_(True),
        "count": np.array([0, 2**32 - 1], np.uint32),
    }


def assert_same_bits(a, b):
    def check(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())

    jax.tree.map(check, a, b)


def identity(state, carry, batch, common, axis_name):
    del batch, common, axis_name
    return state, carry, ()


def logged(devices, fn, rows=None, common=None):
    """What `fn(own rows, common, axis_name)` returns on the first device, after both went through a
    lifted function.
    """

    def run(state, carry, batch, common, axis_name):
        del batch
        return state, carry, fn(carry, common, axis_name)

    carry = devices.split(np.zeros(devices.total, np.float32) if rows is None else rows)
    return devices.lift(run)((), carry, None, common)[2]


@every_devices
def test_a_replicated_tree_comes_back_bit_for_bit(devices):
    assert_same_bits(devices.first(devices.replicate(values())), values())
    state, _, _ = devices.lift(identity)(devices.replicate(values()), (), None, ())
    assert_same_bits(devices.first(state), values())


@every_devices
def test_split_rows_come_back_in_their_order(devices):
    carry = {
        "a": np.arange(16, dtype=np.float32).reshape(8, 2),
        "b": (np.arange(24, dtype=np.int32),),
    }
    assert_same_bits(devices.join(devices.split(carry)), carry)
    _, moved, _ = devices.lift(identity)((), devices.split(carry), None, ())
    assert_same_bits(devices.join(moved), carry)


@several_devices
def test_split_along_another_axis(devices):
    tokens = np.arange(3 * 8 * 2).reshape(3, 8, 2)
    parts = devices.split(tokens, axis=1)
    assert parts.shape == (devices.total, 3, 8 // devices.total, 2)
    np.testing.assert_array_equal(np.concatenate(list(parts), axis=1), tokens)


@every_devices
def test_devices_see_their_rows_of_a_batch_in_order_and_the_same_common(devices):
    batch = Tokens(
        np.arange(2 * 8 * 3, dtype=np.int32).reshape(2, 8, 3),
        np.repeat([[True], [False]], 8, axis=1),
    )

    def run(state, carry, batch, common, axis_name):
        own = jnp.moveaxis(batch.tokens, 1, 0)  # [own rows, K, steps + 1]
        started = jnp.moveaxis(batch.start, 1, 0)
        return state, carry, gather_over_devices((own, started, common[None]), axis_name)

    _, _, (tokens, start, common) = devices.lift(run)((), (), batch, np.int32([5, 6]))
    np.testing.assert_array_equal(np.moveaxis(tokens, 0, 1), batch.tokens)
    np.testing.assert_array_equal(np.moveaxis(start, 0, 1), batch.start)
    np.testing.assert_array_equal(common, np.broadcast_to([5, 6], (devices.total, 2)))


@every_devices
def test_what_is_logged_arrives_as_numpy(devices):
    result = logged(
        devices,
        lambda own, common, axis_name: {"a": common, "b": (common + 1,)},
        common=np.float32(2),
    )
    assert all(isinstance(leaf, np.ndarray | np.float32) for leaf in jax.tree.leaves(result))
    assert result == {"a": 2, "b": (3,)}


@every_devices
def test_mean_and_gather_over_devices(devices):
    rows = np.arange(8, dtype=np.float32)
    mean, gathered = logged(
        devices,
        lambda own, _, axis: (
            mean_over_devices(jnp.mean(own), axis),
            gather_over_devices(own, axis),
        ),
        rows,
    )
    assert mean == 3.5
    np.testing.assert_array_equal(gathered, rows)


@jax.jit
def row_by_row(own):
    return jnp.cumsum(own, axis=1)


@pytest.mark.parametrize("rows", [1, 5, 8, 17])
@several_devices
def test_shared_rows_equal_the_plain_function(devices, rows):
    """Also fewer rows than devices, and numbers of rows that they do not divide."""
    matrix = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    result = logged(devices, lambda _, values, axis: share(row_by_row, values, axis), common=matrix)
    assert_same_bits(result, row_by_row(matrix))


def test_shared_rows_cost_every_device_its_part_only():
    seen = []

    def fn(own):
        seen.append(own.shape)
        return own

    logged(
        pmap(4),
        lambda _, values, axis: share(fn, values, axis),
        common=np.zeros((10, 3), np.float32),
    )
    assert seen == [(3, 3)]


def drawn(devices):
    """[D, 2] key data of all devices."""

    def own(_, step, axis_name):
        key = device_key(jax.random.fold_in(jax.random.key(7), step), axis_name)
        return gather_over_devices(jax.random.key_data(key)[None], axis_name)

    return logged(devices, own, common=np.int32(3))


def test_keys_differ_between_devices_and_the_first_has_that_of_one_device():
    alone = drawn(JIT)
    assert alone.shape == (1, 2)
    for number in NUMBERS:
        keys = drawn(pmap(number))
        assert len(np.unique(keys, axis=0)) == number
        np.testing.assert_array_equal(keys[0], alone[0])
        np.testing.assert_array_equal(
            keys, drawn(pmap(8))[:number]
        )  # a device's key does not depend on how many there are


@every_devices
def test_equal_replicas_pass(devices):
    devices.check_replicas(devices.replicate(values()))
    state, _, _ = devices.lift(identity)(devices.replicate(values()), (), None, ())
    devices.check_replicas(state)


@pytest.mark.parametrize(
    "name, entry, value",
    [
        ("['numbers']", 0, np.nextafter(np.float32(1.5), np.float32(2))),
        ("['numbers']", 1, 0.0),  # NaN elsewhere
        ("['numbers']", 2, np.nan),  # inf elsewhere
        ("['numbers']", 4, 0.0),  # -0.0 elsewhere
        ("['numbers']", 6, 0.0),  # the smallest subnormal elsewhere
        ("['nested'][0]", 3, 2**31 - 1),  # -2**31 elsewhere
        ("['nested'][1]", 0, 0.0),  # -0.0 elsewhere
        ("['started']", 0, False),
        ("['count']", 1, 2**31),
    ],
)
@several_devices
def test_one_device_with_another_value_is_noticed_and_its_leaf_named(devices, name, entry, value):
    for device in (0, devices.total - 1):
        tree = jax.tree.map(np.array, devices.replicate(values()))
        leaves = {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        leaves[name].reshape(devices.total, -1)[device, entry] = value
        with pytest.raises(RuntimeError) as error:
            devices.check_replicas(tree)
        assert str(error.value) == f"devices hold different values of state{name}"


def test_rows_of_one_process():
    assert JIT.rows("data.batch", 7) == slice(0, 7)
    assert pmap(4).rows("data.batch", 8) == slice(0, 8)


def test_rows_of_several_processes(monkeypatch):
    devices = Devices("pmap", 2, 6)
    for process, rows in enumerate([slice(0, 4), slice(4, 8), slice(8, 12)]):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert devices.rows("data.batch", 12) == rows
        assert devices.is_main == (process == 0)


def test_rows_that_cannot_be_divided():
    with pytest.raises(UserError) as error:
        pmap(8).rows("data.eval_batch", 12)
    assert (
        str(error.value) == "config field data.eval_batch: 12 rows cannot be divided over 8 devices"
    )


def test_choice_of_devices(monkeypatch):
    everything = Devices("pmap", 8, 8)
    assert choose_devices() == choose_devices("") == choose_devices("pmap") == everything
    assert choose_devices("jit") == JIT
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    assert choose_devices() == JIT
    assert choose_devices("pmap") == Devices("pmap", 1, 1)
    monkeypatch.setattr(jax, "device_count", lambda: 2)  # one of its own, in each of two processes
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert choose_devices() == choose_devices("pmap") == Devices("pmap", 1, 2)
    with pytest.raises(UserError, match="--parallel=jit .* several processes; use pmap"):
        choose_devices("jit")


def test_with_one_process_what_processes_exchange_stays_as_it_is():
    tree = values()
    assert JIT.from_main(tree) is tree
    assert JIT.agree(7) == pmap(4).agree(7) == 7
