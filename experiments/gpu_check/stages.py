"""What the stages of the check do: `python -m experiments.gpu_check.stages FILE SIZE OUT DATA CALL
ARGUMENT...` writes what it finds to FILE, again whenever there is more.

SIZE is full, on a GPU, or small: the same at toy size on a machine without one, in the form that
XLA compiles for a GPU. OUT is the folder for larger files, DATA that of prepared corpora or empty.
Exit code 2: the last line that it printed says why.
"""

import pathlib
import sys

from experiments.gpu_check import agreement, measures
from experiments.gpu_check.work import Stage
from launch import device
from nas.errors import UserError, one_line

_ON_DEVICE = {
    "environment": measures.environment,
    "step": measures.step,
    "variant": measures.variant,
    "rewards": measures.rewards,
    "controller": measures.controller,
    "search": measures.short_search,
    "checkpoint": measures.checkpoint,
    "images": measures.images,
    "profile": measures.profile,
    "equality": agreement.equality,
}
_ELSEWHERE = {  # the device is for the programs that these start, or is not used
    "reference": agreement.reference,
    "resume": agreement.resume,
    "tests": agreement.tests,
    "quick": agreement.quick,
}


def main():
    file, size, out, data_dir, call, *arguments = sys.argv[1:]
    stage = Stage(pathlib.Path(file), size, pathlib.Path(out), data_dir)
    try:
        if call in _ON_DEVICE:
            device.select_device(stage.size.platform)
        (_ON_DEVICE | _ELSEWHERE)[call](stage, *arguments)
    except UserError as error:
        print("error:", one_line(error), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
