"""Many seeds in one program are what the seeds are alone: against a plain loop, over ways to run
them, over devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.nasbench201 import seeds, settings
from nas import steps
from nas.config import override
from nas.data import table as tables
from nas.data.table import SPACE

SIZE = settings.Size(seeds=3, updates=6, data_sets=("cifar100",), epoch=3)
ACCURACY = tables.synthetic_table(0, 0.5).accuracy["cifar100", "val"]
SEEDS = (0, 7, 2_000_000_000)


@functools.cache
def parts_of(name):
    """An arm with a small policy, whose functions are compiled."""
    config = settings.configure(name, SIZE)
    if "width" in config.policy:
        config = override(config, {"policy": {"width": 16}})
    parts = seeds.components(config)
    policy = parts.policy._replace(
        init=jax.jit(parts.policy.init), score=jax.jit(parts.policy.score)
    )
    return config, parts._replace(policy=policy)


@functools.cache
def compiled(name, mapped=True, devices=1):
    return seeds.program(*parts_of(name), mapped=mapped, devices=devices)


def run(name, run_seeds=SEEDS, accuracy=ACCURACY, mapped=True, devices=1, weights=None):
    return seeds.run(
        compiled(name, mapped, devices), parts_of(name)[1], run_seeds, accuracy, 2, weights=weights
    )


def loop(name, seed):
    """One search by its strategy and reward, update by update."""
    config, parts = parts_of(name)
    strategy = parts.strategy
    state = seeds.start(compiled(name), [seed], ACCURACY).strategy
    start = state = jax.tree.map(lambda leaf: leaf[0], state)
    update, begin = jax.jit(strategy.update), jax.jit(strategy.begin_epoch)
    propose, key_of = jax.jit(strategy.propose, static_argnums=2), jax.jit(steps._key)
    queries = []
    for step in range(6):
        if step % 3 == 0:
            state = begin(
                state, key_of(np.uint32(seed), steps._REFRESH, step // 3), np.int32(step // 3)
            )
        key = jax.random.fold_in(key_of(np.uint32(seed), steps._CONTROLLER, step), 0)
        propose_key, update_key = jax.random.split(key)
        decisions = propose(state, propose_key, 4)
        rows = SPACE.index(np.asarray(decisions))
        state, _ = update(state, decisions, ACCURACY[rows] / np.float32(100), update_key)
        queries.append(rows)
    return np.concatenate(queries), state, start


def assert_same_way(policy, state, start):
    """Parameters that moved as those of `state`: Adam turns rounding of a gradient near zero into a
    step of its own size.
    """
    ours, theirs, before = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (policy, state.params["policy"], start.params["policy"])
    )
    assert np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs - before)


@pytest.mark.parametrize("name", ["evolution", "factorised", "memory"])
def test_a_seed_is_the_plain_loop(name):
    found = run(name)
    assert found.queries.shape == (3, 24) and found.entropy.shape == (3, 6)
    for s in (0, 2):
        queries, state, start = loop(name, SEEDS[s])
        np.testing.assert_array_equal(found.queries[s], queries)
        if found.policy is not None:
            assert_same_way(jax.tree.map(lambda leaf, s=s: leaf[s], found.policy), state, start)
    assert len({tuple(row) for row in found.queries.tolist()}) == 3


@pytest.mark.parametrize("name", ["factorised", "memory"])
def test_side_by_side_is_one_after_another(name):
    with jax.debug_key_reuse(
        False
    ):  # it takes a key in a scan, in a branch, side by side, for one that was used
        other = run(name, mapped=False)
    one = run(name)
    np.testing.assert_array_equal(one.queries, other.queries)
    np.testing.assert_allclose(one.entropy, other.entropy, rtol=1e-3)  # as above


@pytest.mark.parametrize("name", ["evolution", "factorised"])
def test_seeds_are_spread_over_devices(name):
    one, spread = run(name), run(name, devices=2)  # three seeds: one device has one more
    np.testing.assert_array_equal(one.queries, spread.queries)
    # From jax 0.11 on a program over three lanes rounds otherwise than one over two.
    np.testing.assert_allclose(one.entropy, spread.entropy, rtol=1e-3)
    leaves = (map(np.asarray, jax.tree.leaves(of.policy)) for of in (one, spread))
    for ours, theirs in zip(*leaves, strict=True):  # moved from zero
        assert np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs)


def test_a_seed_does_not_depend_on_the_others():
    np.testing.assert_array_equal(
        run("factorised").queries[1:2], run("factorised", run_seeds=SEEDS[1:2]).queries
    )


def test_one_compilation_for_all_seeds_tables_and_weights():
    run("factorised")
    epoch = compiled("factorised").epoch.compiled
    before = epoch._cache_size()
    other = run(
        "factorised",
        run_seeds=(5, 6, 7),
        accuracy=np.stack([ACCURACY, 100 - ACCURACY, ACCURACY / 2]),
    )
    weights = {"learning_rate": [0.0, 0.1, 0.3], "entropy": [0.0, 0.0, 1.0]}
    varied = run("factorised", run_seeds=(5, 6, 7), weights=weights)
    assert epoch._cache_size() == before
    assert not np.array_equal(other.queries[1], varied.queries[1])
    assert np.all(varied.policy["logits"][0] == 0) and np.all(
        varied.policy["logits"][1:].any(axis=(1, 2))
    )


def test_arms_of_the_controller_start_from_the_same_weights_and_seeds_from_their_own():
    policies = [
        seeds.start(compiled(name), SEEDS, ACCURACY).strategy.params["policy"]
        for name in ("pg", "memory")
    ]
    assert jax.tree.all(jax.tree.map(np.array_equal, *policies))
    assert not np.allclose(policies[0]["head"][0], policies[0]["head"][1])


@pytest.mark.parametrize("name", ["memory", "factorised"])
def test_probabilities_of_all_architectures(name):
    _, parts = parts_of(name)
    params = jax.tree.map(
        lambda leaf: (
            leaf + 0.3 * np.cos(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape)
        ),
        jax.tree.map(np.asarray, parts.policy.init(jax.random.key(1))),
    )
    found = np.asarray(jax.jit(functools.partial(seeds.every_log_prob, parts.policy))(params))
    assert np.exp(np.asarray(found, np.float64)).sum() == pytest.approx(1, abs=1e-5)
    rows = np.random.default_rng(0).choice(len(SPACE.every()), 200)
    trace = parts.policy.score(params, jnp.asarray(SPACE.every()[rows]))
    np.testing.assert_allclose(found[rows], trace.log_prob.sum(axis=1), atol=1e-5)


def test_what_is_described_of_a_policy():
    found = run("memory")
    decisions = SPACE.every()[:5]
    described = compiled("memory").describe((np.array(SEEDS, np.uint32), found.policy), decisions)
    policy = parts_of("memory")[1].policy
    for s in range(3):
        params = jax.tree.map(lambda leaf, s=s: leaf[s], found.policy)
        np.testing.assert_allclose(
            described.embedding[s],
            policy.score(params, jnp.asarray(decisions)).embedding(),
            atol=1e-6,
        )
        own = policy.score(params, described.own[s])
        np.testing.assert_allclose(described.own_embedding[s], own.embedding(), atol=1e-6)
    assert described.own.shape == (3, settings.OWN_SAMPLES, 6)
    assert (
        compiled("factorised")
        .describe((np.array(SEEDS, np.uint32), run("factorised").policy), decisions)
        .embedding
        is None
    )
