"""What tests of the report share."""

import warnings

import pytest

from nas.report import evidence_page, html


@pytest.fixture
def no_warnings():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def coarse(monkeypatch):
    """Pages are written with few pixels, which takes a third of the time."""
    for module in (evidence_page, html):
        monkeypatch.setattr(module, "_DPI", 20)
