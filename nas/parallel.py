"""Lifts a per-device update over one device or many."""

import jax


def mean_over_devices(tree, axis_name: str | None):
    """The mean of every leaf over the devices of `axis_name`; the tree itself on one device (None)."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)
