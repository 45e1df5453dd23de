"""Runs a per-device update on one device (jit), on several (pmap), or on the devices of several
processes.

An update is written for one device: `fn(state, carry, batch, common, axis_name) -> state, carry,
logged`. The state is the same on every device and stays so, since whatever enters it was averaged
or gathered over the axis; the carry and the rows of the batch are the device's own; `common` is the
same on every device, and so must be what is logged.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nas.errors import UserError
from nas.types import Array

AXIS = "devices"


def mean_over_devices(tree: Any, axis_name: str | None) -> Any:
    """The mean of every leaf over the devices of `axis_name`; the tree itself on one device
    (None).
    """
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def gather_over_devices(tree: Any, axis_name: str | None) -> Any:
    """Leaves [a, ...] of all devices, concatenated in the order of the devices: [D * a, ...]."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def device_key(key: Array, axis_name: str | None) -> Array:
    """A key for this device alone; a single device gets the same key as the first of many."""
    return jax.random.fold_in(key, 0 if axis_name is None else jax.lax.axis_index(axis_name))


def share(fn: Callable[[Array], Array], values: Array, axis_name: str | None) -> Array:
    """fn(values) for a function that works row by row; each device computes a share of the rows
    [n, ...].
    """
    if axis_name is None:
        return fn(values)
    devices, n = jax.lax.axis_size(axis_name), len(values)
    rows = -(-n // devices)
    padded = jnp.concatenate([values, jnp.repeat(values[:1], rows * devices - n, axis=0)])
    own = jax.lax.dynamic_slice_in_dim(padded, jax.lax.axis_index(axis_name) * rows, rows)
    return gather_over_devices(fn(own), axis_name)[:n]


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that a run computes on."""

    kind: str  # "jit": one device; "pmap": all of them
    local: int  # devices of this process
    total: int  # devices of all processes

    @property
    def axis_name(self) -> str | None:
        return None if self.kind == "jit" else AXIS

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return jax.process_index() == 0

    def rows(self, name: str, total: int) -> slice:
        """This process's share of a batch of `total` rows.

        Raises:
          UserError: the rows cannot be divided evenly; `name` is the setting that the message
            names.
        """
        if total % self.total:
            raise UserError(
                f"config field {name}: {total} rows cannot be divided over {self.total} devices"
            )
        share = total // self.total * self.local
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def lift(self, fn: Callable[..., tuple]) -> Callable[..., tuple]:
        """Compiles `fn(state, carry, batch, common, axis_name)`; state and carry are donated.

        The result takes a state from `replicate`, a carry from `split`, stacked batches of this
        process's rows (or None) and any tree. It returns state and carry in the same form, and what
        was logged as numpy arrays.
        """

        def per_device(state, carry, batch, common):
            return fn(state, carry, batch, common, self.axis_name)

        if self.kind == "jit":
            compiled = jax.jit(per_device, donate_argnums=(0, 1))
        else:
            compiled = jax.pmap(per_device, axis_name=AXIS, donate_argnums=(0, 1))

        def call(state, carry, batch, common):
            state, carry, logged = compiled(
                state, carry, self.split(batch, axis=1), self.replicate(common)
            )
            return state, carry, jax.tree.map(np.asarray, self.first(logged))

        call.compiled = compiled
        return call

    def replicate(self, tree: Any) -> Any:
        """The same tree for every device of this process."""
        if self.kind == "jit":
            return tree
        return self._place(
            jax.tree.map(
                lambda leaf: np.broadcast_to(np.asarray(leaf), (self.local, *np.shape(leaf))), tree
            )
        )

    def split(self, tree: Any, axis: int = 0) -> Any:
        """This process's rows (axis `axis` of every leaf), divided among its devices."""
        if self.kind == "jit":
            return tree
        return self._place(
            jax.tree.map(
                lambda leaf: np.stack(np.split(np.asarray(leaf), self.local, axis=axis)), tree
            )
        )

    def join(self, tree: Any) -> Any:
        """Rows of all devices of all processes, as numpy arrays; the inverse of `split`. All
        processes must call it.
        """
        if self.kind == "jit":
            return jax.tree.map(np.asarray, tree)
        local = jax.tree.map(
            lambda leaf: np.concatenate([np.asarray(s.data)[0] for s in leaf.addressable_shards]),
            tree,
        )
        if jax.process_count() == 1:
            return local
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(local, tiled=True)

    def first(self, tree: Any) -> Any:
        """The copy on this process's first device."""
        if self.kind == "jit":
            return tree
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data[0], tree)

    def check_replicas(self, state: Any) -> None:
        """Asserts that all devices of all processes hold the same state, bit for bit.

        Raises:
          RuntimeError: they do not, which is a bug of an update; names the first leaf that differs.
        """
        if self.kind == "jit":
            return
        same = jax.tree.map(np.asarray, self.first(_compare(state)))
        for path, equal in jax.tree_util.tree_leaves_with_path(same):
            if not equal:
                raise RuntimeError(
                    f"devices hold different values of state{jax.tree_util.keystr(path)}"
                )

    def agree(self, value: int) -> int:
        """The largest of the processes' values. All processes must call it."""
        if jax.process_count() == 1:
            return value
        from jax.experimental import multihost_utils

        return int(np.max(multihost_utils.process_allgather(np.int32(value))))

    def from_main(self, tree: Any) -> Any:
        """The main process's tree, on every process. All processes must call it, with trees of the
        same shapes.
        """
        if jax.process_count() == 1:
            return tree
        from jax.experimental import multihost_utils

        return multihost_utils.broadcast_one_to_all(tree)

    def _place(self, tree: Any) -> Any:
        """Puts leaves [local, ...] on the devices as a lifted function returns them: if it were
        given host arrays first, it would be compiled twice.
        """
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()[: self.local]), (AXIS,))
        return jax.device_put(
            tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        )


def choose_devices(kind: str = "") -> Devices:
    """All devices (pmap) if there are several, else the only one (jit); `kind` forces one or the
    other.

    Raises:
      UserError: jit is asked for with several processes.
    """
    kind = kind or ("pmap" if jax.device_count() > 1 else "jit")
    if kind == "jit":
        if jax.process_count() > 1:
            raise UserError(
                "--parallel=jit uses one device, but there are several processes; use pmap"
            )
        return Devices("jit", 1, 1)
    return Devices("pmap", jax.local_device_count(), jax.device_count())


def _bits(leaf: Array) -> Array:
    """Whole numbers that are equal exactly where the bits of `leaf` are, so that NaN equals
    itself.
    """
    return (
        jax.lax.bitcast_convert_type(leaf, jnp.int32)
        if leaf.dtype == jnp.float32
        else leaf.astype(jnp.int32)
    )


def _compare_per_device(state: Any) -> Any:
    def equal(leaf):
        bits = _bits(leaf)
        return jnp.all(jax.lax.pmax(bits, AXIS) == jax.lax.pmin(bits, AXIS))

    return jax.tree.map(equal, state)


def _compare(state: Any) -> Any:
    return jax.pmap(_compare_per_device, axis_name=AXIS)(state)
