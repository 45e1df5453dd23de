"""What a run logs: every step as a line of JSON in metrics.jsonl, the last step of each chunk as
TensorBoard events.

The first line says what a loss and a reward are. Every other is one step of one phase: {"phase":
"shared" | "controller" | "valid", "epoch": e, "step": s, ...}. `step` counts within the phase over
the whole run, so (phase, step) names a line.
"""

import contextlib
import json
import math
import os
import pathlib
import time

import numpy as np

from nas.errors import UserError
from nas.tasks import Metric

FILE = "metrics.jsonl"


class Writer:
    """Appends to the metrics of a run directory."""

    def __init__(self, workdir: pathlib.Path, metric: Metric, limits: dict[str, int]):
        """Drops the lines of steps that will be run again.

        Args:
          metric: of the run's losses.
          limits: phase -> first step that this process will log.

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        # Not its SummaryWriter: that writes in a thread, which a full disk ends, and then waits for
        # the thread for ever.
        from tensorboardX.event_file_writer import EventsWriter

        self._path, folder = workdir / FILE, workdir / "tensorboard"
        with self._one_line():
            lines = [{"loss": f"{metric.loss}, {metric.unit}", "reward": metric.reward}]
            if self._path.exists():
                lines += [line for line in read(workdir) if line["step"] < limits[line["phase"]]]
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
            os.replace(temporary, self._path)
            self._file = self._path.open("a")
            folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))

    def write(
        self, phase: str, epoch: int, first_step: int, values: dict[str, np.ndarray], seconds: float
    ) -> None:
        """Logs n steps of a phase.

        Args:
          first_step: step of the first.
          values: name -> [n] numbers.
          seconds: wall time that they took together.

        Raises:
          UserError: the disk is full or the folder cannot be written.
        """
        count, lines = len(next(iter(values.values()))), []
        for i in range(count):
            line = {"phase": phase, "epoch": epoch, "step": first_step + i}
            line |= {name: _number(column[i]) for name, column in values.items()}
            lines.append(json.dumps(line | {"seconds": round(seconds / count, 6)}) + "\n")
        with self._one_line():
            self._file.write("".join(lines))
            self._file.flush()
            self._events.write_event(
                _event(
                    first_step + count - 1, {f"{phase}/{name}": c[-1] for name, c in values.items()}
                )
            )
            if phase == "valid":
                self._events.flush()

    def close(self) -> None:
        with self._one_line():
            self._file.close()
            self._events.close()

    @contextlib.contextmanager
    def _one_line(self):
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error


def read(workdir: pathlib.Path) -> list[dict]:
    """The steps in a run directory's metrics; a last line cut off by a kill is left out."""
    lines = []
    for text in (workdir / FILE).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return [line for line in lines if "phase" in line]


def curves(lines: list[dict], phase: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name -> (steps [n], values [n]) of one phase."""
    chosen = [line for line in lines if line["phase"] == phase]
    names = dict.fromkeys(
        name
        for line in chosen
        for name in line
        if name not in ("phase", "epoch", "step", "seconds")
    )
    found = {
        name: [(line["step"], float(line[name])) for line in chosen if name in line]
        for name in names
    }
    return {name: tuple(np.transpose(points)) for name, points in found.items()}


def _event(step, scalars):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in scalars.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _number(value):
    value = float(value)
    return value if math.isfinite(value) else str(value)  # JSON has no NaN
