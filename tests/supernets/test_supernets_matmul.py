"""Matrix products of bfloat16 operands: 8 significant bits, so that rounding is off by 2^-9 of a
number at most.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.data.tokens import Tokens
from nas.errors import UserError
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent import native_loop, shared
from nas.supernets.recurrent.language_model import supernet_reward
from nas.supernets.recurrent.products import as_right, product, settle, times
from nas.supernets.recurrent.settings import LanguageModelSettings

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=4)
ROUNDING = 2.0**-9
ROUNDED = ("bfloat16", "rounded")
CONFIG = LanguageModelSettings(width=32, init_scale=0.3)
VOCABULARY, ROWS, STEPS = 60, 6, 5


def problem(seed=0):
    rng = np.random.default_rng(seed)
    params = jax.jit(functools.partial(shared.init, SPACE, CONFIG, VOCABULARY))(
        jax.random.key(seed)
    )
    params |= {"bias": jnp.asarray(rng.normal(size=VOCABULARY), jnp.float32)}
    decisions = rng.integers(SPACE.num_choices, size=(5, SPACE.num_decisions), dtype=np.int32)
    tokens = rng.integers(VOCABULARY, size=(ROWS, STEPS + 1), dtype=np.int32)
    return params, decisions, tokens, rng.normal(size=(ROWS, CONFIG.width)).astype(np.float32)


@functools.cache
def gradients(deferred=True, **options):
    """(params, decisions, tokens, hidden) -> loss, last state and the gradients of the weights in
    use, compiled.
    """

    def run(params, decisions, tokens, hidden):
        cell = shared.read_cell(SPACE, decisions)

        def loss(used):
            return shared.loss(
                used, cell, tokens, hidden, max_norm=25.0, deferred=deferred, **options
            )

        return jax.value_and_grad(loss, has_aux=True)(shared.gather(params, cell))

    return jax.jit(run)


def distance(actual, desired):
    """Of two trees, against the length of the second."""
    actual, desired = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (actual, desired)
    )
    return np.linalg.norm(actual - desired) / np.linalg.norm(desired)


@pytest.mark.parametrize("matmul", ROUNDED)
def test_a_product_is_off_by_the_rounding_of_its_operands(matmul):
    rng = np.random.default_rng(0)
    left, right = (
        rng.normal(size=(7, 300)).astype(np.float32),
        rng.normal(size=(300, 9)).astype(np.float32),
    )
    found = jax.jit(functools.partial(product, matmul))(left, right)
    exact = left.astype(np.float64) @ right
    bound = (2 * ROUNDING + ROUNDING**2 + 300 * 2.0**-24) * (
        np.abs(left).astype(np.float64) @ np.abs(right)
    )
    assert found.dtype == jnp.float32
    error = np.abs(found - exact)
    assert (error <= bound).all() and error.max() > 1e-3  # float32 alone would be off by 1e-5


@pytest.mark.parametrize("matmul", ROUNDED)
def test_sums_are_not_rounded(matmul):
    rng = np.random.default_rng(0)
    left, right = (
        rng.integers(-8, 9, size=shape).astype(np.float32) for shape in ((7, 300), (300, 9))
    )
    found = jax.jit(functools.partial(product, matmul))(left, right)
    np.testing.assert_array_equal(
        found, left @ right
    )  # small whole numbers have eight bits; their sums need more


def test_both_ways_round_to_the_same_numbers():
    """Of numbers from 1 to 1.125, which round to multiples of 2^-7, sums of 300 products have 23
    bits and are exact.
    """
    rng = np.random.default_rng(0)
    left, right, gradient = (
        1 + rng.integers(65, size=shape) / np.float32(512) for shape in ((7, 300), (300, 9), (7, 9))
    )

    @functools.partial(jax.jit, static_argnums=0)
    def results(matmul):
        value, pull_back = jax.vjp(functools.partial(product, matmul), left, right)
        return value, *pull_back(gradient), times(matmul, left, as_right(matmul, right))

    for kept, rounded, single in zip(*map(results, (*ROUNDED, "float32")), strict=True):
        np.testing.assert_array_equal(kept, rounded)
        assert (rounded != single).any()


@pytest.mark.parametrize(
    ("has_loop", "multiplies", "settled"),
    [(1, 0, "rounded"), (1, 1, "bfloat16"), (0, 0, "bfloat16")],
)
def test_where_bfloat16_is_kept_as_float32(has_loop, multiplies, settled, monkeypatch):
    monkeypatch.setattr(native_loop, "available", lambda dtype: has_loop)
    monkeypatch.setattr(native_loop, "multiplies_bfloat16", lambda: multiplies)
    assert (settle("bfloat16"), settle("float32")) == (settled, "float32")


@pytest.mark.parametrize("settled", ROUNDED)
def test_steps_and_rewards_compute_as_the_machine_is_fastest_at(settled, monkeypatch):
    monkeypatch.setattr(shared, "settle", lambda matmul: settled)
    params, decisions, tokens, hidden = problem()

    def score(params, decisions, tokens, hidden):
        cells = jax.vmap(functools.partial(shared.read_cell, SPACE))(decisions[None])
        return shared.losses(
            params, cells, tokens, hidden[None], max_norm=25.0, matmul="bfloat16", chunk=1
        )

    for run in (gradients.__wrapped__(matmul="bfloat16"), jax.jit(score)):
        text = run.lower(params, decisions[0], tokens, hidden).as_text()
        assert ("bf16" in text, "reduce_precision" in text) == (
            settled == "bfloat16",
            settled == "rounded",
        )


@pytest.mark.parametrize("matmul", ROUNDED)
def test_bfloat16_is_float32_but_for_rounding(matmul):
    for seed in range(3):
        params, decisions, tokens, hidden = problem(seed)
        for row in decisions:
            (single, single_state), of_single = gradients(matmul="float32")(
                params, row, tokens, hidden
            )
            (half, half_state), of_half = gradients(matmul=matmul)(params, row, tokens, hidden)
            assert all(
                leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((half, half_state, of_half))
            )
            # Both operands of a product are rounded. A loss has one product of its own; a gradient
            # went forward and back through the products of at most four nodes, the input and the
            # softmax.
            assert 0 < abs(half - single) <= 2 * ROUNDING * single
            assert distance(half_state, single_state) <= 4 * 2 * ROUNDING
            assert 0 < distance(of_half, of_single) <= 2 * 6 * 2 * ROUNDING


def test_deferred_gradients_are_plain_ones():
    params, decisions, tokens, hidden = problem()
    for row in decisions:
        (deferred, _), of_deferred = gradients(matmul="bfloat16")(params, row, tokens, hidden)
        (plain, _), of_plain = gradients(deferred=False, matmul="bfloat16")(
            params, row, tokens, hidden
        )
        assert abs(deferred - plain) <= 2 * ROUNDING * plain
        assert distance(of_deferred, of_plain) <= 2 * 6 * 2 * ROUNDING


def test_the_default_is_float32_to_the_bit():
    params, decisions, tokens, hidden = problem()
    for deferred in (True, False):
        assert (
            "bf16" not in gradients(deferred).lower(params, decisions[0], tokens, hidden).as_text()
        )
    default, named = (
        gradients(**options)(params, decisions[0], tokens, hidden)
        for options in ({}, {"matmul": "float32"})
    )
    jax.tree.map(np.testing.assert_array_equal, default, named)


def test_the_setting_reaches_rewards_and_steps():
    params, decisions, tokens, _ = problem()
    found = {}
    for matmul in ("float32", "bfloat16"):
        config = LanguageModelSettings(width=CONFIG.width, matmul=matmul, reward_chunk=3)
        source = supernet_reward(SPACE, config, VOCABULARY)
        state = source.init(jax.random.key(0)).replace(params=params)
        batch = Tokens(tokens, np.ones(len(tokens), bool))
        carry = source.initial_carry(ROWS)
        moved, _, info = jax.jit(source.train)(
            state, carry, decisions[0], batch, jax.random.key(1), np.int32(0)
        )
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(moved))
        found[matmul] = np.array([*jax.jit(source.score)(state, decisions, batch), info["loss"]])
    assert (found["bfloat16"] != found["float32"]).all()
    # A reward is 80 / perplexity: its relative error is the absolute one of the nats, which are
    # about five here.
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=2 * ROUNDING * 5)


def test_other_types_are_refused():
    with pytest.raises(UserError, match=r"matmul: must be one of float32, bfloat16, got 'float16'"):
        LanguageModelSettings(matmul="float16")
