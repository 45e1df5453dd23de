"""How a program ends other than by a bug: with the one exception that means "the user can fix
this", or because it was asked to stop.

Everything a user gets wrong (a flag, a file, a decision vector) and everything a run cannot survive
(a non-finite loss) is raised as `UserError` with a single line that names the thing and says what
would be right. The launch scripts print that line and exit with code 2; anything else is a bug and
keeps its traceback.
"""

import re


class UserError(ValueError):
    """A one-line, actionable message for the person who started the program."""


class Interrupted(Exception):
    """The run was asked to stop and has saved; `code` is the exit code to end with."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def one_line(error: BaseException) -> str:
    """The message of an error in one line, shortened to 250 characters or so."""
    # tensorstore's messages end with annotations, which may hold a whole specification:
    # [os_error_code='28', ...]
    text = re.sub(r" \[\w+='.*\]$", "", " ".join(str(error).split())) or type(error).__name__
    # The end is kept because tensorstore gives its reason last.
    return text if len(text) <= 250 else f"{text[:100]} ... {text[-140:]}"
