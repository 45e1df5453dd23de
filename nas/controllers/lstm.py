"""The LSTM controller of ENAS (Pham et al. 2018, section 2.1; settings in section 3).

One step per decision: its input is the embedding of the previous decision (a learned start for the
first), its output goes through the head of that position. After the last decision one more step
consumes it, so that `hidden[:, T]` has seen the whole architecture.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from nas.config import check
from nas.controllers import masking
from nas.spaces import SearchSpace
from nas.types import Array, Params, Policy, Trace


@dataclasses.dataclass(frozen=True)
class LSTMSettings:
    """The controller of ENAS.

    Raises:
      UserError: a value that its field does not allow; names the field.
    """

    width: int = 100  # hidden width
    temperature: float = 5.0  # logits are tanh_constant * tanh(logits / temperature)
    tanh_constant: float = 2.5
    init_scale: float = 0.1  # weights start uniform in [-init_scale, init_scale]

    def __post_init__(self):
        check("width", self.width >= 1, "at least 1", self.width)
        for name in ("temperature", "tanh_constant", "init_scale"):
            check(name, getattr(self, name) > 0, "positive", getattr(self, name))


def lstm_policy(space: SearchSpace, config: LSTMSettings) -> Policy:
    """The controller: `config.width` units, one embedding per (kind, choice), one head per
    position.

    Parameters, with H the width, R the number of (kind, choice) pairs: start [H], embedding [R, H],
    input and recurrent [H, 4H], bias [4H], head [T, H, K], head_bias [T, K].
    """
    width, length = config.width, space.num_decisions
    first_row, num_rows = _embedding_rows(space)
    mask = space.choice_mask()  # [T, K]

    def init(key: Array) -> Params:
        shapes = {
            "start": (width,),
            "embedding": (num_rows, width),
            "input": (width, 4 * width),
            "recurrent": (width, 4 * width),
            "head": (length, width, space.max_choices),
        }
        uniform = {
            name: jax.random.uniform(k, shape, minval=-config.init_scale, maxval=config.init_scale)
            for k, (name, shape) in zip(
                jax.random.split(key, len(shapes)), shapes.items(), strict=True
            )
        }
        return uniform | {
            "bias": jnp.zeros(4 * width),
            "head_bias": jnp.zeros((length, space.max_choices)),
        }

    def gate_inputs(params: Params) -> Array:
        """[1 + R, 4H] what the start and every embedding add to the gates."""
        inputs = jnp.concatenate([params["start"][None], params["embedding"]])
        return inputs @ params["input"] + params["bias"][None]

    def log_probs(params: Params, hidden: Array, position: Array | slice) -> Array:
        """[n, ..., K] log probabilities at the positions that `position` selects."""
        logits = (
            jnp.einsum("nth,thk->ntk", hidden, params["head"][position])
            + params["head_bias"][position][None]
        )
        return masking.log_probabilities(
            logits,
            jnp.broadcast_to(jnp.asarray(mask)[position], logits.shape),
            temperature=config.temperature,
            tanh_constant=config.tanh_constant,
        )

    def sample(params: Params, key: Array, n: int, prefix: Array | None = None) -> Array:
        inputs = gate_inputs(params)

        def step(carry, x):
            hidden, cell, gates = carry
            position, forced, key = x
            hidden, cell = _lstm_cell(params["recurrent"], hidden, cell, gates)
            drawn = jax.random.categorical(
                key, log_probs(params, hidden[:, None], position[None])[:, 0]
            )
            decision = jnp.where(forced >= 0, forced, drawn.astype(jnp.int32))
            return (hidden, cell, inputs[1 + jnp.asarray(first_row)[position] + decision]), decision

        zeros = jnp.zeros((n, width))
        carry = (zeros, zeros, jnp.broadcast_to(inputs[:1], (n, 4 * width)))
        xs = (
            jnp.arange(length),
            masking.forced(prefix, n, length).T,
            jax.random.split(key, length),
        )
        return jax.lax.scan(step, carry, xs)[1].T

    def score(params: Params, decisions: Array) -> Trace:
        chex.assert_shape(decisions, (None, length))
        chex.assert_type(decisions, int)
        # [T, n] row of `gate_inputs` for each decision; row 0 is the start.
        rows = 1 + jnp.asarray(first_row)[:, None] + decisions.T
        rows = jnp.concatenate([jnp.zeros_like(rows[:1]), rows])
        # [n, T + 1, H]
        hidden = _hidden_states(params["recurrent"], gate_inputs(params), rows).swapaxes(0, 1)
        every = log_probs(params, hidden[:, :-1], slice(None))
        return Trace(masking.take(every, decisions), masking.entropy(every), every, hidden)

    return Policy(init, sample, score, width)


def _lstm_cell(recurrent: Array, hidden: Array, cell: Array, gates: Array) -> tuple[Array, Array]:
    """One step; `gates` [n, 4H] already holds the input's part and the bias."""
    return _outputs(cell, gates + hidden @ recurrent)


