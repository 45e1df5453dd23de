"""One function over many lanes in one program, a share of the lanes to each device."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "lanes"


def over_lanes(
    fn: Callable[..., Any],
    *,
    mapped: bool | None = None,
    devices: int | None = None,
    donated: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """`fn(lane, common)` for lanes stacked on a leading axis; copies of the last lane fill up the
    last share.

    Args:
      mapped: whether the lanes of a device run one after another, not side by side; None: on CPUs,
        where that is faster.
      devices: number of devices; None: all.
      donated: arguments whose memory the results may take.
    """

    mesh = Mesh(np.array(jax.devices()[:devices]), (_AXIS,))
    mapped = jax.default_backend() == "cpu" if mapped is None else mapped

    def per_device(lanes, common):
        if mapped:
            return jax.lax.map(lambda lane: fn(lane, common), lanes)
        return jax.vmap(fn, in_axes=(0, None))(lanes, common)

    split = PartitionSpec(_AXIS)
    compiled = jax.jit(
        jax.shard_map(
            per_device,
            mesh=mesh,
            in_specs=(split, PartitionSpec()),
            out_specs=split,
            check_vma=False,
        ),
        donate_argnums=donated,
    )

    def call(lanes, common):
        count = len(jax.tree.leaves(lanes)[0])
        rows = np.minimum(np.arange(-(-count // mesh.size) * mesh.size), count - 1)
        padded = lanes if len(rows) == count else jax.tree.map(lambda leaf: leaf[rows], lanes)
        return compiled(jax.device_put(padded, NamedSharding(mesh, split)), common)

    call.compiled = compiled
    return call
