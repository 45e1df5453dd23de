"""Signals that ask a program to stop. Imports no JAX."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def received_signals() -> Iterator[list[int]]:
    """Yields a list that fills with the SIGTERM, SIGINT and SIGHUP received during the block."""
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
