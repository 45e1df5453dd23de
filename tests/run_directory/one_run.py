"""The run that the tests of run directories are about."""

import contextlib

import pytest

from nas import runs
from nas.errors import UserError
from tests.helpers import files, tiny

CONFIG = tiny()


def start(config, workdir, **options):
    return runs.start(config, workdir, **{"parallel": "jit"} | options)


def fails(function, *args, **kwargs):
    """The message of the UserError that a call ends in."""
    with pytest.raises(UserError) as error:
        function(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@contextlib.contextmanager
def unchanged(folder):
    """Nothing is written below a folder."""
    before = files(folder)
    yield
    assert files(folder) == before
