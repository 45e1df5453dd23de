"""Puts the tables that drivers wrote into RESULTS.md.

experiments/results/NAME.md is a copy of a driver's NAME.md. RESULTS.md shows it between the lines
`<!-- table: results/NAME.md -->` and `<!-- end -->`; all else there is written by hand.
"""

import pathlib
import re

from launch import common
from nas.errors import UserError
from nas.files import write_atomic

PAGE = pathlib.Path(__file__).with_name("RESULTS.md")
_SHOWN = re.compile(r"^<!-- table: (.+) -->\n(?:(?!<!--).*\n)*<!-- end -->$", re.MULTILINE)


def main():
    write_atomic(PAGE, refreshed(PAGE))
    print(PAGE)


def refreshed(page: pathlib.Path) -> str:
    """The text of a page with its tables as the files beside it hold them.

    Raises:
      UserError: a comment without its other half, a table that has no file, or a file
        results/NAME.md that the page does not show.
    """
    text = page.read_text(encoding="utf-8")
    shown = _SHOWN.findall(text)
    files = [path.relative_to(page.parent).as_posix() for path in page.parent.glob("results/*.md")]
    if len(re.findall("^<!-- (?:table|end)", text, re.MULTILINE)) != 2 * len(shown):
        raise UserError(f"{page.name}: a comment of a table lacks its other half")
    for said, names in (("no file", {*shown} - {*files}), ("not shown", {*files} - {*shown})):
        if names:
            raise UserError(f"{page.name}: {said}: {', '.join(sorted(names))}")
    tables = {name: (page.parent / name).read_text(encoding="utf-8") for name in files}
    return _SHOWN.sub(
        lambda found: f"<!-- table: {found[1]} -->\n{tables[found[1]]}<!-- end -->", text
    )


if __name__ == "__main__":
    common.run(main)
