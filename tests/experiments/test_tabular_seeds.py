"""Many seeds in one program are what the seeds are alone: against a plain loop, over ways to run
them, over devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tabular import seeds, settings
from nas import config as configs
from nas import steps
from nas.config import override
from nas.controllers import POLICIES, build_policy
from nas.data import table as tables
from nas.data.table import SPACE
from nas.spaces import SearchSpace
from nas.spaces.recurrent import RecurrentSpace
from tests import own_task

SIZE = settings.Size(seeds=3, updates=6, data_sets=("cifar100",), epoch=3)
REWARDS = tables.synthetic_table(0, 0.5).rewards("cifar100")
SEEDS = (0, 7, 2_000_000_000)
CELLS = RecurrentSpace(num_nodes=3)
BITS = -np.random.default_rng(0).uniform(2, 3, 128).astype(np.float32)


@functools.cache
def parts_of(name, space=SPACE):
    """An arm with a small policy, whose functions are compiled."""
    config = settings.configure(name, SIZE, space)
    if "width" in config.policy:
        config = override(config, {"policy": {"width": 16}})
    parts = seeds.components(config, space)
    policy = parts.policy._replace(
        init=jax.jit(parts.policy.init), score=jax.jit(parts.policy.score)
    )
    return config, parts._replace(policy=policy)


@functools.cache
def compiled(name, mapped=True, devices=1, space=SPACE):
    return seeds.program(*parts_of(name, space), mapped=mapped, devices=devices)


def run(name, run_seeds=SEEDS, rewards=REWARDS, mapped=True, devices=1, weights=None):
    return seeds.run(
        compiled(name, mapped, devices), parts_of(name)[1], run_seeds, rewards, 2, weights=weights
    )


def loop(program, parts, rewards, seed):
    """One search by its strategy and reward, update by update."""
    strategy = parts.strategy
    state = seeds.start(program, [seed], rewards).strategy
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
        rows = parts.task.space.index(np.asarray(decisions))
        state, _ = update(state, decisions, rewards[rows], update_key)
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


@pytest.mark.parametrize(
    ("name", "space", "rewards"),
    [
        *((name, SPACE, REWARDS) for name in ("evolution", "factorised", "memory")),
        ("memory", CELLS, BITS),
        ("memory", own_task.Layers(), BITS[:81]),  # a space that no registry names
    ],
)
def test_a_seed_is_the_plain_loop(name, space, rewards):
    _, parts = parts_of(name, space)
    program = compiled(name, space=space)
    found = seeds.run(program, parts, SEEDS, rewards, 2)
    assert found.queries.shape == (3, 24) and found.entropy.shape == (3, 6)
    for s in (0, 2):
        queries, state, start = loop(program, parts, rewards, SEEDS[s])
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
        rewards=np.stack([REWARDS, 1 - REWARDS, REWARDS / 2]),
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
        seeds.start(compiled(name), SEEDS, REWARDS).strategy.params["policy"]
        for name in ("pg", "memory")
    ]
    assert jax.tree.all(jax.tree.map(np.array_equal, *policies))
    assert not np.allclose(policies[0]["head"][0], policies[0]["head"][1])


# Its last decision has fewer choices than another, and one has none.
UNEVEN = SearchSpace((2, 3, 1, 2), ("a", "b", "b", "a"), ())


@pytest.mark.parametrize("space", [SPACE, CELLS, UNEVEN])
@pytest.mark.parametrize("name", ["lstm", "factorised"])
def test_probabilities_of_all_architectures(name, space):
    width = {"width": 16} if name == "lstm" else {}
    policy = build_policy(
        configs.choose(POLICIES, {}, name, "policy") | {"name": name} | width, space
    )
    params = jax.tree.map(
        lambda leaf: (
            leaf + 0.3 * np.cos(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape)
        ),
        jax.tree.map(np.asarray, policy.init(jax.random.key(1))),
    )
    found = np.asarray(jax.jit(functools.partial(seeds.every_log_prob, space, policy))(params))
    assert found.shape == (len(space.every()),)
    assert np.exp(np.asarray(found, np.float64)).sum() == pytest.approx(1, abs=1e-5)
    decisions = space.every()[np.random.default_rng(0).choice(len(found), 200)]
    conditional = np.asarray(policy.score(params, jnp.asarray(decisions)).log_probs)
    taken = np.take_along_axis(conditional, decisions[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(found[space.index(decisions)], taken.sum(axis=1), atol=1e-5)


def test_a_configuration_names_the_space_of_its_table():
    beside = {"data": {}, "network": {}}
    assert settings.groups(SPACE) == {"task": "nasbench201", "space": {}} | beside
    assert settings.groups(CELLS) == {"task": "recurrent", "space": {"num_nodes": 3}} | beside


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
