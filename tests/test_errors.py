"""The line that a failure ends in."""

from nas.errors import one_line


def test_the_reason_is_told_whatever_stands_around_it():
    """tensorstore writes whole paths before the reason, and may write a whole specification after
    it.
    """
    spec = "{'driver': 'zarr', 'metadata': " + "x" * 300 + "}"
    text = (
        f"RESOURCE_EXHAUSTED: Error writing {'/path' * 80}: No space left on device "
        f"[os_error_code='28', spec='{spec}']"
    )
    told = one_line(OSError(text))
    assert (
        told.endswith("No space left on device")
        and told.startswith("RESOURCE_EXHAUSTED")
        and len(told) <= 250
    )
