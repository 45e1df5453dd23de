"""The page of the evidence study: tables and figures of all arms as one HTML file, and each of them
as a file beside it.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nas.evaluation import correlations, overlap
from nas.evaluation.conditioning import Conditioning, by_lag
from nas.evaluation.probes import Probe
from nas.report import evidence, evidence_figures, figures, training
from nas.report.answers import Answer
from nas.report.evidence_arms import Arm
from nas.report.evidence_figures import Curve, Panel
from nas.report.html import Report
from nas.report.style import PALETTE
from nas.report.tables import Table
from nas.report.training import Trained
from nas.spaces import SearchSpace

_PREFIXES = 20  # own samples in a heat map
_POSITION = "position of the decision"
_REST = (
    "What follows is the evidence: several arms and seeds, distances of hidden states against the "
    "similarity and performance of architectures, and how the policies decide. Only the primary "
    "comparisons test a claim; everything else is exploratory."
)
_DPI = 150  # of the PNG files
_SECTIONS = {  # heading -> tables
    "The paper's table beside ours": ("summary",),
    "What the memory changes": ("primary", "exploratory"),
    "Distances of states": (
        "correlations_uniform",
        "correlations_own",
        "correlations_own_yardsticks",
        "protocol",
    ),
    "Performance": ("performance_uniform", "performance_own", "perplexity"),
    "How the policies decide": ("behaviour", "identical_states"),
}


def write_report(
    path: pathlib.Path,
    space: SearchSpace,
    arms: dict[str, Arm],
    trained: Sequence[Trained],
    tables: dict[str, Table],
    commands: Sequence[str],
    details: Mapping[str, object],
    *,
    ran: str = "",
    sentences: Sequence[str] = (),
    found: Sequence[Answer] = (),
) -> pathlib.Path:
    """Writes the page to `path`, beside it tables as NAME.csv and figures as NAME-ARM.png.

    Returns `path`.

    Args:
      ran: what was run.
      sentences: what the rows of the table "summary" say.
      found: answers, which open the page.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    report = Report("Does the controller know what it is building?", ran)
    for number, answer in enumerate(found, 1):
        anchor = _anchor(answer.table)
        report.answer(
            answer.question,
            answer.sentence,
            answer.figure,
            alt=f"{answer.question} {answer.caption}",
            table=anchor,
            published=answer.published,
            caption=answer.caption,
        )
        _save(answer.figure, path.parent / f"answer-{number}.png")
    for heading, names in _SECTIONS.items():
        report.section(heading)
        for name in (name for name in names if name in tables):
            add_table(report, path.parent, name, tables[name])
        if "summary" in names:
            report.items(sentences)
            report.text(_REST)
        for name, (drawn, caption) in _figures(heading, space, arms).items():
            add_figures(report, path.parent, name, drawn, caption)
    training.add_sections(report, space, trained)
    report.section("Commands and versions")
    report.commands(commands)
    report.details(details)
    return report.write(path)


def add_table(report: Report, folder: pathlib.Path, name: str, table: Table) -> None:
    """Adds a table to the page and writes it as NAME.csv."""
    report.table(table, _anchor(name))
    table.csv(folder / f"{name}.csv")


def add_figures(
    report: Report, folder: pathlib.Path, name: str, drawn: Mapping[str, Figure], caption: str
) -> None:
    """Adds figures to the page, under one caption, and writes each as NAME-KEY.png."""
    report.figure(list(drawn.values()), caption, [f"{caption} {key}" for key in drawn])
    for key, figure in drawn.items():
        _save(figure, folder / f"{name}-{key}.png")


def probe_curves(space: SearchSpace, title: str, probes: Sequence[Probe]) -> Figure:
    """Accuracy of the probes of each seed by position, and that of the majority, a colour a kind of
    decision.
    """
    accuracy, majority = (
        np.stack([getattr(probe, part) for probe in probes]) for part in ("accuracy", "majority")
    )
    curves = []
    for color, kind in zip(PALETTE, dict.fromkeys(space.kinds), strict=False):
        at = space.positions(kind)
        curves.append(Curve(kind, at, accuracy[:, at], color))
        curves.append(Curve(f"{kind}, majority", at, majority[:, at], color, dashed=True))
    return evidence_figures.stacked_curves(
        title, [Panel(curves, "held-out accuracy", (0, 1.02))], _POSITION
    )


def conditioning_curves(
    space: SearchSpace, title: str, found: Mapping[str, Sequence[Conditioning]]
) -> Figure:
    """Entropy and conditioning by position of name -> one a seed."""
    free = np.flatnonzero(np.array(space.num_choices) > 1)
    panels = []
    for part, label in (("entropy", "entropy (nats)"), ("divergence", "conditioning, KL (nats)")):
        values = {
            name: np.stack([getattr(seed, part)[free] for seed in seeds])
            for name, seeds in found.items()
        }
        panels.append(
            Panel(
                [
                    Curve(name, free, values[name], color)
                    for name, color in zip(found, PALETTE, strict=False)
                ],
                label,
            )
        )
    return evidence_figures.stacked_curves(title, panels, _POSITION)


