"""From a run directory to arrays: the architectures that an evaluation compares, their embeddings and perplexities.

Two evaluation sets: `uniform`, the same for every run of a space, and `own`, samples of the controller. For the
controller that the run started from the same is measured under the run's shared weights. Saved as evaluation.npz, which
later calls read.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nas.checkpoint import load_arrays, save_arrays
from nas.errors import UserError
from nas.evaluation.correlations import Sample, edit_distances, first_approximation
from nas.runs import Run
from nas.types import Params

FILE = "evaluation.npz"
UNIFORM, OWN = "uniform", "own"
TRAINED, UNTRAINED = "trained", "untrained"
_UNIFORM_KEY, _OWN_KEY = 1904, 438  # seeds of the two sets; the same for all runs
_TOGETHER = 10  # architectures per compiled call: what the progress bar counts

Measurements = dict[str, dict[str, Sample]]  # controller -> set -> sample


def measure(
    run: Run, *, architectures: int = 0, untrained: bool = True, progress_bar: bool = True
) -> tuple[Measurements, float]:
    """Measures a run, or reads what was measured of the same checkpoint.

    Args:
      architectures: of each set; 0: as many as the run's configuration says.
      untrained: also the controller that the run started from.

    Returns:
      controller -> set -> sample, and the log perplexity of the best validated architecture on the whole validation split.

    Raises:
      UserError: the corpus cannot be read.
    """
    n = architectures or run.config.evaluation.architectures
    controllers = [TRAINED, UNTRAINED] if untrained else [TRAINED]
    stamp = np.array([n, run.progress["epoch"], run.progress["shared"], run.progress["controller"]])
    if saved := _load(run, controllers, stamp):
        return saved
    params = {TRAINED: run.policy_params}
    if untrained:
        params[UNTRAINED] = run.untrained_policy_params()
    uniform = np.asarray(run.space.sample_uniform(jax.random.key(_UNIFORM_KEY), n))
    own = {name: np.asarray(run.policy.sample(params[name], jax.random.key(_OWN_KEY), n)) for name in controllers}
    values = _log_perplexities(run, np.concatenate([uniform, *own.values()]), progress_bar).reshape(-1, n)
    exact = [edit_distances(run.space, decisions, progress=progress_bar) for decisions in (uniform, *own.values())]
    measured = {}
    for i, name in enumerate(controllers, 1):
        approximation = first_approximation(run.space, own[name], progress=progress_bar)
        measured[name] = {
            UNIFORM: _sample(run, params[name], uniform, values[0], exact[0], np.zeros(0, np.int32)),
            OWN: _sample(run, params[name], own[name], values[i], exact[i], approximation),
        }
    best = float(run.reward.evaluate(run.state.reward, run.state.best_decisions[None], run.valid_windows(whole=True))[0])
    arrays = {
        f"{name}/{which}/{field}": array
        for name, samples in measured.items()
        for which, sample in samples.items()
        for field, array in sample._asdict().items()
    }
    save_arrays(run.workdir / FILE, arrays | {"stamp": stamp, "best": np.float64(best)})
    return measured, best


def _load(run, controllers, stamp):
    try:
        saved = load_arrays(run.workdir / FILE)
        if not np.array_equal(saved["stamp"], stamp):
            return None
        measured = {
            name: {which: Sample(*(saved[f"{name}/{which}/{field}"] for field in Sample._fields)) for which in (UNIFORM, OWN)}
            for name in controllers
        }
        return measured, float(saved["best"])
    except (UserError, KeyError):  # absent, cut off, or of fewer controllers
        return None


def _sample(run: Run, params: Params, decisions: np.ndarray, *measured: np.ndarray) -> Sample:
    trace = run.policy.score(params, jnp.asarray(decisions))
    after, before = (np.asarray(trace.embedding(reading)) for reading in ("after", "before"))
    return Sample(decisions, after, before, *measured)


def _log_perplexities(run, decisions, progress_bar):
    """[n] nats a token under the run's shared weights."""
    from tqdm import tqdm

    windows = run.valid_windows()
    evaluate = jax.jit(run.reward.evaluate)
    padded = np.concatenate([decisions, np.repeat(decisions[:1], -len(decisions) % _TOGETHER, axis=0)])
    values = []
    with tqdm(total=len(decisions), unit="architecture", disable=not progress_bar) as bar:
        for start in range(0, len(padded), _TOGETHER):
            values.append(np.asarray(evaluate(run.state.reward, padded[start : start + _TOGETHER], windows)))
            bar.update(min(_TOGETHER, len(decisions) - start))
    return np.concatenate(values)[: len(decisions)]
