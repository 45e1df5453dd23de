"""Variants of the arms with a memory: what is changed, one setting at a time, and what is measured
of each.
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import kept
from experiments.tabular import judging, seeds, settings
from nas import config as configs
from nas.config import Config
from nas.controllers import build_policy
from nas.data.table import ScoreTable
from nas.evaluation import correlations, overlap
from nas.spaces import SearchSpace

RECONSTRUCT, NEXT = "memory", "memory_next"  # arms
DOUBLE_SOFTMAX = "double softmax"
SIZES, PERIODS = (
    (10, 100, 1000, 10_000),
    (1, 2, 5, 0),
)  # sequences; epochs between refreshes, 0: filled once
UNIFORM, OWN, CONDITIONING, ENTROPY = "uniform set", "own samples", "total correlation", "entropy"
_FIRST_SEED = 200  # of no other study
# constant * tanh(logits / (constant * temperature)) is logits / temperature: the paper's code at
# evaluation
_TANH_OFF = 1e3


class Variant(NamedTuple):
    """One setting changed."""

    setting: str
    value: str
    fields: dict[str, dict[str, Any]] = {}  # group of the configuration -> field -> value
    reading: str = "after"  # of the state
    tanh: bool = True  # whether policies are read and sampled with the tanh constant at the end
    longer: float = 1.0  # times as many updates

    @property
    def arms(self) -> tuple[str, ...]:
        """Those that the setting can change."""
        return (NEXT,) if self.setting == DOUBLE_SOFTMAX else (RECONSTRUCT, NEXT)


def one_at_a_time() -> list[Variant]:
    """The base, then each setting changed alone."""

    def numbers(setting, group, field, *values):
        return [Variant(setting, f"{value:g}", {group: {field: value}}) for value in values]

    return [
        Variant("base", ""),
        *numbers("lambda", "strategy", "supervised_weight", 0.1, 10.0, 100.0),
        *(memory(size, 1, "memory size", f"{size:,}") for size in SIZES if size != 1000),
        *(
            memory(1000, period, "refreshed", f"every {period} epochs" if period else "never")
            for period in PERIODS[1:]
        ),
        Variant("lag, epochs", "4", {"strategy": {"memory": {"lag": 4}}}),
        *numbers("learning rate", "strategy", "learning_rate", 1e-3, 3e-2),
        *numbers("init scale", "policy", "init_scale", 0.01, 1.0),
        *numbers("temperature", "policy", "temperature", 1.0),
        Variant("state read", "before the last decision", reading="before"),
        Variant("tanh constant, evaluation", "off", tanh=False),
        Variant("updates", "x 0.4", longer=0.4),
        Variant("updates", "x 4", longer=4.0),
        Variant(DOUBLE_SOFTMAX, "on", {"strategy": {"supervised": "double_softmax"}}),
    ]


def memory(size: int, period: int, setting: str, value: str, **changed) -> Variant:
    """Another number of sequences, or of epochs between refreshes."""
    held = {"capacity": size, "refresh_size": size, "refresh_period": period}
    return Variant(setting, value, {"strategy": {"memory": held}}, **changed)


def configure(arm: str, variant: Variant, size: settings.Size, space: SearchSpace) -> Config:
    """The configuration of an arm with the variant's setting changed."""
    return configs.override(settings.configure(arm, size, space), variant.fields)


class Bench(NamedTuple):
    """Where variants are measured, and how long."""

    table: ScoreTable  # of NAS-Bench-201
    size: settings.Size
    folder: pathlib.Path  # of finished pieces

    def measure(self, arm: str, variant: Variant) -> dict[str, np.ndarray]:
        """UNIFORM, OWN, CONDITIONING, ENTROPY -> [S]: two correlations of the distance of states
        with the operations in common, and two numbers of the policy in nats, both exact. What was
        measured before is read.
        """
        config = configure(arm, variant, self.size, self.table.space)
        epochs = max(1, round(self.size.updates * variant.longer / self.size.epoch))
        described = [
            dataclasses.asdict(config),
            variant.reading,
            variant.tanh,
            epochs,
            self.size.seeds,
        ]
        path = self.folder / f"{arm}-{variant.setting}-{variant.value}.npz".replace(
            " ", "_"
        ).replace(",", "")
        if (saved := kept.read(path, described)) is not None:
            return saved
        found = self._search(config, variant, epochs)
        kept.write(path, described, found)
        return found

    def _search(self, config, variant, epochs):
        space = self.table.space
        parts = seeds.components(config, space)
        run_seeds = np.arange(_FIRST_SEED, _FIRST_SEED + self.size.seeds, dtype=np.uint32)
        rewards = self.table.rewards(settings.TUNING_SET)
        policies = seeds.run(seeds.program(config, parts), parts, run_seeds, rewards, epochs).policy
        uniform = space.every()[judging.uniform_sample(self.table, settings.OWN_SAMPLES)]
        policy = config.policy
        if not variant.tanh:
            temperature = _TANH_OFF * policy["temperature"]
            policy = policy | {"tanh_constant": _TANH_OFF, "temperature": temperature}
        read = build_policy(policy, space)

        @jax.jit
        def describe(seed, params):
            own = read.sample(params, jax.random.key(seed), settings.OWN_SAMPLES)
            states = [
                read.score(params, decisions).embedding(variant.reading)
                for decisions in (uniform, own)
            ]
            return seeds.every_log_prob(space, read, params), own, *states

        found = {name: [] for name in (UNIFORM, OWN, CONDITIONING, ENTROPY)}
        for s, seed in enumerate(run_seeds):
            params = jax.tree.map(lambda leaf, s=s: leaf[s], policies)
            log_probs, own, *states = map(np.asarray, describe(seed, params))
            for name, decisions, state in zip((UNIFORM, OWN), (uniform, own), states, strict=True):
                operations = overlap.common_decisions(space, decisions, "operation")
                found[name].append(correlations.spearman(correlations.distances(state), operations))
            found[CONDITIONING].append(judging.policy_total_correlation(space, log_probs))
            found[ENTROPY].append(judging.entropy(log_probs))
        return {name: np.array(values) for name, values in found.items()}
