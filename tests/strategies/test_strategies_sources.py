"""Where the sequences of the supervised loss come from: whose parameters, of which epoch, and what
gradient that gives.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import chisquare

from nas import memory as memories
from nas.controllers import factorised_policy
from nas.controllers.controls import FactorisedSettings
from nas.memory import MemorySettings
from nas.spaces.recurrent import RecurrentSpace
from nas.strategies import reinforce
from nas.strategies.reinforce import ReinforceSettings
from nas.types import Policy, Trace

pytestmark = pytest.mark.device

SPACE = RecurrentSpace(num_nodes=3)
CERTAIN = FactorisedSettings(
    temperature=1.0, tanh_constant=30.0
)  # other choices: probability e^-60
# Sequences that differ wherever there is a choice; where one is the memory's and another the
# policy's, three of the four decisions that are predicted cost 60 nats.
SEQUENCES = np.array(
    [[0, 0, 1, 0, 2], [1, 0, 2, 1, 3], [2, 0, 3, 0, 0], [3, 0, 0, 1, 1], [0, 0, 1, 0, 2]], np.int32
)
MISMATCH = 3 * 60 / 4


def certain_of(sequence):
    """Parameters with which the factorised policy always decides the same."""
    chosen = np.eye(SPACE.max_choices, dtype=bool)[np.asarray(sequence)]
    return {"logits": np.where(chosen, np.float32(10), np.float32(-10))}


def strategy(**memory):
    return _strategy(MemorySettings(**{"capacity": 6, "refresh_size": 6, "batch": 5} | memory))


@functools.cache
def _strategy(memory):
    settings = ReinforceSettings("next_decision", supervised_weight=1.0, memory=memory)
    made = reinforce(SPACE, factorised_policy(SPACE, CERTAIN), settings)
    return made._replace(
        init=jax.jit(made.init),
        begin_epoch=jax.jit(made.begin_epoch),
        propose=jax.jit(made.propose, static_argnums=2),
        update=jax.jit(made.update),
        measure=jax.jit(made.measure),
    )


start_history = jax.jit(memories.start_history, static_argnums=1)


def start(made):
    """A state that decides as SEQUENCES[0], now and in the past."""
    state = made.init(jax.random.key(0))
    lag = len(state.history["logits"])
    return with_policy(state, 0).replace(history=start_history(certain_of(SEQUENCES[0]), lag))


def with_policy(state, k):
    return state.replace(params=state.params | {"policy": certain_of(SEQUENCES[k])})


def begin(made, state, epoch):
    return made.begin_epoch(state, jax.random.key(100 + epoch), np.int32(epoch))


def remembered(state):
    """Which of SEQUENCES the rows of the memory are, in its order."""
    rows = np.asarray(state.memory.decisions[: int(state.memory.size)])
    return [int(np.flatnonzero((SEQUENCES[:4] == row).all(axis=1))[0]) for row in rows]


def supervised_loss(made, state):
    decisions = SEQUENCES[:2]
    return float(
        made.update(state, decisions, np.zeros(2, np.float32), jax.random.key(7))[1][
            "supervised_loss"
        ]
    )


# Whose parameters, and when.


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_memory_is_drawn_from_the_parameters_at_the_end_of_the_epoch_lag_epochs_before(lag):
    made = strategy(lag=lag)
    state = start(made)
    for epoch in range(4):
        state = begin(made, with_policy(state, epoch), epoch)
        # Epoch e starts with SEQUENCES[e], the end of epoch e - 1; a lag of 2 takes what epoch e -
        # 1 started with.
        assert remembered(state) == [max(0, epoch - lag + 1)] * 6


def test_updates_learn_from_the_memory_and_not_from_the_policy_they_change():
    made = strategy(source="old")
    state = begin(made, start(made), 0)
    assert supervised_loss(made, state) == pytest.approx(0, abs=1e-5)
    assert supervised_loss(made, with_policy(state, 1)) == pytest.approx(MISMATCH, rel=1e-5)


@pytest.mark.parametrize("source", ["current", "current_with_gradient"])
def test_current_draws_from_the_policy_at_every_update(source):
    made = strategy(source=source)
    state = begin(made, start(made), 0)
    for k in (0, 1, 2):  # whatever the memory holds
        assert supervised_loss(made, with_policy(state, k)) == pytest.approx(0, abs=1e-5)


def test_snapshot_draws_from_the_parameters_of_the_last_refresh():
    made = strategy(source="snapshot", refresh_period=2)
    state = start(made)
    for epoch, drawn_from in enumerate([0, 0, 2]):
        state = begin(made, with_policy(state, epoch), epoch)
        assert supervised_loss(made, with_policy(state, drawn_from)) == pytest.approx(0, abs=1e-5)
        assert supervised_loss(made, with_policy(state, drawn_from + 1)) == pytest.approx(
            MISMATCH, rel=1e-5
        )


def test_shuffled_keeps_the_marginals_of_what_was_drawn_and_nothing_else():
    """Against the same draw unshuffled; a policy whose decisions differ from sequence to
    sequence.
    """
    made = {
        source: strategy(source=source, capacity=400, refresh_size=400)
        for source in ("old", "shuffled")
    }
    free = {"logits": np.zeros((SPACE.num_decisions, SPACE.max_choices), np.float32)}
    drawn = {
        name: np.asarray(
            begin(
                m,
                start(m).replace(
                    history=start_history(free, 1),
                    params={"policy": free, "decoder": start(m).params["decoder"]},
                ),
                0,
            ).memory.decisions
        )
        for name, m in made.items()
    }
    np.testing.assert_array_equal(np.sort(drawn["old"], axis=0), np.sort(drawn["shuffled"], axis=0))
    for t in (0, 2, 3, 4):  # positions with a choice: all were permuted, each in its own way
        assert np.mean(drawn["old"][:, t] == drawn["shuffled"][:, t]) < 0.6
    assert not np.array_equal(
        drawn["old"][np.lexsort(drawn["old"].T)], drawn["shuffled"][np.lexsort(drawn["shuffled"].T)]
    )


def test_uniform_is_uniform_whatever_the_policy_is_certain_of():
    made = strategy(source="uniform", capacity=1280, refresh_size=1280)
    rows = begin(made, start(made), 0).memory.decisions
    np.testing.assert_array_equal(SPACE.validate(rows), rows)
    counts = np.bincount(np.ravel_multi_index(np.asarray(rows).T, SPACE.num_choices), minlength=128)
    assert chisquare(counts).pvalue > 1e-3


def test_proposals_come_from_the_current_policy():
    made = strategy()
    state = with_policy(begin(made, start(made), 0), 2)
    np.testing.assert_array_equal(made.propose(state, jax.random.key(1), 7), SEQUENCES[[2] * 7])


@pytest.mark.parametrize(
    ("period", "drawn_at"),
    [(1, [0, 1, 2, 3]), (2, [0, 0, 2, 2]), (3, [0, 0, 0, 3]), (0, [0, 0, 0, 0])],
)
def test_refresh_period(period, drawn_at):
    """The epoch whose first parameters fill the memory, at each epoch; a period of 0 fills it
    once.
    """
    made = strategy(refresh_period=period)
    state = start(made)
    for epoch, expected in enumerate(drawn_at):
        state = begin(made, with_policy(state, epoch), epoch)
        assert remembered(state) == [expected] * 6


def test_a_partial_refresh_replaces_the_oldest_rows():
    made = strategy(refresh_size=4)
    state, held = start(made), []
    for epoch in range(3):
        state = begin(made, with_policy(state, epoch), epoch)
        held.append(remembered(state))
    assert held == [[0, 0, 0, 0], [1, 1, 0, 0, 1, 1], [1, 1, 2, 2, 2, 2]]


def test_refreshes_draw_anew():
    made = strategy(source="uniform")
    once = begin(made, start(made), 0)
    again = begin(made, once, 1)
    assert not np.array_equal(once.memory.decisions, again.memory.decisions)


# The gradient of sequences drawn from the policy itself, in expectation over all that can be drawn.

SMALL = RecurrentSpace(num_nodes=2)  # choices 4, 1, 4: 16 sequences
EVERY = np.indices(SMALL.num_choices, np.int32).reshape(SMALL.num_decisions, -1).T
WIDTH = 3


def table(params, decisions):
    """The score of any policy of SMALL: a_0 by one distribution, a_2 by one for each a_0, and a
    state for each sequence.
    """
    first, second = decisions[:, 0], decisions[:, 2]
    log_probs = [
        jax.nn.log_softmax(params["first"])[None],
        jax.nn.log_softmax(params["second"])[first],
    ]
    taken = zip(log_probs, (first, second), strict=True)
    log_prob = [jnp.take_along_axis(table, a[:, None], axis=1)[:, 0] for table, a in taken]
    entropy = [
        -jnp.sum(jnp.exp(table) * table, axis=1) + jnp.zeros(len(decisions)) for table in log_probs
    ]
    certain = jnp.zeros(len(decisions))
    return Trace(
        log_prob=jnp.stack([log_prob[0] + certain, certain, log_prob[1]], axis=1),
        entropy=jnp.stack([entropy[0], certain, entropy[1]], axis=1),
        log_probs=None,
        hidden=jnp.broadcast_to(
            params["state"][first, second][:, None],
            (len(decisions), SMALL.num_decisions + 1, WIDTH),
        ),
    )


def table_parameters(key):
    del key
    rng = np.random.default_rng(0)
    shapes = {"first": (4,), "second": (4, 4), "state": (4, 4, WIDTH)}
    return {
        name: jnp.asarray(rng.normal(size=shape).astype(np.float32))
        for name, shape in shapes.items()
    }


@functools.cache
def expected_gradient(source, supervised):
    """The parameters, and the mean gradient of an update over all batches of two sequences, each as
    often as it is drawn.

    The policy "draws" what it is given as a key, which `update` hands on unseen.
    """
    memory = MemorySettings(source, batch=2)
    settings = ReinforceSettings(supervised, 1.0, policy_weight=0.0, memory=memory)
    policy = Policy(
        init=table_parameters,
        sample=lambda params, key, n, prefix=None: key,
        score=table,
        state_width=WIDTH,
    )
    made = reinforce(SMALL, policy, settings)
    state = jax.jit(made.init)(jax.random.key(0))
    pairs = np.stack([EVERY[i] for i in np.indices((16, 16)).reshape(2, -1)], axis=1)  # [256, 2, T]

    @jax.jit
    @jax.vmap
    def gradients(pair):
        after, _ = made.update(state, EVERY[:2], np.zeros(2, np.float32), pair)
        return jax.tree.map(
            lambda moment: moment / (1 - 0.9), optax.tree.get(after.optimiser, "mu")
        )

    p = np.exp(
        np.asarray(jax.jit(table)(state.params["policy"], EVERY).log_prob, np.float64).sum(axis=1)
    )
    assert p.sum() == pytest.approx(1)
    weights = np.outer(p, p).ravel()
    return state.params, jax.tree.map(
        lambda g: np.tensordot(weights, np.asarray(g, np.float64), 1), gradients(pairs)
    )


def losses(params, supervised):
    """[16] L_Sup of every sequence, and its probability."""
    trace = table(params["policy"], EVERY)
    probability = jnp.exp(jnp.sum(trace.log_prob, axis=1))
    if supervised == "next_decision":
        return -(trace.log_prob[:, 1] + trace.log_prob[:, 2]) / 2, probability
    decoder, state = params["decoder"], params["policy"]["state"].reshape(16, WIDTH)
    logits = [state @ decoder["weight"][t] + decoder["bias"][None, t] for t in (0, 2)]
    nats = [
        jax.nn.logsumexp(x, axis=1) - x[np.arange(16), EVERY[:, t]]
        for t, x in zip((0, 2), logits, strict=True)
    ]
    return (nats[0] + nats[1]) / 3, probability


def assert_gradient_is_of(loss, params, mean):
    gradient = jax.jit(jax.grad(loss))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mean, gradient)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 0.01


def test_predicting_its_own_samples_asks_nothing_of_the_policy():
    """E[grad -log p(a_t | a_<t)] = 0: with samples held constant there is nothing to learn, and
    nothing to cheat.
    """
    _, mean = expected_gradient("current", "next_decision")
    for leaf in jax.tree.leaves(mean):
        np.testing.assert_allclose(leaf, 0, atol=1e-6)


def test_reconstructing_its_own_samples_asks_something_of_the_states_and_nothing_of_the_choices():
    params, mean = expected_gradient("current", "reconstruct")

    def loss(params):
        values, probability = losses(params, "reconstruct")
        return jnp.vdot(jax.lax.stop_gradient(probability), values)

    assert_gradient_is_of(loss, params, mean)
    assert not mean["policy"]["first"].any() and not mean["policy"]["second"].any()


@pytest.mark.parametrize("supervised", ["next_decision", "reconstruct"])
def test_the_gradient_through_the_sampling_is_that_of_the_expected_loss(supervised):
    params, mean = expected_gradient("current_with_gradient", supervised)

    def loss(params):
        values, probability = losses(params, supervised)
        return jnp.vdot(probability, values)

    assert_gradient_is_of(loss, params, mean)


def test_with_it_the_next_decision_loss_is_the_entropy_of_all_decisions_but_the_first():
    """A policy that is rewarded for being predictable: what the paper calls cheating."""
    params, mean = expected_gradient("current_with_gradient", "next_decision")

    def entropy(params):
        trace = table(params["policy"], EVERY)
        return (
            jnp.vdot(
                jnp.exp(jnp.sum(trace.log_prob, axis=1)), trace.entropy[:, 1] + trace.entropy[:, 2]
            )
            / 2
        )

    assert_gradient_is_of(entropy, params, mean)


def test_what_is_remembered_and_what_is_fresh_are_measured_apart():
    made = strategy()
    state = begin(made, start(made), 0)
    assert measured(made, state) == (pytest.approx(0, abs=1e-3), pytest.approx(0, abs=1e-3))
    other = state.replace(
        memory=jax.jit(memories.write)(state.memory, np.repeat(SEQUENCES[1:2], 6, axis=0))
    )
    assert measured(made, other) == (pytest.approx(MISMATCH), pytest.approx(0, abs=1e-3))
    moved = with_policy(
        other, 1
    )  # knows its memory by heart, and nothing of what the old policy draws
    assert measured(made, moved) == (pytest.approx(0, abs=1e-3), pytest.approx(MISMATCH))


def measured(made, state):
    found = made.measure(state, jax.random.key(7))
    return float(found["supervised_remembered"]), float(found["supervised_fresh"])
