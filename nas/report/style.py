"""The common look of all figures: colours, letters, lines; and the width of text, to break lines
where needed.
"""

import contextlib
import functools
from collections.abc import Iterator

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

# Okabe and Ito (2008), told apart with every common colour blindness; yellow, too pale for a line
# on white, comes last.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
INK, QUIET = "#1b1f24", "#5b6470"
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a939d",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.grid": True,
    "grid.color": "#e8ebee",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # a $ in the name of an arm is a $
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Figures made inside have this look; afterwards matplotlib's settings are as before."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float, **options) -> Figure:
    """A figure of `width` x `height` inches with a canvas of its own: no pyplot, no window."""
    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def fill(text: str, room: float) -> str:
    """`text` with lines broken so that each is at most `room` points wide, where words allow."""
    lines = []
    for line in text.split("\n"):
        lines.append("")
        for word in line.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_width(longer) > room:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def text_width(text: str) -> float:
    """The width of a text in points."""
    return _width(text, matplotlib.rcParams["font.size"], *matplotlib.rcParams["font.family"])


@functools.lru_cache(1000)
def _width(text, size, *_family):
    return TextPath((0, 0), text, size=size).get_extents().width
