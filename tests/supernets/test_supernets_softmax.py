"""The softmax in blocks of rows: the number of blocks changes nothing, and rows that fill the last
block do not count.
"""

import jax
import numpy as np
import pytest

from nas.supernets.recurrent import softmax

pytestmark = pytest.mark.device

VOCABULARY, WIDTH, STEPS, ROWS = 7, 3, 5, 2  # ten rows of seven logits


@pytest.mark.parametrize(
    "block", [7, 21, 35, 70], ids=["of one", "of three and one", "of five", "one block"]
)
def test_blocks_are_the_whole(monkeypatch, block):
    monkeypatch.setattr(softmax, "_BLOCK", block)
    rng = np.random.default_rng(0)
    params = {
        "embedding": rng.normal(size=(VOCABULARY, WIDTH)),
        "bias": rng.normal(size=VOCABULARY),
    }
    outputs = 3 * rng.normal(size=(STEPS, ROWS, WIDTH))
    targets = rng.integers(VOCABULARY, size=(ROWS, STEPS), dtype=np.int32)
    logits = outputs @ params["embedding"].T + params["bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    of_logits = (probabilities - np.eye(VOCABULARY)[targets.T]) / (STEPS * ROWS)
    expected = {
        "embedding": np.einsum("tbv,tbh->vh", of_logits, outputs),
        "bias": of_logits.sum(axis=(0, 1)),
    }
    nats = -np.log(np.take_along_axis(probabilities, targets.T[..., None], axis=-1)).mean()
    with jax.enable_x64(True):
        value = jax.jit(lambda *arguments: softmax.blocked_cross_entropy(*arguments))(
            params, outputs, targets
        )
        run = jax.jit(
            jax.value_and_grad(
                lambda *arguments: softmax.blocked_cross_entropy(*arguments), argnums=(0, 1)
            )
        )
        again, (of_params, of_outputs) = run(params, outputs, targets)
    np.testing.assert_allclose([value, again], nats, rtol=1e-12)
    for name, gradient in expected.items():
        np.testing.assert_allclose(of_params[name], gradient, atol=1e-14)
    np.testing.assert_allclose(of_outputs, of_logits @ params["embedding"], atol=1e-14)
