"""Flags that name files and folders: paths are resolved here, before anything is written."""

import os
import re

from absl import flags


def define_path(
    name: str, help: str, *, default: str = "", absolute: bool = False, folder: bool = False
) -> None:
    """Defines a flag whose value is a local path, `~` expanded.

    Args:
      absolute: whether a relative path is made absolute, because it is read from other folders too.
      folder: whether the path of an existing file is refused.
    """
    parser = _PathParser(absolute, folder)
    flags.DEFINE(parser, name, default, help, serializer=flags.ArgumentSerializer())


class _PathParser(flags.ArgumentParser):
    """Expands and refuses paths."""

    def __init__(self, absolute, folder):
        self._absolute, self._folder = absolute, folder

    def parse(self, argument: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", argument):
            raise ValueError("must be a local path; mount the remote storage or copy the files")
        path = os.path.expanduser(argument)
        if self._folder and os.path.exists(path) and not os.path.isdir(path):
            raise ValueError("must be a folder, and this is a file")
        return os.path.abspath(path) if self._absolute and path else path

    def flag_type(self) -> str:
        return "path"