def _outputs(cell: Array, gates: Array) -> tuple[Array, Array]:
    """Next state and cell [n, H] from the cell and the gates [n, 4H], before their
    nonlinearities.
    """
    i, f, o, g = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


@jax.custom_vjp
def _hidden_states(recurrent: Array, inputs: Array, rows: Array) -> Array:
    """[S, n, H] the states after each of S steps from zero.

    The weights' gradients are formed by one product over all steps. Plain differentiation would add
    up one product per step, and the rows of `inputs` one by one.

    Args:
      recurrent: [H, 4H].
      inputs: [R, 4H], what each kind of input adds to the gates.
      rows: [S, n] int32, which row each step reads.
    """
    return _forward(recurrent, inputs, rows)[0]


def _forward(recurrent, inputs, rows):
    def step(carry, row):
        hidden, cell = carry
        gates = inputs[row] + hidden @ recurrent
        after = _outputs(cell, gates)
        return after, (after[0], (hidden, cell, gates))

    zeros = jnp.zeros((rows.shape[1], len(recurrent)), recurrent.dtype)
    hidden, before = jax.lax.scan(step, (zeros, zeros), rows)[1]
    return hidden, (recurrent, inputs, rows, before)


def _backward(saved, of_hidden):
    recurrent, inputs, rows, before = saved

    def step(carry, x):
        of_state, of_cell = carry  # gradients of this step's state and cell from later steps
        of_hidden, cell, gates = x
        of_cell, of_gates = jax.vjp(_outputs, cell, gates)[1]((of_state + of_hidden, of_cell))
        return (of_gates @ recurrent.T, of_cell), of_gates

    zeros = jnp.zeros_like(of_hidden[0])
    of_gates = jax.lax.scan(step, (zeros, zeros), (of_hidden, *before[1:]), reverse=True)[1]
    of_gates = of_gates.reshape(-1, of_gates.shape[-1])
    of_recurrent = before[0].reshape(-1, len(recurrent)).T @ of_gates
    of_inputs = jax.nn.one_hot(rows.reshape(-1), len(inputs), axis=0, dtype=inputs.dtype) @ of_gates
    return of_recurrent, of_inputs, None


_hidden_states.defvjp(_forward, _backward)


def _embedding_rows(space: SearchSpace) -> tuple[np.ndarray, int]:
    """int32[T]: the row of choice 0 at each position, and the number of rows; positions of one kind
    share their rows.
    """
    sizes: dict[str, int] = {}
    for kind, choices in zip(space.kinds, space.num_choices, strict=True):
        sizes[kind] = max(sizes.get(kind, 0), choices)
    ends = dict(zip(sizes, np.cumsum(list(sizes.values())), strict=True))
    return np.array([ends[kind] - sizes[kind] for kind in space.kinds], np.int32), int(
        sum(sizes.values())
    )
