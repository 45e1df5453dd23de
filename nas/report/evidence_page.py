"""The page of the evidence study: tables and figures of all arms as one HTML file, and each of them as a file beside it."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nas.evaluation import correlations
from nas.evaluation.conditioning import by_lag
from nas.report import evidence, evidence_figures, figures
from nas.report.evidence import Arm
from nas.report.evidence_figures import Curve, Panel
from nas.report.html import Report
from nas.report.style import PALETTE
from nas.report.tables import Table
from nas.spaces import SearchSpace

_PREFIXES = 20  # own samples in a heat map
_POSITION = "position of the decision"
_DPI = 150  # of the PNG files
_SECTIONS = {  # heading -> tables
    "What the memory changes": ("primary", "exploratory"),
    "Distances of states": ("correlations_uniform", "correlations_own", "correlations_own_yardsticks"),
    "Performance": ("performance_uniform", "performance_own"),
    "How the policies decide": ("behaviour", "identical_states"),
}


def write_report(
    path: pathlib.Path,
    space: SearchSpace,
    arms: dict[str, Arm],
    tables: dict[str, Table],
    commands: Sequence[str],
    details: Mapping[str, object],
) -> pathlib.Path:
    """Writes the page to `path`, its tables beside it as NAME.csv and its figures as NAME-ARM.png; returns `path`."""
    report = Report(
        "Does the controller know what it is building?",
        "Several arms and seeds: distances of hidden states against the similarity and performance of architectures, and how "
        "the policies decide. Only the primary comparisons test a claim; everything else is exploratory.",
    )
    for heading, names in _SECTIONS.items():
        report.section(heading)
        for name in names:
            report.table(tables[name])
            tables[name].csv(path.parent / f"{name}.csv")
        for name, (drawn, caption) in _figures(heading, space, arms).items():
            report.figure(list(drawn.values()), caption, [f"{caption} {key}" for key in drawn])
            for key, figure in drawn.items():
                figure.savefig(path.parent / f"{name}-{key}.png", dpi=_DPI, facecolor="white")
    report.section("Commands and versions")
    report.commands(commands)
    report.details(details)
    return report.write(path)


def _figures(heading, space, arms) -> dict[str, tuple[dict[str, Figure], str]]:
    """name -> (arm -> figure, caption)."""
    with_state = {key: arm for key, arm in arms.items() if arm.has_state}

    def each(draw: Callable[[SearchSpace, Arm], Figure], some=with_state):
        return {key: draw(space, arm) for key, arm in some.items()}

    if heading == "What the memory changes":
        found = _forest(space, arms)
        return {"primary": ({"all": found}, "Primary differences with their 95 % intervals.")} if found else {}
    if heading == "Distances of states":
        return {
            "overlap": (each(_overlap_density), "Uniform set, first seed: pairs by total overlap and distance of states."),
            "edit_distance": (
                each(_edit_density),
                "Uniform set, first seed: pairs by exact edit distance and distance of states.",
            ),
        }
    if heading == "Performance":
        return {"components": (each(_components), "Uniform set, first seed: principal components of the states, coloured.")}
    return {
        "probes": (
            each(_probe_curves),
            "Accuracy of linear probes of the state after a uniform sequence; dashed: the most frequent choice; bands: 95 % "
            "intervals over seeds.",
        ),
        "conditioning": (
            each(_conditioning_curves, arms),
            "Entropy of decisions, and how far their distribution moves with the decisions before; bands: 95 % intervals.",
        ),
        "influence": (each(_influence_curve, arms), "Influence of a decision on a later one by their distance, uniform set."),
        "certainty": (
            each(_certainty, arms),
            f"First seed: probability of the most likely action along {_PREFIXES} own samples. Rows that are alike: the policy "
            "does not look back. White: no choice.",
        ),
    }


def _forest(space, arms):
    found = evidence.differences(space, arms, [key for key in evidence.PRIMARY_ARMS if key in arms])
    names = [f"{arm}, less {reference}: {measure}" for arm, reference, measure in found]
    mean, low, high = ([getattr(paired, part) for paired in found.values()] for part in ("mean", "low", "high"))
    return figures.bars_with_intervals(names, mean, low, high, label="difference of correlations") if found else None


def _overlap_density(space, arm):
    return _density(space, arm, correlations.TOTAL, "total overlap (decisions)")


def _edit_density(space, arm):
    return _density(space, arm, evidence.EDIT_DISTANCES[0], "exact edit distance (edits)")


def _density(space, arm, measure, x_label):
    sample = arm.samples[0]["uniform"]
    distance = correlations.distances(sample.after)
    x = correlations.measures(space, sample)[measure]
    return evidence_figures.density(arm.title, x, distance, x_label=x_label, y_label="distance of states (L2)")


def _components(space, arm):
    sample = arm.samples[0]["uniform"]
    colorings = {"log perplexity (nats)": sample.log_perplexity} | fractions(space, sample.decisions)
    return evidence_figures.projections(arm.title, sample.after, colorings)


def fractions(space: SearchSpace, decisions: np.ndarray) -> dict[str, np.ndarray]:
    """label -> [n] share of an architecture's nodes that have it."""
    positions = [t for t, kind in enumerate(space.kinds) if kind in ("activation", "operation")]
    chosen = decisions[:, positions]
    return {
        f"fraction {space.label_names[k]}": (chosen == k).mean(axis=1)
        for k in range(max(space.num_choices[t] for t in positions))
    }


def _probe_curves(space, arm):
    accuracy, majority = (np.stack([getattr(probe, part) for probe in arm.probes]) for part in ("accuracy", "majority"))
    curves = []
    for color, kind in zip(PALETTE, dict.fromkeys(space.kinds), strict=False):
        at = space.positions(kind)
        curves.append(Curve(kind, at, accuracy[:, at], color))
        curves.append(Curve(f"{kind}, majority", at, majority[:, at], color, dashed=True))
    return evidence_figures.stacked_curves(arm.title, [Panel(curves, "held-out accuracy", (0, 1.02))], _POSITION)


def _conditioning_curves(space, arm):
    free = np.flatnonzero(np.array(space.num_choices) > 1)
    own, uniform = (
        {part: np.stack([getattr(seed, part)[free] for seed in found]) for part in ("entropy", "divergence")}
        for found in (arm.own_conditioning, arm.uniform_conditioning)
    )
    panels = [
        Panel(
            [Curve("own samples", free, own[part], PALETTE[0]), Curve("uniform prefixes", free, uniform[part], PALETTE[1])],
            label,
        )
        for part, label in (("entropy", "entropy (nats)"), ("divergence", "conditioning, KL (nats)"))
    ]
    return evidence_figures.stacked_curves(arm.title, panels, _POSITION)


def _influence_curve(space, arm):
    lags = np.array([by_lag(behaviour.influence, space.num_choices) for behaviour in arm.behaviours])
    curve = Curve("", np.arange(1, space.num_decisions), lags, PALETTE[0])
    return evidence_figures.stacked_curves(arm.title, [Panel([curve], "influence, mean (nats)")], "lag (decisions)")


def _certainty(space, arm):
    likeliest = np.exp(arm.behaviours[0].own_log_probs[:_PREFIXES]).max(axis=-1)
    shown = np.where(np.array(space.num_choices) > 1, likeliest, np.nan)
    return evidence_figures.heat_map(
        arm.title, shown, x_label=_POSITION, y_label="own sample", label="probability of the likeliest action"
    )
