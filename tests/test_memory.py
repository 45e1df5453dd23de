"""The memory: a ring buffer, and the queue of old parameters that fills it."""

import jax
import jax.numpy as jnp
import numpy as np

from nas import memory


def rows(*values):
    return jnp.array([[v, v] for v in values], jnp.int32)


def test_the_oldest_rows_are_overwritten():
    held = memory.write(memory.empty(3, 2), rows(1, 2))
    assert (held.decisions[:, 0].tolist(), int(held.size), int(held.cursor)) == ([1, 2, 0], 2, 2)
    held = memory.write(held, rows(3, 4))
    assert (held.decisions[:, 0].tolist(), int(held.size), int(held.cursor)) == ([4, 2, 3], 3, 1)


def test_only_filled_rows_are_sampled_equally_often():
    held = memory.write(memory.empty(10, 2), rows(7, 8, 9))
    counts = np.bincount(np.asarray(memory.sample(held, jax.random.key(0), 6000))[:, 0], minlength=10)
    assert counts[:7].sum() == 0
    assert np.abs(counts[7:] - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)


def test_history_keeps_the_parameters_of_so_many_epochs_ago():
    for lag in (1, 2, 3):
        history = memory.start_history({"w": jnp.float32(0)}, lag)
        for epoch in range(1, 6):
            history = memory.push(history, {"w": jnp.float32(epoch)})
            assert memory.oldest(history)["w"] == max(0, epoch - lag + 1)
