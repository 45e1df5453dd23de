"""The folder on a user's machine for what can be made again: compiled programs."""

import functools
import hashlib
import os
import pathlib
import platform

_PROJECT = "nas-controllers"


def user_cache(name: str) -> pathlib.Path | None:
    """The cache folder of `name`, created if need be; None if it cannot be written.

    Each kind of processor has its own: machines that share a home folder must not run each other's
    instructions.
    """
    try:
        folder = (
            pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
            / _PROJECT
            / name
            / _processor()
        )
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None


@functools.cache
def _processor():
    lines = {platform.machine(), platform.processor()}
    try:
        with open("/proc/cpuinfo") as file:
            lines |= {
                line
                for line in file
                if line.startswith(("model name", "flags", "CPU part", "Features"))
            }
    except OSError:
        pass  # not Linux
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:12]
