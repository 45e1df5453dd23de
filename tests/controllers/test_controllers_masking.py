"""Categorical distributions with choices left out, on numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.controllers import masking

pytestmark = pytest.mark.device

E = math.e


log_probabilities = jax.jit(masking.log_probabilities)


def squash(logits, mask, temperature=5.0, tanh_constant=2.5):
    settings = {"temperature": np.float32(temperature), "tanh_constant": np.float32(tanh_constant)}
    return np.exp(log_probabilities(np.array(logits, np.float32), np.array(mask), **settings))


def test_tanh_and_temperature_by_hand():
    # 5 atanh(.4) / 5 is squashed to .4, times 2.5 is 1: the logits that the softmax sees are 1, 0,
    # -1.
    logits = [5 * math.atanh(0.4), 0, -5 * math.atanh(0.4)]
    np.testing.assert_allclose(
        squash(logits, [True] * 3), np.array([E, 1, 1 / E]) / (E + 1 + 1 / E), rtol=1e-5
    )


def test_masked_choices_by_hand():
    logits = [5 * math.atanh(0.4), 0, 77]
    np.testing.assert_allclose(
        squash(logits, [True, True, False]), [E / (E + 1), 1 / (E + 1), 0], rtol=1e-5
    )
    np.testing.assert_array_equal(squash(logits, [False, True, False]), [0, 1, 0])


def test_no_choice_can_become_certain():
    # The squashed logits stay within -2.5 and 2.5, whatever the network says.
    most = E**2.5 / (E**2.5 + 3 * E**-2.5)
    np.testing.assert_allclose(
        squash([1e6, -1e6, -1e6, -1e6], [True] * 4),
        [most, *[E**-2.5 / (E**2.5 + 3 * E**-2.5)] * 3],
        rtol=1e-5,
    )
    assert most == pytest.approx(0.980, abs=1e-3)


def test_each_setting_by_hand():
    ln3 = math.log(3)
    np.testing.assert_allclose(
        squash([math.atanh(0.5), 0], [True] * 2, 1.0, 2 * ln3), [3 / 4, 1 / 4], rtol=1e-5
    )
    np.testing.assert_allclose(
        squash([10 * math.atanh(0.5), 0], [True] * 2, 10.0, 2 * ln3), [3 / 4, 1 / 4], rtol=1e-5
    )
    np.testing.assert_allclose(
        squash([math.atanh(0.5), 0], [True] * 2, 1.0, 4 * ln3), [9 / 10, 1 / 10], rtol=1e-5
    )


def test_entropy_by_hand():
    log_probs = np.log(np.array([[0.5, 0.25, 0.25], [1, 1, 1]], np.float32))
    log_probs[1] = 0, masking.MASKED, masking.MASKED
    np.testing.assert_allclose(masking.entropy(log_probs), [1.5 * math.log(2), 0], atol=1e-6)


def test_gradients_of_masked_choices_are_zero():
    def value(logits):
        log_probs = masking.log_probabilities(
            logits, np.array([True, True, False]), temperature=5.0, tanh_constant=2.5
        )
        return masking.entropy(log_probs) + log_probs[0]

    gradient = np.asarray(jax.jit(jax.grad(value))(np.array([0.3, -0.2, 4.0], np.float32)))
    assert np.isfinite(gradient).all() and gradient[2] == 0 and (gradient[:2] != 0).all()


def test_take_by_hand():
    log_probs = -np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    assert jax.jit(masking.take)(log_probs, np.array([[2, 0], [1, 1]])).tolist() == [
        [-2, -3],
        [-7, -10],
    ]


def test_forced_by_hand():
    for nothing in (None, np.zeros(0, int), np.zeros((2, 0), int)):
        assert masking.forced(nothing, 2, 3).tolist() == [[-1, -1, -1]] * 2
    assert masking.forced(np.array([4, 5]), 2, 3).tolist() == [[4, 5, -1]] * 2
    assert masking.forced(np.array([[4], [5]]), 2, 3).tolist() == [[4, -1, -1], [5, -1, -1]]
    assert masking.forced(np.array([[1, 2, 3]]), 1, 3).tolist() == [[1, 2, 3]]
    assert (
        masking.forced(None, 2, 3).dtype
        == masking.forced(np.array([4, 5]), 2, 3).dtype
        == jnp.int32
    )
