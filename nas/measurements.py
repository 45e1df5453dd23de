"""Measures a run directory: the architectures that an evaluation compares, with their embeddings
and losses, as arrays.

There are two evaluation sets: `uniform`, the same for every run of a space, and `own`, samples of
the controller. The untrained controller that the run started from is measured in the same way,
under the run's shared weights. How each policy decides is measured as well. The arrays are saved as
evaluation.npz, which later calls read. Until then losses.npz holds the losses that are known, so
that an evaluation which was stopped goes on.
"""

import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nas.arrays import load_arrays, save_arrays
from nas.config import Config, EvaluationConfig, override
from nas.errors import UserError
from nas.evaluation.conditioning import influence
from nas.evaluation.correlations import edit_distances
from nas.evaluation.samples import Behaviour, Sample
from nas.progress import track
from nas.runs import Run
from nas.types import Array, Params, Trace

FILE, LOSSES = "evaluation.npz", "losses.npz"
UNIFORM, OWN = "uniform", "own"
TRAINED, UNTRAINED = "trained", "untrained"
_BEHAVIOUR = "behaviour"
_UNIFORM_KEY, _OWN_KEY, _CONTINUED_KEY = 1904, 438, 2019  # seeds, the same for all runs
_DRAWN = 1000  # architectures drawn at a time, and those that show how a policy decides
_SAVED = 100  # losses after which they are saved
_GROUPS = _CONTINUED = 20  # intermediate states, and architectures sampled from each
_ALTERED = 200  # uniform sequences whose decisions are altered one by one


class Measured(NamedTuple):
    """What was measured of one controller."""

    samples: dict[str, Sample]  # set -> sample
    behaviour: Behaviour


class Measurements(NamedTuple):
    """What was measured of one run."""

    controllers: dict[str, Measured]  # TRAINED, and UNTRAINED if asked for
    best_loss: float  # best validated architecture, on the whole validation split


def evaluation(config: Config, architectures: int = 0, pairs: int = 0) -> EvaluationConfig:
    """The evaluation of a configuration, with another number of architectures or pairs unless 0.

    Raises:
      UserError: a number that is not allowed.
    """
    wanted = {"architectures": architectures, "pairs": pairs}
    changes = {"evaluation": {name: value for name, value in wanted.items() if value}}
    return override(config, changes).evaluation


def measure(
    run: Run,
    *,
    architectures: int = 0,
    pairs: int = 0,
    untrained: bool = True,
    common: Run | None = None,
) -> Measurements:
    """Measures a run, or reads what was measured before at the same checkpoint.

    Args:
      architectures, pairs: of each set; 0: as many as the run's configuration says.
      untrained: whether the controller that the run started from is measured too.
      common: a run under whose shared weights the architectures are measured as well.

    Raises:
      UserError: the data cannot be read, or fewer pairs are asked for than an evaluation needs.
    """
    plan = evaluation(run.config, architectures, pairs)
    n, block = plan.compared, plan.block
    names = [TRAINED, UNTRAINED] if untrained else [TRAINED]
    blocks = [] if block == n else [block]
    stamp = np.array([n, *_stamp(run), *(_stamp(common) if common else []), *blocks])
    if saved := _load(run, names, stamp):
        return saved
    params = {TRAINED: run.policy_params}
    if untrained:
        params[UNTRAINED] = run.untrained_policy_params()
    uniform = _drawn(run.space.sample_uniform, _UNIFORM_KEY, n)
    sample = jax.jit(run.policy.sample, static_argnums=2)
    own = {name: _drawn(functools.partial(sample, params[name]), _OWN_KEY, n) for name in names}
    compared = {UNIFORM: uniform[:n], **{name: drawn[:n] for name, drawn in own.items()}}
    every = np.concatenate(list(compared.values()))
    weights = [run] if common is None or common is run else [run, common]
    with track("evaluation", total=len(weights) * len(every), unit="architecture") as advance:
        exact = [
            edit_distances(run.space, decisions, block=block) for decisions in compared.values()
        ]
        behaviours = {
            name: _behaviour(run, params[name], own[name][:_DRAWN], uniform[:_DRAWN])
            for name in names
        }
        whole = run.valid_batches(whole=True)
        best = float(
            jax.jit(run.reward.evaluate)(run.state.reward, run.state.best_decisions[None], whole)[0]
        )
        values = _losses(run, weights, every, stamp, advance).reshape(len(weights), -1, n)
    measured = values[0], values[-1] if common else np.full_like(values[0], np.nan), exact
    controllers = {}
    for i, name in enumerate(names, 1):
        samples = {
            UNIFORM: _sample(run, params[name], uniform[:n], *(of[0] for of in measured)),
            OWN: _sample(run, params[name], own[name][:n], *(of[i] for of in measured)),
        }
        controllers[name] = Measured(samples, behaviours[name])
    arrays = {
        f"{name}/{which}/{field}": array
        for name, controller in controllers.items()
        for which, part in {**controller.samples, _BEHAVIOUR: controller.behaviour}.items()
        for field, array in part._asdict().items()
    }
    save_arrays(run.workdir / FILE, arrays | {"stamp": stamp, "best": np.float64(best)})
    (run.workdir / LOSSES).unlink(missing_ok=True)
    return Measurements(controllers, best)


