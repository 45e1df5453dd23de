"""The page of a study: tables and figures of all arms as one HTML file, and each of them as a file
beside it.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nas.evaluation import correlations, overlap
from nas.evaluation.conditioning import by_lag
from nas.files import writing
from nas.report import figures, panels
from nas.report.arms import searches
from nas.report.arms.answers import Answer
from nas.report.arms.arm import MeasuredArm
from nas.report.arms.searches import Searched
from nas.report.arms.tables import PRIMARY_ARMS, differences
from nas.report.html import Report
from nas.report.panels import Curve, Panel
from nas.report.style import PALETTE
from nas.report.tables import Table
from nas.tasks import Task

_REST = (
    "What follows is the evidence: several arms and seeds, distances of hidden states against the "
    "similarity and performance of architectures, and how the policies decide. Only the primary "
    "comparisons test a claim; everything else is exploratory."
)
_TOTAL_OVERLAP = "total overlap (decisions)"
_DPI = 150  # dots per inch of PNG files
_POINTS = 1000  # architectures of a figure that has a point for each
_SECTIONS = {  # heading -> tables
    "The paper's table beside ours": ("summary",),
    "What the memory changes": ("primary", "exploratory"),
    "Distances of states": (
        "correlations_uniform",
        "correlations_own",
        "correlations_own_yardsticks",
        "protocol",
    ),
    "Performance": ("performance_uniform", "performance_own", "best"),
    "How the policies decide": ("behaviour", "identical_states"),
}


def write_report(
    path: pathlib.Path,
    task: Task,
    arms: dict[str, MeasuredArm],
    searched: Sequence[Searched],
    tables: dict[str, Table],
    commands: Sequence[str],
    details: Mapping[str, object],
    *,
    ran: str = "",
    sentences: Sequence[str] = (),
    found: Sequence[Answer] = (),
) -> pathlib.Path:
    """Writes the page to `path`; beside it tables as NAME.csv and NAME.md, figures as NAME-ARM.png,
    and states.png with all arms.

    Returns `path`.

    Args:
      ran: what was run.
      sentences: what the rows of the table "summary" mean.
      found: the answers, which open the page.
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
        for name, (drawn, caption) in _figures(heading, task, arms).items():
            add_figures(report, path.parent, name, drawn, caption)
    if states := _states(task, arms):
        _save(states, path.parent / "states.png")
    searches.add_sections(report, task, searched)
    report.section("Commands and versions")
    report.commands(commands)
    report.details(details)
    return report.write(path)


def add_table(report: Report, folder: pathlib.Path, name: str, table: Table) -> None:
    """Adds a table to the page and writes it as NAME.csv and NAME.md."""
    report.table(table, _anchor(name))
    table.save(folder, name)


def add_figures(
    report: Report, folder: pathlib.Path, name: str, drawn: Mapping[str, Figure], caption: str
) -> None:
    """Adds figures to the page, under one caption, and writes each as NAME-KEY.png."""
    report.figure(list(drawn.values()), caption, [f"{caption} {key}" for key in drawn])
    for key, figure in drawn.items():
        _save(figure, folder / f"{name}-{key}.png")


def _anchor(name: str) -> str:
    """Where links to the table `name` lead."""
    return f"table-{name}"


def _save(figure: Figure, path: pathlib.Path) -> None:
    figure.set_dpi(_DPI)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.canvas.print_png(path)  # `savefig` would draw twice, to lay out the figure again


