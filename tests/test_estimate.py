"""The estimate of a search's time: known lines scale as they should, and a long search says it
before it starts.
"""

import signal

import pytest

from nas import config as configs
from nas import estimate
from tests.forked import run_forked
from tests.helpers import messages, signalled, tiny, write_config


def test_lines_are_scaled_to_the_whole_search():
    config = tiny(
        search={
            "epochs": 10,
            "warmup_epochs": 4,
            "shared_steps": 50,
            "controller_steps": 30,
            "chunk": 10,
        }
    )
    lines = [{"phase": "shared", "epoch": 0, "seconds": 99.0}]  # compiled
    lines += [{"phase": "shared", "epoch": 1, "seconds": seconds} for seconds in (1.0, 3.0)]
    lines += [
        {"phase": "controller", "epoch": 1, "seconds": 0.5},
        {"phase": "valid", "epoch": 1, "seconds": 4.0},
    ]
    assert estimate.scaled(lines, config, batches=7) == pytest.approx(
        10 * 50 * 2 + 6 * 30 * 0.5 + 10 * 7 * 4
    )


def test_the_quick_studies_are_not_measured_first():
    from launch.configs import cifar10_macro, cifar10_micro, kjv, kjv_quick, mnist_macro, ptb_paper

    asked = [
        estimate.is_long(configs.from_dict(preset.get_config().to_dict()))
        for preset in (kjv_quick, mnist_macro, kjv, ptb_paper, cifar10_macro, cifar10_micro)
    ]
    assert asked == [False] * 3 + [True] * 3


@pytest.mark.slow
def test_a_long_search_says_how_long(quick_environment, tmp_path):
    plan = {"epochs": 10_000, "shared_steps": 20, "controller_steps": 20, "chunk": 20}
    config = tiny(
        search=plan, policy={"name": "factorised"}, strategy={"supervised": "next_decision"}
    )
    write_config(tmp_path / "long.py", config)
    arguments = [
        f"--config={tmp_path / 'long.py'}",
        f"--workdir={tmp_path / 'run'}",
        f"--data_dir={tmp_path / 'data'}",
    ]
    # The short search logs 2 x 41 lines; a signal stops the long one after its first chunk.
    environment = quick_environment | signalled(signal.SIGINT, 2 * 41 + 1)
    process = run_forked(environment, "launch.search", *arguments)
    assert process.returncode == 130
    *_, said, stopped = messages(process)
    assert said.startswith("estimated") and float(said.split()[-2]) > 0 and said.split()[-1] == "h"
    assert stopped.startswith("SIGINT: saved at epoch 0, shared 20, ")