def _losses(run, weights, decisions, stamp, advance):
    """[W, n] losses of architectures [n, T] under the weights of W runs, saved as they come."""
    path, stamp = run.workdir / LOSSES, np.append(stamp, len(decisions))
    batches = run.valid_batches()
    values = _saved(path, stamp).get("losses", np.zeros(0, np.float32))
    advance(len(values))
    while len(values) < len(weights) * len(decisions):
        row, first = divmod(len(values), len(decisions))
        group = decisions[first : first + _SAVED]
        found = weights[row].losses(group, batches, advance)
        values = np.concatenate([values, found])
        save_arrays(path, {"losses": values, "stamp": stamp})
    return values.reshape(len(weights), -1)


def _stamp(run):
    """Numbers that distinguish a checkpoint from all others that this run directory, or one like
    it, ever held.
    """
    return [
        run.config.seed,
        run.progress["epoch"],
        run.progress["shared"],
        run.progress["controller"],
    ]


def _saved(path, stamp):
    """The arrays that were saved with this stamp; none where there are none, or damaged ones."""
    try:
        saved = load_arrays(path)
        return saved if np.array_equal(saved.get("stamp"), stamp) else {}
    except UserError as error:
        if path.exists():
            print(f"warning: {error}; it is measured again", file=sys.stderr)
        return {}


def _load(run, names, stamp):
    try:
        saved = _saved(run.workdir / FILE, stamp)

        def part(kind, prefix):
            return kind(*(saved[f"{prefix}/{field}"] for field in kind._fields))

        controllers = {
            name: Measured(
                {which: part(Sample, f"{name}/{which}") for which in (UNIFORM, OWN)},
                part(Behaviour, f"{name}/{_BEHAVIOUR}"),
            )
            for name in names
        }
        return Measurements(controllers, float(saved["best"]))
    except KeyError:  # nothing was saved, or fewer controllers
        return None


def _drawn(sample: Callable[[Array, int], Array], seed: int, n: int) -> np.ndarray:
    """[n rounded up to a multiple of _DRAWN, T] draws; the first ones do not depend on n."""
    key = jax.random.key(seed)
    groups = range(max(1, -(-n // _DRAWN)))
    keys = [jax.random.fold_in(key, group) if group else key for group in groups]
    return np.concatenate([np.asarray(sample(key, _DRAWN)) for key in keys])


def _sample(run: Run, params: Params, decisions: np.ndarray, *measured: np.ndarray) -> Sample:
    score, after, before = jax.jit(run.policy.score), [], []
    for start in range(0, len(decisions), _DRAWN):
        trace = score(params, jnp.asarray(decisions[start : start + _DRAWN]))
        after.append(_embedding(trace, "after"))
        before.append(_embedding(trace, "before"))
    return Sample(decisions, np.concatenate(after), np.concatenate(before), *measured)


def _behaviour(run: Run, params: Params, own: np.ndarray, uniform: np.ndarray) -> Behaviour:
    score = jax.jit(run.policy.score)
    known, trace = score(params, own), score(params, uniform)
    start = run.space.num_decisions // 2
    prefixes = np.repeat(own[:_GROUPS, :start], _CONTINUED, axis=0)
    continued = run.policy.sample(params, jax.random.key(_CONTINUED_KEY), len(prefixes), prefixes)
    return Behaviour(
        own=own,
        own_log_probs=np.asarray(known.log_probs),
        uniform=uniform,
        uniform_log_probs=np.asarray(trace.log_probs),
        uniform_after=_embedding(trace, "after"),
        influence=influence(
            lambda every: score(params, every).log_probs, uniform[:_ALTERED], run.space.num_choices
        ),
        continued=np.asarray(continued).reshape(_GROUPS, _CONTINUED, -1),
    )


def _embedding(trace: Trace, reading: str) -> np.ndarray:
    """[n, H] states that stand for the architectures; H = 0 without a hidden state."""
    return (
        np.zeros((len(trace.log_prob), 0), np.float32)
        if trace.hidden is None
        else np.asarray(trace.embedding(reading))
    )
