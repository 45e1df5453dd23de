"""Tables and figures of the sensitivity study. Arrays in; tables and matplotlib figures out."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments.tabular.variants import (
    CONDITIONING,
    ENTROPY,
    NEXT,
    OWN,
    PERIODS,
    RECONSTRUCT,
    SIZES,
    UNIFORM,
)
from nas.evaluation.statistics import mean_interval
from nas.report.arms.arm import interval
from nas.report.panels import grid_maps, ladder
from nas.report.tables import Column, Empty, Row, Table

Numbers = Mapping[str, np.ndarray]  # name -> [S]
_COLUMNS = (  # arm, measure, heading, digits, sign
    (RECONSTRUCT, UNIFORM, "reconstruct: uniform set", 3, "+"),
    (RECONSTRUCT, OWN, "reconstruct: own samples", 3, "+"),
    (RECONSTRUCT, ENTROPY, "reconstruct: entropy (nats)", 2, ""),
    (NEXT, CONDITIONING, "next decision: total correlation (nats)", 3, ""),
    (NEXT, ENTROPY, "next decision: entropy (nats)", 2, ""),
)
_PANELS = {
    "state: correlation with common operations, uniform set": (RECONSTRUCT, UNIFORM),
    "policy: total correlation (nats)": (NEXT, CONDITIONING),
    "policy: entropy (nats)": (NEXT, ENTROPY),
}
_REFRESHED = [str(period) if period else "never" for period in PERIODS]


def variants_table(measured: Mapping[tuple[str, str, str], Numbers], command: str) -> Table:
    """A row a variant, from (setting, value, arm) -> numbers."""
    rows = []
    for setting, value in dict.fromkeys(key[:2] for key in measured):
        found = [
            (measured.get((setting, value, arm)), name, *rest) for arm, name, _, *rest in _COLUMNS
        ]
        cells = [
            interval(numbers[name], *rest) if numbers else Empty("-")
            for numbers, name, *rest in found
        ]
        rows.append(Row([setting, value, *cells]))
    notes = [
        _seeds(measured),
        "Sets: Spearman's correlation of the distance of states with the operations in common, "
        "over all pairs of 100 "
        "architectures (negative: the state keeps them). Total correlation: how far decisions "
        "depend on each other. It and the "
        "entropy are exact.",
    ]
    columns = [
        Column("setting"),
        Column("value"),
        *(Column(name, digits, bool(sign)) for _, _, name, digits, sign in _COLUMNS),
    ]
    return Table("One setting at a time", columns, rows, notes, command)


def phase_table(phase: Mapping[tuple[int, int], Numbers], command: str) -> Table:
    """Total correlation (entropy) by memory size and epochs between refreshes."""
    rows = [
        Row(
            [
                f"{size:,}",
                *(
                    f"{_mean(phase, size, p, CONDITIONING):.2f} "
                    f"({_mean(phase, size, p, ENTROPY):.1f})"
                    for p in PERIODS
                ),
            ]
        )
        for size in SIZES
    ]
    columns = [Column("memory (sequences)"), *(Column(f"refreshed: {name}") for name in _REFRESHED)]
    notes = [
        "Total correlation of the policy at the end, in brackets its entropy, nats; next decision.",
        _seeds(phase),
    ]
    return Table("Memory size against epochs between refreshes", columns, rows, notes, command)


def variants_figure(measured: Mapping[tuple[str, str, str], Numbers]) -> Figure:
    """A row a variant, a panel a measure."""
    names = list(dict.fromkeys(key[:2] for key in measured))
    nothing = np.full(len(next(iter(measured.values()))[ENTROPY]), np.nan)
    panels = {
        label: np.array(
            [mean_interval(measured.get((*name, arm), {}).get(measure, nothing)) for name in names]
        )
        for label, (arm, measure) in _PANELS.items()
    }
    return ladder([" ".join(filter(None, name)) for name in names], panels)


def phase_figure(phase: Mapping[tuple[int, int], Numbers]) -> Figure:
    """Total correlation and entropy as colours."""
    values = {
        label: np.array(
            [[_mean(phase, size, period, name) for period in PERIODS] for size in SIZES]
        )
        for label, name in (("total correlation (nats)", CONDITIONING), ("entropy (nats)", ENTROPY))
    }
    rows = [f"{size:,}" for size in SIZES]
    return grid_maps(
        values,
        rows=rows,
        columns=_REFRESHED,
        x_label="epochs between refreshes",
        y_label="memory (sequences)",
    )


def _mean(phase, size, period, name):
    return float(phase[size, period][name].mean())


def _seeds(measured):
    return (
        f"Mean over {len(next(iter(measured.values()))[ENTROPY])} seeds ± half its 95 % interval "
        "where one is given."
    )
