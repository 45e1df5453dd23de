"""What ends a program without being a bug: the one exception that means "the user can fix this",
and the wish to stop.

Everything a user gets wrong (a flag, a file, a decision vector) and everything a run cannot survive
(a non-finite loss) is raised as `UserError` with a single line that names the thing and says what
would be right. The launch scripts print that line and exit with code 2; anything else is a bug and
keeps its traceback.
"""


class UserError(ValueError):
    """A one-line, actionable message for the person who started the program."""


class Interrupted(Exception):
    """The run was asked to stop and has saved; `code` is the exit code that says so."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code
