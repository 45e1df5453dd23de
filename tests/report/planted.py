"""Arms whose states follow the similarity of architectures as far as a test wants."""

import dataclasses
import math

import numpy as np

from nas.evaluation import correlations, overlap
from nas.evaluation.samples import SETS, Behaviour, Sample
from nas.report.arms import answers, summary
from nas.report.arms.arm import MeasuredArm
from nas.report.arms.searches import Searched
from tests.helpers import recurrent_task

TASK = recurrent_task(4)


SPACE = TASK.space


ROWS = summary.rows(TASK)


T, K = SPACE.num_decisions, SPACE.max_choices


N = 24  # architectures


NAN = float("nan")


YARDSTICKS = {"unigram": 243.3, "bigram, Kneser-Ney": 56.1}


DECISIONS = np.random.default_rng(0).integers(0, SPACE.num_choices, (N, T)).astype(np.int32)


EDITS = correlations.edit_distances(SPACE, DECISIONS)


OVERLAP = overlap.common_decisions(SPACE, DECISIONS, "activation", "connection")


DEFAULT = ("untrained", "pg", "memory")


TITLES = {
    "untrained": "untrained",
    "pg": "PG only",
    "memory": "PG + memory",
    "uniform": "uniform policy",
}


def embed(squared):
    """[n, H] points whose squared distances are these [P] and a constant: classical scaling."""
    n = len(DECISIONS)
    full = np.zeros((n, n))
    full[np.triu_indices(n, 1)] = squared
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centre @ (full + full.T) @ centre / 2)
    return vectors * np.sqrt(values - values.min())


def planted(
    key,
    by_overlap=0.0,
    by_performance=0.0,
    *,
    seeds=1,
    perplexity=60.0,
    gain=1.0,
    **changes,
):
    """An arm whose squared distances of states grow with overlap and performance difference."""
    samples, behaviours = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, *key.encode()])
        loss = rng.normal(4, 0.3, N)
        performance = overlap.feature_difference(loss)
        noise = rng.normal(0, 0.5, len(OVERLAP))
        states = embed(by_overlap * OVERLAP + 6 * by_performance * performance + noise)
        common = np.full(N, NAN)
        one = Sample(DECISIONS, states, states, loss, common, EDITS)
        samples.append(dict.fromkeys(SETS, one._replace(**changes)))
        behaviours.append(behaviour(rng, gain))
    best = NAN if key == "untrained" else math.log(perplexity)
    return MeasuredArm(TITLES.get(key, key), samples, behaviours, [best] * seeds)


def behaviour(rng, gain):
    """A uniform policy, and states that tell its decisions by `gain` times what noise hides."""
    own = rng.integers(0, SPACE.num_choices, (60, T)).astype(np.int32)
    log_probs = np.log(SPACE.choice_mask() / np.array(SPACE.num_choices)[:, None] + 1e-300)
    every = np.broadcast_to(log_probs, (len(own), T, K))
    signal = gain * overlap.one_hot(SPACE, own)
    states = signal + rng.normal(size=signal.shape)
    return Behaviour(own, every, own, every, states, np.zeros((T, T)), own[:50].reshape(10, 5, T))


def default(*signs, seeds=1, keys=DEFAULT):
    """The arms of a quick study with the signs of their overlaps."""
    return {key: planted(key, sign, seeds=seeds) for key, sign in zip(keys, signs, strict=True)}


def trained(arms):
    steps = np.arange(3)
    names = ("perplexity", "reward", "entropy", "supervised_loss")
    epochs = {f"supervised_{name}": (steps, 3.0 - steps) for name in ("remembered", "fresh")}
    return [
        Searched(
            arm.title,
            dict.fromkeys(names, (steps, 50.0 - steps)),
            [epochs] * len(arm.samples),
            [DECISIONS[0]] * len(arm.samples),
            arm.best_loss,
            "memory" in arm.title,
        )
        for key, arm in arms.items()
        if key != "untrained"
    ]


def told(arms):
    """(row, set) -> its sentence."""
    sentences = summary.readings(TASK, arms)
    return {(row.name, row.which): text for row, text in zip(ROWS.table, sentences, strict=True)}


def answered(arms):
    """Number of a question -> its answer."""
    found = answers.answers(TASK, arms, trained(arms), YARDSTICKS)
    return dict(enumerate(found, 1))


def terminal(arms, path="runs/table_correlations/kjv_quick/report/index.html"):
    table = summary.summary_table(TASK, arms, "command", width=summary.WIDTH)
    best = summary.best_cells(TASK, trained(arms), YARDSTICKS)
    ran = "Searched, 5 min 2 s in all: PG only; PG + memory (14 epochs, kjv, seed 0)."
    return summary.printed(ran, table, summary.readings(TASK, arms), best, path)


def cells(table):
    """(row, set) -> column -> cell."""
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, [cell.text for cell in row], strict=True)) for row in table.cells()]
    return {(row["measure"], row["set"]): row for row in rows}


def stateless(key, seeds=1):
    arm = planted(key, seeds=seeds)
    none = np.zeros((N, 0))
    samples = [seed["own"]._replace(after=none, before=none) for seed in arm.samples]
    samples = [dict.fromkeys(SETS, sample) for sample in samples]
    return dataclasses.replace(arm, samples=samples)
