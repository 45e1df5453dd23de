"""architectures.npy: numpy reads it at any moment, and a run that continues cuts off what it will
score again.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.scored import FILE, Scored


def rows(first, count):
    """Architectures [count, 3] and rewards [count] that tell their places."""
    places = first + np.arange(count)
    return np.stack([places, places + 1, -places], axis=1), places / 4


def content(workdir):
    found = np.load(workdir / FILE)
    return found["decisions"].tolist(), found["reward"].tolist()


def expected(count):
    decisions, rewards = rows(0, count)
    return decisions.tolist(), rewards.tolist()


@given(st.lists(st.tuples(st.integers(0, 130), st.floats(0, 1)), max_size=6))
@settings(deadline=None, max_examples=30)
def test_any_sequence_of_appends_and_cuts_leaves_what_a_list_would_hold(tmp_path_factory, visits):
    workdir, held = tmp_path_factory.mktemp("run"), 0
    for added, share in visits:
        held = int(held * share)
        scored = Scored(workdir, 3, held)
        assert content(workdir) == expected(held)
        scored.append(*rows(held, added))
        assert content(workdir) == expected(held + added)  # while it is open
        scored.close()
        held += added


def test_the_header_has_room_for_any_number(tmp_path):
    scored = Scored(tmp_path, 3, 0)
    scored.append(*rows(0, 9))
    size = (tmp_path / FILE).stat().st_size
    scored.append(*rows(9, 100_000))
    scored.close()
    assert (tmp_path / FILE).stat().st_size == size + 100_000 * (3 * 4 + 4)
    assert content(tmp_path) == expected(100_009)


@pytest.mark.parametrize("cut", [1, 16, 17, 60])
def test_records_that_a_kill_left_without_header_or_end_are_cut_off(tmp_path, cut):
    scored = Scored(tmp_path, 3, 0)
    scored.append(*rows(0, 10))
    scored.close()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-cut])
    whole = 10 - -(-cut // 16)
    Scored(tmp_path, 3, whole).close()
    assert content(tmp_path) == expected(whole)


def test_what_is_not_there_is_told_and_marked(tmp_path, capfd):
    scored = Scored(tmp_path, 3, 0)
    scored.append(*rows(0, 4))
    scored.close()
    Scored(tmp_path, 3, 6).close()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / FILE} lacks 2 of 6 architectures")
    decisions, rewards = content(tmp_path)
    assert decisions == [*expected(4)[0], [-1, -1, -1], [-1, -1, -1]]
    assert rewards[:4] == expected(4)[1] and np.isnan(rewards[4:]).all()


def test_a_folder_in_its_place(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(UserError, match=f"cannot write {tmp_path / FILE}: Is a directory"):
        Scored(tmp_path, 3, 0)
