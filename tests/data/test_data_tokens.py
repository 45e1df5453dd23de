"""Windows of token streams: exact values, and every token but the first of a row is a target once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import tokens
from nas.errors import UserError


def test_exact_values():
    rows = tokens.stream(np.arange(17, dtype=np.int32), 2)
    assert rows.dtype == np.int32
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]]
    assert tokens.num_windows(rows, 3) == 2
    batch = tokens.Windows(rows, 3).take(1, 1)
    assert batch.tokens.tolist() == [[[3, 4, 5, 6], [11, 12, 13, 14]]]
    assert batch.tokens.dtype == np.int32


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 12))
def test_windows_tile_the_rows(n, batch, steps):
    if n < 2 * batch:
        with pytest.raises(UserError, match=f"{n} tokens are too few for {batch} rows"):
            tokens.stream(np.arange(n, dtype=np.int32), batch)
        return
    rows = tokens.stream(np.arange(n, dtype=np.int32), batch)
    assert rows.shape == (batch, n // batch)
    np.testing.assert_array_equal(rows.ravel(), np.arange(n // batch * batch))
    if n // batch <= steps:
        with pytest.raises(UserError):
            tokens.num_windows(rows, steps)
        return
    count = tokens.num_windows(rows, steps)
    assert count * steps + 1 <= n // batch < (count + 1) * steps + 1


def test_all_windows_together_are_the_stream():
    windows = tokens.Windows.of(np.arange(2 * 14, dtype=np.int32), 2, 4)
    batch = windows.take(0, 3)
    assert batch.tokens.shape == (3, 2, 5)
    np.testing.assert_array_equal(np.concatenate(batch.tokens[:, :, :-1], axis=1), windows.rows[:, :12])
    np.testing.assert_array_equal(np.concatenate(batch.tokens[:, :, 1:], axis=1), windows.rows[:, 1:13])


def test_windows_start_again_and_say_so():
    windows = tokens.Windows.of(np.arange(24, dtype=np.int32), 2, 3)  # three windows a pass
    batch = windows.take(2, 5)
    assert batch.start.tolist() == [False, True, False, False, True]
    np.testing.assert_array_equal(batch.tokens[1], batch.tokens[4])
    np.testing.assert_array_equal(batch.tokens[1], windows.rows[:, :4])


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), (6, 1), (7, 2), (18, 3), (1000, 3), (0, 3)])
def test_head_rounds_up_and_stops_at_the_end(wanted, count):
    windows = tokens.Windows.of(np.arange(24, dtype=np.int32), 2, 3)
    assert windows.head(wanted).tokens.shape == (count, 2, 4)


@pytest.mark.parametrize(("n", "batch", "steps"), [(40, 2, 20), (8, 4, 2)])
def test_too_few_tokens_for_a_window(n, batch, steps):
    with pytest.raises(UserError, match=rf"{n} tokens in {batch} rows .*window of {steps} steps") as error:
        tokens.Windows.of(np.zeros(n, np.int32), batch, steps)
    assert "\n" not in str(error.value)
