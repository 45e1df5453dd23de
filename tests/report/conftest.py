"""What tests of the report share."""

import warnings

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def no_warnings():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures are saved without what is drawn on them: for tests of what a page holds."""
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *args, **options: save(Figure(self.get_size_inches()), *args, **options),
    )