def _figures(heading, task, arms) -> dict[str, tuple[dict[str, Figure], str]]:
    """name -> (arm -> figure, caption)."""
    with_state = {key: arm for key, arm in arms.items() if arm.has_state}

    def each(draw: Callable[[MeasuredArm], Figure], some=with_state):
        return {key: draw(arm) for key, arm in some.items()}

    if heading == "What the memory changes":
        found = _forest(task, arms)
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
                each(
                    lambda arm: _densities([arm], lambda arm: _overlap(task, arm), _TOTAL_OVERLAP)
                ),
                "Uniform set, first seed: pairs by total overlap and distance of states.",
            ),
            "edit_distance": (
                each(lambda arm: _densities([arm], _edit_distance, "exact edit distance (edits)")),
                "Uniform set, first seed: pairs by exact edit distance and distance of states.",
            ),
        }
    if heading == "Performance":
        return {
            "components": (
                each(lambda arm: _components(task, arm)),
                "Uniform set, first seed: principal components of the states, coloured; of "
                f"{_POINTS:,} architectures at most.",
            )
        }
    return {
        "probes": (
            each(lambda arm: panels.probe_curves(task.space, arm.title, arm.probes)),
            "Accuracy of linear probes of the state after a uniform sequence; dashed: the most "
            "frequent choice; bands: 95 % "
            "intervals over seeds.",
        ),
        "conditioning": (
            each(
                lambda arm: panels.conditioning_curves(task.space, arm.title, _conditioning(arm)),
                arms,
            ),
            "Entropy of decisions, and how far their distribution moves with the decisions "
            "before; bands: 95 % intervals.",
        ),
        "influence": (
            each(lambda arm: _influence_curve(task, arm), arms),
            "Influence of a decision on a later one by their distance, uniform set.",
        ),
        "certainty": (
            each(
                lambda arm: panels.certainty(
                    task.space, arm.title, arm.behaviours[0].own_log_probs
                ),
                arms,
            ),
            f"First seed: probability of the most likely action along {panels.PREFIXES} own "
            "samples. Rows that are alike: the policy does not look back. White: no choice.",
        ),
    }


def _forest(task, arms):
    found = differences(task, arms, [key for key in PRIMARY_ARMS if key in arms])
    names = [f"{arm}, less {reference}: {measure}" for arm, reference, measure in found]
    mean, low, high = (
        [getattr(paired, part) for paired in found.values()] for part in ("mean", "low", "high")
    )
    return (
        figures.bars_with_intervals(names, mean, low, high, label="difference of correlations")
        if found
        else None
    )


def _densities(arms, measure, x_label):
    """Measure and distance of every pair, one panel per arm."""

    def pairs(arm):
        sample = arm.samples[0]["uniform"]
        return measure(arm), correlations.distances(sample.after, block=sample.block)

    panes = {arm.title: pairs(arm) for arm in arms}
    return panels.densities(panes, x_label=x_label, y_label="distance of states (L2)")


def _states(task, arms):
    """The densities of all arms side by side, for a wide page."""
    with_state = [arm for arm in arms.values() if arm.has_state]
    if with_state:
        return _densities(with_state, lambda arm: _overlap(task, arm), _TOTAL_OVERLAP)
    return None


def _overlap(task, arm):
    sample, kinds = arm.samples[0]["uniform"], dict.fromkeys(task.space.kinds)
    return overlap.common_decisions(task.space, sample.decisions, *kinds, block=sample.block)


def _edit_distance(arm):
    row = list(correlations.EDIT_DISTANCES).index(correlations.EDIT_DISTANCE)
    return arm.samples[0]["uniform"].edit_distance[row]


def _components(task, arm):
    sample = arm.samples[0]["uniform"]
    drawn = slice(_POINTS)  # independent draws: the first are as good as any
    loss = f"{task.metric.loss} ({task.metric.unit})"
    shares = panels.fractions(task.space, sample.decisions[drawn])
    colorings = {loss: sample.loss[drawn]} | shares
    return panels.projections(arm.title, sample.after[drawn], colorings)


def _conditioning(arm):
    return {"own samples": arm.own_conditioning, "uniform prefixes": arm.uniform_conditioning}


def _influence_curve(task, arm):
    lags = np.array(
        [by_lag(behaviour.influence, task.space.num_choices) for behaviour in arm.behaviours]
    )
    curve = Curve("", np.arange(1, task.space.num_decisions), lags, PALETTE[0])
    return panels.stacked_curves(
        arm.title, [Panel([curve], "influence, mean (nats)")], "lag (decisions)"
    )
