"""README, results and notes: short enough to be read, and what they name is there and works."""

import pathlib
import re
import shlex

import pytest

from experiments import results
from nas.errors import UserError
from tests.forked import run_forked

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "BUILD_NOTES.md", "experiments/RESULTS.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text(name):
    return (ROOT / name).read_text()


def prose(name):
    """A document without its fenced blocks."""
    return FENCE.sub("", text(name))


def commands(name):
    """The `python -m` command lines of a document: in fences, and between single backticks."""
    shown = [body.replace("\\\n", " ") for _, body in FENCE.findall(text(name))]
    inline = [" ".join(of.split()) for of in re.findall(r"`([^`]+)`", prose(name))]
    lines = [line for part in (*shown, *inline) for line in part.splitlines()]
    found = [re.sub(r"^(?:\w+=\S* )*", "", line) for line in lines]
    return [line.partition("  #")[0] for line in found if line.startswith("python -m ")]


@pytest.mark.parametrize(("name", "most"), [("README.md", 130), ("BUILD_NOTES.md", 250)])
def test_length(name, most):
    lines = text(name).splitlines()
    assert len(lines) <= most
    tables = name == "BUILD_NOTES.md"  # whose rows cannot be broken
    long = [line for line in lines if len(line) > 100 and not (tables and line.startswith("|"))]
    assert long == []


def test_readme_is_read_in_minutes():
    assert len(text("README.md").split()) <= 1200
    numbers = re.findall(
        r"(?<![\w.])[-+]?\d[\d,.]*", re.sub(r"\]\([^)]*\)", "]", prose("README.md"))
    )
    assert len(numbers) <= 40, numbers


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name):
    folder = (ROOT / name).parent
    links = re.findall(r"\]\(([^)\s]+)\)", text(name))
    assert links
    missing = [of for of in links if "://" not in of and not (folder / of).exists()]
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_and_modules_that_are_named_exist(name):
    """Names with a folder of this tree at their front, between backticks or in a block."""
    named = re.findall(r"(?:nas|launch|experiments|tests)(?:/\w+)+(?:\.\w+|/)?", text(name))
    missing = [of for of in named if not (ROOT / of).exists() and "results" not in of]
    assert missing == []


def modules():
    found = {}
    for document in DOCUMENTS:
        for line in commands(document):
            _, _, module, *arguments = shlex.split(line)
            if module.startswith(("launch.", "experiments.")):
                found.setdefault(module, []).append(arguments)
    return found


@pytest.mark.parametrize("module", modules())
def test_commands_have_the_flags_that_are_named(module, user_environment):
    asked = modules()[module]
    configs = {flag for flags in asked for flag in flags if flag.startswith("--config=")}
    helps = [
        run_forked(user_environment, module, "--help", *of) for of in ([], *([c] for c in configs))
    ]
    assert all(process.returncode == 0 for process in helps)
    known = set(re.findall(r"--[\w.]+(?==)|--\w+", " ".join(process.stdout for process in helps)))
    flags = {flag.partition("=")[0] for arguments in asked for flag in arguments}
    assert {flag for flag in flags if flag.startswith("--")} - known <= {"--help"}


def test_results_show_what_drivers_wrote():
    assert results.refreshed(results.PAGE) == text("experiments/RESULTS.md")


def sections():
    _, *found = re.split(r"^## (.+)\n", text("experiments/RESULTS.md"), flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.mark.parametrize("question", sections())
def test_a_section_of_results_has_a_command_and_a_short_reading(question):
    body = sections()[question]
    assert re.search("`(?:python -m|bash) |[Tt]he same command", body)
    shown = r"^(?:\||<!-- end|</details>|!\[).*$"  # tables and figures
    reading = re.split(shown, body, flags=re.MULTILINE)[-1]
    assert 1 <= len(re.findall(r"[.?](?=\s|$)", reading)) <= 5, reading


def test_results_name_no_folder_of_a_machine():
    for path in results.PAGE.parent.glob("results/*.md"):
        assert not re.search(r"(?<![\w.])/\w", path.read_text()), path


def page_of(folder, shown, **files):
    (folder / "results").mkdir()
    for name, table in files.items():
        (folder / "results" / f"{name}.md").write_text(table)
    (folder / "RESULTS.md").write_text(shown)
    return folder / "RESULTS.md"


TABLE = "| a |\n| --- |\n| 1 |\n"
SHOWN = f"Prose.\n\n<!-- table: results/a.md -->\n{TABLE}<!-- end -->\n\n| by hand |\n"


def test_tables_of_results_are_those_of_their_files(tmp_path):
    page = page_of(tmp_path, SHOWN, a=TABLE)
    assert results.refreshed(page) == SHOWN
    (tmp_path / "results" / "a.md").write_text(TABLE.replace("1", r"2 \1"))
    assert results.refreshed(page) == SHOWN.replace("1", r"2 \1")
    page.write_text(SHOWN.replace(TABLE, ""))  # a new table needs its two comments only
    assert results.refreshed(page) == SHOWN.replace("1", r"2 \1")


@pytest.mark.parametrize(
    ("shown", "files", "said"),
    [
        (SHOWN, {}, "no file: results/a.md"),
        (SHOWN, {"a": TABLE, "b": TABLE}, "not shown: results/b.md"),
        (SHOWN.replace("<!-- end -->", ""), {"a": TABLE}, "lacks its other half"),
        (SHOWN + "<!-- end -->\n", {"a": TABLE}, "lacks its other half"),
        (SHOWN.replace("<!-- end -->", "") + SHOWN, {"a": TABLE}, "lacks its other half"),
    ],
)
def test_tables_that_results_cannot_show_are_named(tmp_path, shown, files, said):
    with pytest.raises(UserError, match=said):
        results.refreshed(page_of(tmp_path, shown, **files))


def test_the_example_runs_as_it_stands(user_environment, tmp_path):
    (source,) = (body for kind, body in FENCE.findall(text("README.md")) if kind == "python")
    (tmp_path / "example.py").write_text(source)
    process = run_forked(user_environment, tmp_path / "example.py")
    assert process.returncode == 0, process.stderr
    assert -1 <= float(process.stdout) < 0
