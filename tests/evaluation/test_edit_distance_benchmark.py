"""The benchmark of the edit distance runs and writes what it prints."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_benchmark_writes_its_results(tmp_path, user_environment):
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarks.edit_distance",
        "--pairs=20",
        f"--out={tmp_path}",
    ]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=user_environment
    ).stdout
    results = json.loads((tmp_path / "edit_distance.json").read_text())
    assert len(results["families"]) == 14 and [row["nodes"] for row in results["sizes"]] == list(
        range(4, 17)
    )
    assert all(row["pairs_per_second"] > 0 for row in results["families"])
    assert results["environment"]["numba"] in output and "12-node cells" in output
    assert (tmp_path / "edit_distance.png").read_bytes().startswith(b"\x89PNG")
