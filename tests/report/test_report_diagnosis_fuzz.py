"""Arrays of every kind that `launch.diagnose` accepts end in a report, without a warning."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.report import diagnosis
from nas.spaces.recurrent import RecurrentSpace

VALUES = {
    "usual": lambda rng, shape: rng.normal(size=shape),
    "zero": lambda rng, shape: np.zeros(shape),
    "constant": lambda rng, shape: np.full(shape, 1 / 3),
    "large": lambda rng, shape: 1e99 * rng.normal(size=shape),
    "tiny": lambda rng, shape: 1e-310 * rng.normal(size=shape),
    "constant up to rounding": lambda rng, shape: 1e3 * (1 + 1e-15 * rng.normal(size=shape)),
    "whole": lambda rng, shape: np.round(rng.normal(size=shape)),
    "one of all": lambda rng, shape: np.broadcast_to(rng.normal(size=shape)[:1], shape),
    "single": lambda rng, shape: rng.normal(size=shape).astype(np.float32),
}


def _report(folder, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    space = RecurrentSpace(num_nodes=data.draw(st.sampled_from([2, 3, 4, 9])))
    n, kinds = data.draw(st.sampled_from([10, 11, 30])), st.sampled_from(list(VALUES))
    decisions = rng.integers(0, space.num_choices, (n, space.num_decisions)).astype(np.int32)
    if data.draw(st.booleans()):
        decisions[data.draw(st.integers(1, n)) :] = decisions[0]
    width = data.draw(st.integers(1, 5))
    embeddings = VALUES[data.draw(kinds)](rng, (n, width))
    performance = VALUES[data.draw(kinds)](rng, (n,)) if data.draw(st.booleans()) else None
    log_probs = None
    if data.draw(st.booleans()):
        scale = data.draw(st.sampled_from([0.0, 1.0, 300.0]))
        logits = scale * rng.normal(size=(n, space.num_decisions, space.max_choices))
        logits = np.where(space.choice_mask(), logits, -np.inf)
        logits -= logits.max(axis=2, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    controller = diagnosis.Controller(decisions, embeddings, log_probs, performance)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        diagnosis.write_report(folder / "index.html", space, controller, "command")
    assert (folder / "index.html").stat().st_size


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_hundred_and_fifty_sets_of_arrays(tmp_path_factory, data):
    _report(tmp_path_factory.mktemp("report"), data)


@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_three_sets_of_arrays(tmp_path_factory, data):
    _report(tmp_path_factory.mktemp("report"), data)
