"""Windows of token streams: exact values, and every token but the first of a row is a target
once.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import tokens
from nas.errors import UserError


def test_exact_values():
    windows = tokens.Windows.of(np.arange(17, dtype=np.int32), 2, 3)
    assert windows.rows.dtype == np.int32
    assert windows.rows.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]]
    assert (windows.length, windows.examples) == (2, 6)
    batch = windows.take(1, 1)
    assert batch.tokens.tolist() == [[[3, 4, 5, 6], [11, 12, 13, 14]]]
    assert batch.tokens.dtype == np.int32


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 12))
def test_windows_tile_the_rows(n, batch, steps):
    if n // batch <= steps:
        with pytest.raises(UserError, match=f"{n} tokens in {batch} rows"):
            tokens.Windows.of(np.arange(n, dtype=np.int32), batch, steps)
        return
    windows = tokens.Windows.of(np.arange(n, dtype=np.int32), batch, steps)
    assert windows.rows.shape == (batch, n // batch)
    np.testing.assert_array_equal(windows.rows.ravel(), np.arange(n // batch * batch))
    assert windows.length * steps + 1 <= n // batch < (windows.length + 1) * steps + 1


def test_all_windows_together_are_the_stream():
    windows = tokens.Windows.of(np.arange(2 * 14, dtype=np.int32), 2, 4)
    batch = windows.take(0, 3)
    assert batch.tokens.shape == (3, 2, 5)
    np.testing.assert_array_equal(
        np.concatenate(batch.tokens[:, :, :-1], axis=1), windows.rows[:, :12]
    )
    np.testing.assert_array_equal(
        np.concatenate(batch.tokens[:, :, 1:], axis=1), windows.rows[:, 1:13]
    )


def test_windows_start_again_and_say_so():
    windows = tokens.Windows.of(np.arange(24, dtype=np.int32), 2, 3)  # three windows a pass
    batch = windows.take(2, 5)
    np.testing.assert_array_equal(
        batch.start, np.repeat([[False], [True], [False], [False], [True]], 2, axis=1)
    )
    np.testing.assert_array_equal(batch.tokens[1], batch.tokens[4])
    np.testing.assert_array_equal(batch.tokens[1], windows.rows[:, :4])


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), (6, 1), (7, 2), (18, 3), (1000, 3), (0, 3)])
def test_head_rounds_up_and_stops_at_the_end(wanted, count):
    windows = tokens.Windows.of(np.arange(24, dtype=np.int32), 2, 3)
    assert windows.head(wanted).tokens.shape == (count, 2, 4)


@pytest.mark.parametrize(("n", "batch", "steps"), [(40, 2, 20), (8, 4, 2)])
def test_too_few_tokens_for_a_window(n, batch, steps):
    with pytest.raises(
        UserError, match=rf"{n} tokens in {batch} rows .*window of {steps} steps"
    ) as error:
        tokens.Windows.of(np.zeros(n, np.int32), batch, steps)
    assert "\n" not in str(error.value)


def test_a_share_is_these_rows_of_every_batch():
    windows = tokens.Windows.of(np.arange(60, dtype=np.int32), 4, 3)
    whole, share = windows.take(3, 4), windows.share(slice(1, 3)).take(3, 4)
    np.testing.assert_array_equal(share.tokens, whole.tokens[:, 1:3])
    np.testing.assert_array_equal(share.start, whole.start[:, 1:3])


@pytest.mark.parametrize(
    ("slices", "expected"), [(1, 1), (4, 4), (16, 4)]
)  # of 16 a row would hold no window
def test_halves_are_disjoint_of_one_size_and_almost_all_there_is(slices, expected):
    windows = tokens.Windows.of(np.arange(2 * 80, dtype=np.int32), 2, 5)
    halves = windows.halves(slices, seed=3)
    assert [len(half) for half in halves] == [expected, expected]
    chosen, reported = (
        set(np.concatenate([part.tokens[..., 1:].ravel() for part in half]).tolist())
        for half in halves
    )
    assert not chosen & reported and len(chosen) == len(reported) > 0
    again, other = (windows.halves(slices, seed=seed)[0] for seed in (3, 4))
    np.testing.assert_array_equal(halves[0][0].tokens, again[0].tokens)
    if slices > 1:
        assert not np.array_equal(halves[0][0].tokens, other[0].tokens)
