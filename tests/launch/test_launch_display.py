"""The display: what is shown of programs that work, in a pipe and in terminals that are wide,
narrow or dumb.
"""

import os
import pty
import subprocess
import sys
import termios

import pytest

from launch import display
from launch.display import Display
from nas.progress import Status
from tests.helpers import TIMEOUT


def status(done, total=10, number=0, name="search", running=True, **facts):
    return Status(number, name, "step", done, total, facts, running)


def shown(screen):
    """label -> text of its line."""
    return dict(screen._lines())


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is told to go on."""
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_row_says_how_far_how_fast_and_how_long(clock):
    screen = Display()
    screen.tell("search", status(0))
    assert shown(screen) == {"search": "0 %, starting"}
    clock(2)
    screen.tell("search", status(4, epoch="1/3", perplexity="81.2"))
    assert shown(screen) == {
        "search": "40 %, epoch 1/3, perplexity 81.2, 2 steps/s, about 3 s left"
    }


def test_what_an_earlier_run_did_is_no_speed(clock):
    screen = Display()
    screen.tell("search", status(900, 1000))
    clock(1)
    screen.tell("search", status(910, 1000))
    assert shown(screen)["search"] == "91 %, 10 steps/s, about 9 s left"


def test_the_outermost_work_says_how_far_and_the_innermost_what(clock):
    screen = Display({"evaluate": 1.0})
    screen.begin("evaluate")
    screen.tell("evaluate", status(5, number=1, name="evaluation"))
    screen.tell("evaluate", status(2, number=2, name="edit distance"))
    assert shown(screen)["evaluate"] == "50 %, edit distance 20 %"
    screen.tell("evaluate", status(10, number=2, name="edit distance", running=False))
    assert shown(screen)["evaluate"] == "50 %"


def test_a_plan_weighs_its_pieces(clock):
    screen = Display({"short": 1.0, "long": 3.0})
    screen.begin("short")
    screen.begin("long")
    clock(10)
    screen.tell("long", status(5))
    assert shown(screen)["all"] == "38 %, 0 of 2 done, 10 s so far, about 17 s left"
    screen.finish("short")
    assert shown(screen)["all"] == "62 %, 1 of 2 done, 10 s so far, about 6 s left"
    assert "short" not in shown(screen)
    screen.fail("long")
    assert shown(screen) == {"all": "25 %, 1 of 2 done, 1 failed, 10 s so far, about 30 s left"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86399, "24 h 0 min"),
    ],
)
def test_durations(seconds, text):
    assert display.duration(seconds) == text


def test_plain_lines_come_at_once_and_then_every_period(clock, capsys):
    screen = Display()
    screen.tell("search", status(0))
    for _ in range(4):
        screen._draw()
        clock(display.PERIOD / 2)
    assert capsys.readouterr().err == "search: 0 %, starting\n" * 2


PROGRAM = """
import threading

from absl import flags

from launch import common
from launch.display import Display
from nas.progress import track

common.define_flags()
drawn, draw = threading.Event(), Display._draw


def draw_and_tell(self, last=False):
    draw(self, last)
    drawn.set()


def main():
    Display._draw = draw_and_tell
    with track("search", total=4, unit="step") as advance:
        for i in range(4):
            advance(1, perplexity="81.2")
            drawn.clear()
            assert drawn.wait(60)
    print("result")


if __name__ == "__main__":
    common.run(main)
"""


def in_terminal(environment, folder, columns, term="xterm"):
    """Everything that the program writes to a terminal of so many columns."""
    (folder / "works.py").write_text(PROGRAM)
    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    paths = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, "-m", "works"],
        env=environment | {"PYTHONPATH": paths, "TERM": term, "COLUMNS": str(columns)},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    written = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # the program has closed its end
            break
        if not part:
            break
        written += part
    os.close(main)
    assert process.wait(timeout=TIMEOUT) == 0
    return written.decode()


def test_a_wide_terminal_gets_a_line_that_moves(user_environment, tmp_path):
    written = in_terminal(user_environment, tmp_path, 100)
    assert "\x1b[" in written and written.count("search") > 1
    assert "100 %, perplexity 81.2" in written and written.rstrip().endswith("result")


@pytest.mark.parametrize(("columns", "term"), [(display.NARROW - 1, "xterm"), (100, "dumb")])
def test_a_narrow_or_dumb_terminal_gets_plain_lines(columns, term, user_environment, tmp_path):
    written = in_terminal(user_environment, tmp_path, columns, term)
    assert "\x1b[" not in written
    first, *_, last = written.split("\r\n")[:-1]
    assert first.startswith("search: ") and last == "result"
