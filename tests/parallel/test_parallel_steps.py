"""Update steps on 1, 2, 4 and 8 devices against the same step on one: gradients, 20-step
trajectories, random numbers.

Two errors leave a data-parallel step running and learning, only wrongly: the sum of the gradients
in place of their mean, and the gradient of the first device in place of everyone's. Whatever
rescales a gradient hides the first, so nothing here is clipped, and Adam's moments are compared
besides its steps.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from nas import steps
from nas.config import choose, override
from nas.controllers import POLICIES
from nas.data.tokens import Tokens, Windows
from nas.parallel import AXIS, Devices
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.recurrent.language_model import supernet_reward
from tests.helpers import assert_same_bits, tiny

CONFIG = tiny(
    seed=3,
    space={"num_nodes": 4},
    data={"vocabulary": 30, "batch": 8, "eval_batch": 8},
    network={"init_scale": 0.5, "dropout_input": 0.0, "clip": 1e6},
    policy={"init_scale": 0.5},
    strategy={
        "entropy_weight": 0.01,
        "learning_rate": 0.01,
        "memory": {"capacity": 16, "refresh_size": 16},
    },
    search={
        "warmup_epochs": 0,
        "shared_steps": 4,
        "controller_steps": 4,
        "architectures": 8,
        "chunk": 4,
        "valid_architectures": 5,
    },
    evaluation={"examples": 80},
)
PARTS = steps.components(CONFIG)
# The phases of a search are compiled with a policy that compiles quickly.
PHASES = dataclasses.replace(
    override(CONFIG, {"strategy": {"supervised": "next_decision"}}),
    policy=choose(POLICIES, {}, "factorised", "policy"),
)
PHASES_PARTS = steps.components(PHASES)
STEPS = 20
TOLERANCE = 1e-5
JIT = Devices("jit", 1, 1)


def on_numbers(*quick):
    """1, 2, 4 and 8 devices; by default those that are named."""
    return pytest.mark.parametrize(
        "number",
        [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4, 8)],
    )


def pmap(number):
    return Devices("pmap", number, number)


def random_decisions(space, *shape):
    choices = np.array(space.num_choices)
    return np.random.default_rng(5).integers(choices, size=(*shape, len(choices)), dtype=np.int32)


def windows(rows=8, count=12, seed=0):
    tokens = np.random.default_rng(seed).integers(0, 30, rows * (5 * count + 1), dtype=np.int32)
    return Windows.of(tokens, rows, 5)


def assert_close(ours, theirs):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE), ours, theirs
    )


def run_sharded(number, fn, state, carry, batch, common):
    """The second opinion on `Devices.lift`: the same per-device function under jit and shard_map,
    on whole arrays.
    """
    mesh = Mesh(np.array(jax.devices()[:number]), (AXIS,))
    rows, whole = PartitionSpec(AXIS), PartitionSpec()
    batch_rows = jax.tree.map(lambda _: PartitionSpec(None, AXIS), batch)
    sharded = jax.shard_map(
        lambda *args: fn(*args, AXIS),
        mesh=mesh,
        in_specs=(whole, rows, batch_rows, whole),
        out_specs=(whole, rows, whole),
        check_vma=False,
    )
    return jax.tree.map(np.asarray, jax.jit(sharded)(state, carry, batch, common))


def run_lifted(devices, fn, state, carry, batch, common):
    """State, carry and log of one call, back in whole arrays."""
    state, carry, logged = devices.lift(fn)(
        devices.replicate(state), devices.split(carry), batch, common
    )
    devices.check_replicas(state)
    return jax.tree.map(np.asarray, devices.first(state)), devices.join(carry), logged


def train_steps(state, carry, batch, decisions, axis_name):
    """K shared-weight steps, one after the other, every device with the same architecture decisions
    [k]; logs all states.
    """

    def step(carried, x):
        state, carry = carried
        decisions, batch = x
        state, carry, info = PARTS.reward.train(
            state, carry, decisions, batch, jax.random.key(0), jnp.int32(0), axis_name
        )
        return (state, carry), (info, state.params)

    (state, carry), logged = jax.lax.scan(step, (state, carry), (decisions, batch))
    return state, carry, logged


def update_steps(state, carry, batch, common, axis_name):
    """K updates of the strategy on the architectures and rewards that are the device's own rows;
    logs all states.
    """
    del batch

    def step(state, x):
        decisions, rewards, index = x
        state, info = PARTS.strategy.update(
            state, decisions, rewards, jax.random.fold_in(jax.random.key(1), index), axis_name
        )
        return state, (info, state.params, state.optimiser)

    decisions, rewards = carry  # [own rows, K, T], [own rows, K]
    xs = (jnp.moveaxis(decisions, 1, 0), rewards.T, common)
    state, logged = jax.lax.scan(step, state, xs)
    return state, carry, logged


def train_arguments():
    state = jax.jit(PARTS.reward.init)(jax.random.key(0))
    carry = np.random.default_rng(1).normal(size=(8, CONFIG.network["width"])).astype(np.float32)
    batch = windows().take(3, STEPS)  # passes the end of the stream once or more
    return state, carry, batch, random_decisions(PARTS.task.space, STEPS)


def update_arguments():
    def init(key):
        state_key, epoch_key = jax.random.split(key)
        return PARTS.strategy.begin_epoch(PARTS.strategy.init(state_key), epoch_key, jnp.int32(0))

    state = jax.jit(init)(jax.random.key(2))
    rewards = np.random.default_rng(2).uniform(0, 3, (8, STEPS)).astype(np.float32)
    carry = (random_decisions(PARTS.task.space, 8, STEPS), rewards)
    return state, carry, None, np.arange(STEPS, dtype=np.int32)


PROBLEMS = {
    "shared weights": (train_steps, train_arguments),
    "strategy": (update_steps, update_arguments),
}
every_problem = pytest.mark.parametrize("problem", PROBLEMS)


@functools.cache
def on(devices, problem):
    fn, arguments = PROBLEMS[problem]
    return run_lifted(devices, fn, *arguments())


@every_problem
@on_numbers(4)
def test_twenty_steps_on_several_devices_are_those_on_one(problem, number):
    """After every step: parameters, Adam's moments, baseline, loss and norm of the gradient; at the
    end the recurrent state.
    """
    assert_close(on(pmap(number), problem), on(JIT, problem))


@every_problem
@on_numbers(4)
def test_twenty_steps_by_pmap_are_those_by_shard_map_bit_for_bit(problem, number):
    fn, arguments = PROBLEMS[problem]
    assert_same_bits(on(pmap(number), problem), run_sharded(number, fn, *arguments()))


def test_the_trajectories_go_somewhere():
    """Or the comparisons above would compare little."""
    _, _, (info, params) = on(JIT, "shared weights")
    assert (
        np.ptp(info["loss"]) > 0.01
    )  # random tokens: there is nothing to learn, but a loss that never moves tests nothing
    assert all(np.abs(leaf[-1] - leaf[0]).max() > 0.01 for leaf in jax.tree.leaves(params))
    assert not np.any(info["skipped"])
    _, _, (info, params, _) = on(JIT, "strategy")
    assert (
        np.abs(info["policy_loss"]).min() > 0.01
        and info["supervised_loss"][-1] < info["supervised_loss"][0]
    )
    assert all(np.abs(leaf[-1] - leaf[0]).max() > 0.01 for leaf in jax.tree.leaves(params))


def one_step(reward):
    def step(state, carry, batch, common, axis_name):
        del common
        hidden, decisions = carry
        batch = Tokens(batch.tokens[0], batch.start[0])
        state, hidden, info = reward.train(
            state, hidden, decisions[0], batch, jax.random.key(0), jnp.int32(0), axis_name
        )
        return state, (hidden, decisions), info

    return step


@pytest.mark.parametrize(
    "number, nodes, gathered",
    [
        (2, 4, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((4, 4, False), (4, 8, True), (8, 8, False))
        ),
    ],
)
def test_every_device_trains_its_own_cell_and_all_move_by_the_mean_of_their_gradients(
    number, nodes, gathered
):
    """By both ways of averaging: what cells use is gathered, or all stored matrices are averaged,
    whichever sends less.
    """
    space = RecurrentSpace(num_nodes=nodes)
    reward = supernet_reward(space, PARTS.task.network, PARTS.task.data.vocabulary)
    decisions = random_decisions(space, number)
    assert len(np.unique(decisions, axis=0)) == number
    before = jax.jit(reward.init)(jax.random.key(0))
    hidden = np.random.default_rng(1).normal(size=(8, CONFIG.network["width"])).astype(np.float32)
    batch = windows().take(2, 1)

    alone = JIT.lift(one_step(reward))
    gradients, losses = [], []
    for rows, own in zip(np.split(np.arange(8), number), decisions, strict=True):
        after, _, info = alone(
            jax.tree.map(jnp.copy, before),
            (hidden[rows], own[None]),
            Tokens(batch.tokens[:, rows], batch.start[:, rows]),
            (),
        )
        gradients.append(
            jax.tree.map(lambda a, b: np.asarray(a - b), before.params, after.params)
        )  # the rate is one
        losses.append(info["loss"])
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *gradients)
    used = [
        set(np.flatnonzero(np.any(gradient["recurrent"] != 0, axis=(1, 2))))
        for gradient in gradients
    ]
    assert all(len(rows) == nodes for rows in used) and len(set.union(*used)) > nodes

    devices = pmap(number)
    lifted, state, carry = (
        devices.lift(one_step(reward)),
        devices.replicate(before),
        devices.split((hidden, decisions)),
    )
    split = devices.split(batch, axis=1)
    assert (
        "all_gather" in str(jax.make_jaxpr(lifted.compiled)(state, carry, split, ()))
    ) == gathered
    state, carry, info = lifted(state, carry, batch, ())
    devices.check_replicas(state)
    assert_close(jax.tree.map(lambda a, b: a - b, before.params, devices.first(state).params), mean)
    np.testing.assert_allclose(info["loss"], np.mean(losses), rtol=TOLERANCE)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(mean)))
    np.testing.assert_allclose(info["gradient_norm"], norm, rtol=TOLERANCE)


@functools.cache
def epochs(number):
    """Three epochs of the search's own phases on `number` devices (0: jit), their replicas compared
    after each.

    Of every epoch: the memory, the shared weights that scored, cells [K, D, T] that were trained,
    decisions [K, D A, T] and rewards [K, D A] of the controller phase.
    """
    devices = pmap(number) if number else JIT
    state = devices.replicate(
        jax.jit(steps.initial_state, static_argnums=(0, 1))(PHASES, PHASES_PARTS)
    )
    carry = devices.split(np.zeros((8, CONFIG.network["width"]), np.float32))
    start, shared, controller = (
        devices.lift(make(PHASES, PHASES_PARTS))
        for make in (steps.epoch_start, steps.shared_chunk, steps.controller_chunk)
    )
    seen = []
    for epoch in range(3):
        first = 4 * epoch
        common = np.arange(first, first + 4, dtype=np.int32), np.int32(epoch)
        state, carry, _ = start(state, carry, None, np.int32(epoch))
        devices.check_replicas(state)
        state, carry, (_, cells) = shared(state, carry, windows().take(first, 4), common)
        devices.check_replicas(state)
        reward = jax.tree.map(
            np.array, devices.first(state.reward)
        )  # copied: the next phase takes the state
        state, carry, (_, *scored) = controller(
            state, carry, windows(seed=1).take(first, 4), common
        )
        devices.check_replicas(state)
        seen.append(
            (np.array(devices.first(state.strategy).memory.decisions), reward, cells, *scored)
        )
    return seen


@on_numbers(4)
def test_the_memory_is_refreshed_alike_on_all_devices_and_everything_stays_alike(number):
    """`epochs` compares the replicas."""
    memories = [memory for memory, *_ in epochs(number)]
    assert len(np.unique(memories[0], axis=0)) > 8
    assert all(np.any(a != b) for a, b in zip(memories, memories[1:], strict=False))


@on_numbers(4)
def test_every_device_draws_architectures_of_its_own(number):
    """D a step of the shared weights, D x A rewards a step of the controller."""
    _, _, cells, decisions, rewards = epochs(number)[0]
    assert cells.shape == (4, number, 7)
    assert decisions.shape == (4, 8 * number, 7) and rewards.shape == (4, 8 * number)
    PARTS.task.space.validate(cells.reshape(-1, 7))
    for step in range(4):
        assert len(np.unique(cells[step], axis=0)) > number // 2
        assert len({decisions[step, 8 * d : 8 * d + 8].tobytes() for d in range(number)}) == number


@on_numbers()
def test_the_memory_and_the_architectures_of_the_first_device_are_those_of_one_device(number):
    """Until the strategy's first update, after which they go different ways."""
    (memory, _, cells, decisions, _), (memory_alone, _, cells_alone, decisions_alone, _) = (
        epochs(number)[0],
        epochs(0)[0],
    )
    np.testing.assert_array_equal(memory, memory_alone)
    np.testing.assert_array_equal(cells[:, :1], cells_alone)
    np.testing.assert_array_equal(decisions[0, :8], decisions_alone[0])


@on_numbers(4)
def test_every_device_scores_its_architectures_on_its_rows_of_the_validation_batch(number):
    score = jax.jit(PARTS.reward.score)
    for epoch, (_, reward, _, decisions, rewards) in enumerate(epochs(number)):
        batch = windows(seed=1).take(4 * epoch, 4)
        for d, rows in enumerate(np.split(np.arange(8), number)):
            own = slice(8 * d, 8 * d + 8)
            expected = score(
                reward, decisions[2, own], Tokens(batch.tokens[2, rows], batch.start[2, rows])
            )
            np.testing.assert_allclose(rewards[2, own], expected, rtol=TOLERANCE)
