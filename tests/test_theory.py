"""The theory notes hang together: numbers are in order, and every number that notes, code or pages cite exists.

That their claims hold is tested by running them, in test_notebooks.py.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTES = sorted(ROOT.glob("theory/[0-9]*.py"))
SOURCES = sorted([*ROOT.glob("lattq/**/*.py"), *ROOT.glob("docs/*.md"), *ROOT.glob("*.md")])

EQUATION = re.compile(r"\\tag\{(\d+\.\d+)\}")
SECTION = re.compile(r"^# ## (\d+\.\d+) ", re.MULTILINE)
CITED_IN_NOTES = re.compile(r"\((\d+\.\d+)\)")
CITED_ELSEWHERE = re.compile(r"theory \(?(\d+\.\d+)\)?(?: (?:and|to) \((\d+\.\d+)\))?")


def prose(note: str) -> str:
    """Markdown cells and comments; numbers in code are numbers."""
    return "\n".join(line.partition("# ")[2] for line in note.splitlines())


def dangling(cited: list[str], known: set[str]) -> list[str]:
    """Citations of equations or sections that do not exist."""
    return [number for number in cited if number not in known]


def known_numbers() -> set[str]:
    """Numbers of all equations and sections."""
    text = "\n".join(note.read_text(encoding="utf-8") for note in NOTES)
    return {*EQUATION.findall(text), *SECTION.findall(text)}


@pytest.mark.parametrize("note", NOTES, ids=lambda note: note.stem)
def test_equations_are_numbered_in_order(note: Path):
    chapter = int(note.name[:2])
    found = EQUATION.findall(note.read_text(encoding="utf-8"))
    assert found == [f"{chapter}.{i + 1}" for i in range(len(found))]


@pytest.mark.parametrize("note", NOTES, ids=lambda note: note.stem)
def test_numbers_cited_in_notes_exist(note: Path):
    cited = CITED_IN_NOTES.findall(prose(note.read_text(encoding="utf-8")))
    assert cited
    assert not dangling(cited, known_numbers())


def test_numbers_cited_in_code_and_pages_exist():
    cited = [
        (path.relative_to(ROOT).as_posix(), number)
        for path in SOURCES
        for match in CITED_ELSEWHERE.finditer(path.read_text(encoding="utf-8"))
        for number in match.groups()
        if number
    ]
    assert cited
    known = known_numbers()
    assert not [(path, number) for path, number in cited if number not in known]


def test_a_number_that_does_not_exist_is_found():
    assert dangling(CITED_IN_NOTES.findall(prose("# by (9.99) and (1.1)")), known_numbers()) == ["9.99"]
    assert CITED_ELSEWHERE.findall("theory (9.98) to (9.99), theory 9.1)") == [("9.98", "9.99"), ("9.1", "")]