def certainty(space: SearchSpace, title: str, log_probs: np.ndarray) -> Figure:
    """Probability of the likeliest action along the first sequences of log_probs [n, T, K]; white:
    no choice.
    """
    likeliest = np.exp(log_probs[:_PREFIXES]).max(axis=-1)
    shown = np.where(np.array(space.num_choices) > 1, likeliest, np.nan)
    label = "probability of the likeliest action"
    return evidence_figures.heat_map(
        title, shown, x_label=_POSITION, y_label="sequence", label=label
    )


def fractions(space: SearchSpace, decisions: np.ndarray) -> dict[str, np.ndarray]:
    """label -> [n] share of an architecture's nodes that have it."""
    positions = [t for t, kind in enumerate(space.kinds) if kind in ("activation", "operation")]
    chosen = decisions[:, positions]
    labels = space.label_names[: max(space.num_choices[t] for t in positions)]
    return {f"fraction {label}": (chosen == k).mean(axis=1) for k, label in enumerate(labels)}


def _anchor(name: str) -> str:
    """Where links to the table NAME.csv lead."""
    return f"table-{name}"


def _save(figure: Figure, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(_DPI)
    figure.canvas.print_png(path)  # `savefig` draws it twice, to lay out what is laid out


def _figures(heading, space, arms) -> dict[str, tuple[dict[str, Figure], str]]:
    """name -> (arm -> figure, caption)."""
    with_state = {key: arm for key, arm in arms.items() if arm.has_state}

    def each(draw: Callable[[Arm], Figure], some=with_state):
        return {key: draw(arm) for key, arm in some.items()}

    if heading == "What the memory changes":
        found = _forest(space, arms)
        return (
            {"primary": ({"all": found}, "Primary differences with their 95 % intervals.")}
            if found
            else {}
        )
    if heading == "The paper's table beside ours":
        return {}
    if heading == "Distances of states":
        return {
            "overlap": (
                each(lambda arm: _density(arm, _overlap(space, arm), "total overlap (decisions)")),
                "Uniform set, first seed: pairs by total overlap and distance of states.",
            ),
            "edit_distance": (
                each(lambda arm: _density(arm, _edit_distance(arm), "exact edit distance (edits)")),
                "Uniform set, first seed: pairs by exact edit distance and distance of states.",
            ),
        }
    if heading == "Performance":
        return {
            "components": (
                each(lambda arm: _components(space, arm)),
                "Uniform set, first seed: principal components of the states, coloured.",
            )
        }
    return {
        "probes": (
            each(lambda arm: probe_curves(space, arm.title, arm.probes)),
            "Accuracy of linear probes of the state after a uniform sequence; dashed: the most "
            "frequent choice; bands: 95 % "
            "intervals over seeds.",
        ),
        "conditioning": (
            each(lambda arm: conditioning_curves(space, arm.title, _conditioning(arm)), arms),
            "Entropy of decisions, and how far their distribution moves with the decisions "
            "before; bands: 95 % intervals.",
        ),
        "influence": (
            each(lambda arm: _influence_curve(space, arm), arms),
            "Influence of a decision on a later one by their distance, uniform set.",
        ),
        "certainty": (
            each(lambda arm: certainty(space, arm.title, arm.behaviours[0].own_log_probs), arms),
            f"First seed: probability of the most likely action along {_PREFIXES} own samples. "
            "Rows that are alike: the policy "
            "does not look back. White: no choice.",
        ),
    }


def _forest(space, arms):
    found = evidence.differences(space, arms, [key for key in evidence.PRIMARY_ARMS if key in arms])
    names = [f"{arm}, less {reference}: {measure}" for arm, reference, measure in found]
    mean, low, high = (
        [getattr(paired, part) for paired in found.values()] for part in ("mean", "low", "high")
    )
    return (
        figures.bars_with_intervals(names, mean, low, high, label="difference of correlations")
        if found
        else None
    )


def _density(arm, x, x_label):
    distance = correlations.distances(arm.samples[0]["uniform"].after)
    return evidence_figures.density(
        arm.title, x, distance, x_label=x_label, y_label="distance of states (L2)"
    )


def _overlap(space, arm):
    decisions = arm.samples[0]["uniform"].decisions
    return overlap.common_decisions(space, decisions, *dict.fromkeys(space.kinds))


def _edit_distance(arm):
    row = list(correlations.EDIT_DISTANCES).index(correlations.EDIT_DISTANCE)
    return arm.samples[0]["uniform"].edit_distance[row]


def _components(space, arm):
    sample = arm.samples[0]["uniform"]
    colorings = {"log perplexity (nats)": sample.loss} | fractions(space, sample.decisions)
    return evidence_figures.projections(arm.title, sample.after, colorings)


def _conditioning(arm):
    return {"own samples": arm.own_conditioning, "uniform prefixes": arm.uniform_conditioning}


def _influence_curve(space, arm):
    lags = np.array(
        [by_lag(behaviour.influence, space.num_choices) for behaviour in arm.behaviours]
    )
    curve = Curve("", np.arange(1, space.num_decisions), lags, PALETTE[0])
    return evidence_figures.stacked_curves(
        arm.title, [Panel([curve], "influence, mean (nats)")], "lag (decisions)"
    )
