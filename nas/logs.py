"""What a run logs: every step as a line of JSON in metrics.jsonl, the last step of each chunk as
TensorBoard events.

The first line says what a loss and a reward are. Every other line is one step of one phase:
{"phase": "shared" | "controller" | "valid", "epoch": e, "step": s, ...}. `step` counts within the
phase over the whole run, so (phase, step) identifies a line.
"""

import json
import math
import mmap
import os
import pathlib
import sys
import time

import numpy as np

from nas.errors import UserError
from nas.files import writing
from nas.tasks import Metric

FILE = "metrics.jsonl"


class Writer:
    """Appends to the metrics of a run directory."""

    def __init__(self, workdir: pathlib.Path, metric: Metric, limits: dict[str, int]):
        """Cuts off the lines of steps that will be run again.

        Args:
          metric: names the losses and rewards in the first line.
          limits: phase -> number of the first step that this process will log.

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        # Not its SummaryWriter: that writes in a thread, which ends when the disk is full, and then
        # waits for that thread for ever.
        from tensorboardX.event_file_writer import EventsWriter

        self._path, folder = workdir / FILE, workdir / "tensorboard"
        with writing(self._path):
            self._file = self._path.open("a+b")
            self._file.truncate(_end_of_kept(self._file, limits))
            if not self._file.seek(0, os.SEEK_END):
                meaning = {"loss": f"{metric.loss}, {metric.unit}", "reward": metric.reward}
                self._file.write((json.dumps(meaning) + "\n").encode())
                self._file.flush()
            folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))

    def write(
        self, phase: str, epoch: int, first_step: int, values: dict[str, np.ndarray], seconds: float
    ) -> None:
        """Logs n steps of a phase.

        Args:
          first_step: number of the first step.
          values: name -> [n] numbers.
          seconds: wall time of all n steps.

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        count, lines = len(next(iter(values.values()))), []
        for i in range(count):
            line = {"phase": phase, "epoch": epoch, "step": first_step + i}
            line |= {name: _number(column[i]) for name, column in values.items()}
            lines.append(json.dumps(line | {"seconds": round(seconds / count, 6)}) + "\n")
        with writing(self._path):
            self._file.write("".join(lines).encode())
            self._file.flush()
            self._events.write_event(
                _event(
                    first_step + count - 1, {f"{phase}/{name}": c[-1] for name, c in values.items()}
                )
            )
            if phase == "valid":
                self._events.flush()

    def close(self) -> None:
        with writing(self._path):
            self._file.close()
            self._events.close()


def read(workdir: pathlib.Path, done: dict[str, int] | None = None) -> list[dict]:
    """The steps that a run directory's metrics hold. Lines that are not a step are left out.

    Args:
      done: phase -> number of steps that the run has done. If some of them are missing, a warning
        says how many.

    Raises:
      UserError: the file exists but cannot be read.
    """
    path = workdir / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    lines = [line for text in content.split(b"\n") if (line := _line(text))]
    done = done or {}
    there = {(line["phase"], line["step"]) for line in lines}
    lost = sum((phase, step) not in there for phase in done for step in range(done[phase]))
    if lost:
        print(
            f"warning: {path} lacks {lost:,} of {sum(done.values()):,} steps; curves and times "
            "leave them out",
            file=sys.stderr,
        )
    return lines


def curves(
    lines: list[dict], phase: str, steps: int | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name -> (steps [n], values [n]) of one phase.

    Args:
      steps: n; a step that has no line gets the value nan. None: as many as there are lines.
    """
    chosen = [line for line in lines if line["phase"] == phase]
    names = dict.fromkeys(
        name
        for line in chosen
        for name in line
        if name not in ("phase", "epoch", "step", "seconds")
    )
    found = {
        name: {line["step"]: float(line[name]) for line in chosen if name in line} for name in names
    }
    if steps is not None:
        every = range(steps)
        found = {name: {i: of.get(i, math.nan) for i in every} for name, of in found.items()}
    return {name: tuple(np.transpose(list(of.items()))) for name, of in found.items()}


def _end_of_kept(file, limits):
    """Offset of the end of the last line whose step is below its phase's limit; 0: there is none.

    Lines are in the order of their steps, so the search starts from the end. What follows that line
    will be run again, or is a line that a kill has cut short.
    """
    if not os.fstat(file.fileno()).st_size:
        return 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
        while end:
            start = content.rfind(b"\n", 0, end - 1) + 1
            line = _line(content[start:end])
            if line and line["step"] < limits.get(line["phase"], 0):
                break
            end = start
        return end


def _line(text):
    """`text` parsed, if it is the line of a step; else None."""
    try:
        line = json.loads(text)
        numbers = {name: float(of) for name, of in line.items() if name != "phase"}
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError):
        return None
    steps = all(type(line.get(name)) is int and line[name] >= 0 for name in ("epoch", "step"))
    timed = math.isfinite(numbers.get("seconds", math.nan))
    return line if isinstance(line.get("phase"), str) and steps and timed else None


def _event(step, scalars):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in scalars.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _number(value):
    value = float(value)
    return value if math.isfinite(value) else str(value)  # JSON has no NaN
