"""A search of seconds, and what spoils it."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np

from nas import search
from nas.data.tokens import Windows
from nas.parallel import choose_devices
from nas.tasks import Splits
from tests.helpers import (
    restore,
    tiny,
)


def quick(seed=0, **search):
    """The tiny search with a policy that compiles quickly."""
    return tiny(
        seed=seed,
        search=search,
        policy={"name": "factorised"},
        strategy={"supervised": "next_decision"},
    )


def run(config, workdir):
    workdir.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    train, valid = (
        Windows.of(
            rng.integers(0, config.data["vocabulary"], 4 * length, dtype=np.int32),
            4,
            config.data["steps"],
        )
        for length in (41, 26)
    )
    return search.run(config, workdir, Splits(train, valid, valid), devices=choose_devices("jit"))


def spoil(tree):
    """The tree with every number in it NaN."""
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree)


def checkpoint(workdir, step, config=None):
    """The state of one of a run's checkpoints."""
    folder = workdir.parent / f"{workdir.name}-{step}"
    shutil.copytree(
        workdir / "checkpoints" / str(step), folder / "checkpoints" / str(step), dirs_exist_ok=True
    )
    return restore(config or quick(), folder)[0]["search"]


def spoil_after_epoch(patch, epoch):
    """From the end of an epoch on, the shared weights are NaN."""
    end = search._end_epoch

    def spoiled(running, at):
        at = end(running, at)
        if at.progress.epoch != epoch + 1:
            return at
        return at._replace(state=at.state.replace(reward=spoil(at.state.reward)))

    patch.setattr(search, "_end_epoch", spoiled)
