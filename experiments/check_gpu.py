"""All that a GPU can show in nine minutes: how fast, how right, and what works at all.

Stages run one after the other, the most important first, each in a process of its own with a time
limit; if one fails or is cut off, the others run. After every stage gpu_check.json and
gpu_check.html in --out hold all results so far; log.txt has what stages printed, and
shared_step.xplane.pb.gz the trace of a step. --small runs the same at toy size on a machine without
a GPU. `bash launch/gpu_check.sh` starts this, also where nothing can be downloaded.
"""

import json
import os
import pathlib
import signal
import sys
import tempfile

from absl import flags

from experiments.gpu_check import plan
from launch import common
from launch.paths import define_path
from nas.errors import UserError
from nas.files import write_atomic, writing

define_path("out", "Folder for the results.", default="runs/gpu_check")
define_path(
    "data_dir", "Folder of prepared data (TFDS). Empty: ~/tensorflow_datasets.", absolute=True
)
flags.DEFINE_integer("seconds", 520, "Time for all stages together.", lower_bound=1)
flags.DEFINE_list(
    "stages", [], "Stages to run. Empty: all. " + ", ".join(of.name for of in plan.STAGES) + "."
)
flags.DEFINE_bool("small", False, "Run at toy size on the CPU, to test the check itself.")
FLAGS = flags.FLAGS
NAME = "gpu_check"


def main():
    stages = _stages()
    out = pathlib.Path(FLAGS.out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "log.txt").write_text("")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stages end with this program
    results = {"command": _command(), "device": "unknown device", "stages": []}
    with tempfile.TemporaryDirectory() as cache:
        running = plan.run(
            stages,
            _stage_command,
            out / "log.txt",
            seconds=FLAGS.seconds,
            environment=_environment(cache),
        )
        for result in running:
            _add(results, result)
            _write(out, results)
            if result.name == "environment" and result.code == 2:
                reason = result.said[-1].removeprefix("error: ")
                raise UserError(f"{reason}; or use --small for a trial on the CPU")
    return _finish(out, results)


def _stages():
    known = {stage.name: stage for stage in plan.STAGES}
    if unknown := [name for name in FLAGS.stages if name not in known]:
        raise UserError(f"--stages: unknown stage {unknown[0]!r}; choose from {', '.join(known)}")
    chosen = [stage for stage in plan.STAGES if not FLAGS.stages or stage.name in FLAGS.stages]
    # A CPU may be busy with other things, and its time is not precious.
    return [stage._replace(cap=FLAGS.seconds) for stage in chosen] if FLAGS.small else chosen


def _stage_command(stage, file):
    size = "small" if FLAGS.small else "full"
    module = [sys.executable, "-m", "experiments.gpu_check.stages"]
    return [*module, str(file), size, FLAGS.out, FLAGS.data_dir, *stage.call]


def _environment(cache):
    """The environment of the stages: programs compiled by one are there for the next."""
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if FLAGS.small:  # without C++, as on a GPU, XLA's code is used; it need not be fast
        quick = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
        environment |= {"CXX": "no-compiler", "XLA_FLAGS": quick}
    return environment


def _command():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--data_dir")]
    return " ".join(["bash launch/gpu_check.sh", *arguments])


def _add(results, result):
    from experiments.gpu_check import page

    found = result.found
    if result.name == "environment":
        device = found.get("card") or found.get("processor", results["device"])
        toy = "; at toy size, where no time means anything" if FLAGS.small else ""
        results["device"] = device + toy
    results["stages"].append(result._asdict() | {"seconds": round(result.seconds, 1)})
    said = page.headline(results["stages"][-1])
    print(f"{result.name}: {result.status}, {result.seconds:.0f} s. {said}".strip(), flush=True)


def _write(out, results):
    from experiments.gpu_check import page

    write_atomic(out / f"{NAME}.json", json.dumps(results, indent=1) + "\n")
    page.write_page(out / f"{NAME}.html", results)


def _finish(out, results):
    from experiments.gpu_check import page

    print(f"\n{page.stage_table(results).text()}")
    print(f"written: {out / NAME}.json, {out / NAME}.html")
    return int(any(of["status"] in (plan.FAILED, plan.CUT_OFF) for of in results["stages"]))


if __name__ == "__main__":
    common.run(main)
