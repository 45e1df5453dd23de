"""The one exception that means "the user can fix this".

Everything a user gets wrong (a flag, a file, a decision vector) and everything a run cannot survive (a
non-finite loss) is raised as `UserError` with a single line that names the thing and says what would be
right. The launch scripts print that line and exit with code 2; anything else is a bug and keeps its traceback.
"""


class UserError(ValueError):
    """A one-line, actionable message for the person who started the program."""
