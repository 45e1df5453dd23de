"""Shows how far a program is, on standard error: a line for whatever is running, and one for all
of it together.

A terminal that is wide enough gets lines that move; a pipe, a file and a narrow terminal get plain
lines, every half minute.
"""

import collections
import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from nas import progress
from nas.progress import Status

NARROW = 72  # columns; with fewer, lines that move would be cut off
PERIOD = 30.0  # seconds between plain lines
_REFRESH = 0.25  # seconds between movements
_LABEL = 28  # most columns of a label
_RECENT = 20.0  # seconds over which a rate is measured ...
_BRIEF = 1.0  # ... and fewest seconds for a rate


class Display:
    """Draws what is running, one row per label; a context manager. Any thread or process may do the
    work; one thread draws.

    Args:
      plan: label -> work of each piece of the program, in any unit, from which the display shows
        how far all of them are together. Without a plan labels come and go, and the display ends
        with the last of them.
    """

    def __init__(self, plan: Mapping[str, float] | None = None):
        self._plan, self._finished, self._failed = plan, set(), set()
        self._rows: dict[str, _Row] = {}
        self._began = time.monotonic()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._live, self._due = None, 0.0
        self._moves = _can_move()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._draw(last=True)

    def tell(self, label: str, status: Status) -> None:
        """Takes a report on some work; `label` names its row."""
        with self._lock:
            self._rows.setdefault(label, _Row()).take(status)
            if not self._plan and not any(row.running for row in self._rows.values()):
                self._draw(last=True)
                self._rows.clear()

    def begin(self, label: str) -> None:
        """A piece of the plan has begun."""
        with self._lock:
            self._rows[label] = _Row()

    def finish(self, label: str) -> None:
        """A piece of the plan is done."""
        with self._lock:
            self._finished.add(label)
            self._rows.pop(label, None)

    def fail(self, label: str) -> None:
        """A piece of the plan is given up."""
        with self._lock:
            self._failed.add(label)
            self._rows.pop(label, None)

    def _run(self):
        while not self._stop.wait(_REFRESH):
            with self._lock:
                try:
                    self._draw()
                except BrokenPipeError:  # nobody reads; the program notices when it prints
                    return

    def _draw(self, last=False):
        if self._moves:
            self._move(last)
        elif self._rows and not last and time.monotonic() >= self._due:
            self._due = time.monotonic() + PERIOD
            print(
                "\n".join(f"{label}: {text}" for label, text in self._lines()),
                file=sys.stderr,
                flush=True,
            )

    def _move(self, last):
        if self._live is None and self._rows and not last:
            self._live = _live()
            self._live.start()
        if self._live is None:
            return
        self._live.update(_grid(self._lines(), self._fraction()), refresh=True)
        if last:
            self._live.stop()
            self._live = None

    def _lines(self):
        lines = [(label, row.text(with_time=not self._plan)) for label, row in self._rows.items()]
        if self._plan:
            done = f"{len(self._finished)} of {len(self._plan)} done"
            if self._failed:
                done += f", {len(self._failed)} failed"
            lines.append(("all", f"{_percent(self._fraction())}, {done}, {self._time()}"))
        return lines

    def _fraction(self):
        """Fraction of the plan that is done; None without a plan."""
        if not self._plan:
            return None
        done = sum(self._plan[label] for label in self._finished)
        done += sum(self._plan[label] * row.fraction() for label, row in self._rows.items())
        return done / sum(self._plan.values())

    def _time(self):
        elapsed, fraction = time.monotonic() - self._began, self._fraction()
        spent = f"{duration(elapsed)} so far"
        return (
            f"{spent}, about {duration(elapsed * (1 / fraction - 1))} left"
            if fraction >= 0.02
            else spent
        )


class _Row:
    """The row of a label: of the work that is running, the outermost shows how far it is, the
    innermost what it is doing.
    """

    def __init__(self):
        self.running: dict[int, Status] = {}
        self._outermost = None  # outermost running work, or the last that ended
        self._recent = collections.deque()  # (time, units done) of the innermost work
        self._counted = None  # number of the innermost work

    def take(self, status):
        if status.running:
            self.running[status.number] = status
            now = time.monotonic()
            if self._counted != status.number:
                self._counted = status.number
                self._recent.clear()
            self._recent.append((now, status.done))
            while len(self._recent) > 2 and self._recent[0][0] < now - _RECENT:
                self._recent.popleft()
        else:
            self.running.pop(status.number, None)
        self._outermost = self.running[min(self.running)] if self.running else status

    def fraction(self):
        return _fraction(self._outermost) if self._outermost else 0.0

    def text(self, with_time):
        parts = [_percent(self.fraction())]
        shown = self.running[max(self.running)] if self.running else self._outermost
        if shown is not self._outermost:
            parts.append(f"{shown.name} {_percent(_fraction(shown))}")
        elif not (shown and shown.facts or self.fraction()):
            parts.append("starting")
        parts += [f"{name} {value}" for name, value in (shown.facts if shown else {}).items()]
        if rate := self._rate():
            units = f"{shown.unit}es" if shown.unit.endswith(("tch", "rch")) else f"{shown.unit}s"
            parts.append(f"{rate:,.3g} {units}/s" if rate < 1000 else f"{rate:,.0f} {units}/s")
            if with_time and shown is self._outermost:
                parts.append(f"about {duration((shown.total - shown.done) / rate)} left")
        return ", ".join(parts)

    def _rate(self):
        """Units per second over the last seconds; 0 while it is unknown."""
        if len(self._recent) < 2:
            return 0.0
        (start, before), (end, done) = self._recent[0], self._recent[-1]
        return (done - before) / (end - start) if end - start >= _BRIEF else 0.0


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    large, small = divmod(seconds, 60) if seconds < 3600 else divmod(round(seconds / 60), 60)
    names = ("min", "s") if seconds < 3600 else ("h", "min")
    return f"{large} {names[0]} {small} {names[1]}"


def _fraction(status):
    return min(1.0, status.done / max(1, status.total))


def _percent(fraction):
    return f"{100 * fraction:.0f} %"


def _can_move():
    columns = shutil.get_terminal_size().columns
    return sys.stderr.isatty() and columns >= NARROW and os.environ.get("TERM", "dumb") != "dumb"


def _live():
    import rich.console
    import rich.live

    # Other output appears above the lines; output to a file goes there unchanged.
    console = rich.console.Console(stderr=True, highlight=False)
    return rich.live.Live(console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())


def _grid(lines, fraction):
    import rich.progress_bar
    import rich.table
    import rich.text

    grid = rich.table.Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=_LABEL)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for label, text in lines:
        grid.add_row(rich.text.Text(label), rich.text.Text(text))
    if fraction is not None:
        grid.add_row("", rich.progress_bar.ProgressBar(total=1.0, completed=fraction, width=40))
    return grid


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Shows the work of this process while the block runs, each kind in its own row."""
    with Display() as display, progress.listening(lambda status: display.tell(status.name, status)):
        yield
