"""Griffe extension: the short docstrings of lattq in the long form that numpydoc parsers expect.

Types stand in annotations, so an entry of a docstring is ``name : description`` on one line; numpydoc reads what comes
after the colon as a type. And a docstring may end in bare doctest lines without the heading of its Examples section.
"""

import re
from typing import Any

import griffe

HEADING = "Examples\n--------\n"
SECTION = re.compile(r"^(Parameters|Attributes|Raises|Returns)\n-+\n((?:.+\n?)+)", re.MULTILINE)
ENTRY = re.compile(r"^(\S[^:\n]*?) : (.+)$", re.MULTILINE)


def numpydoc_form(text: str) -> str:
    r"""Put descriptions on their own lines, and the heading before the first doctest line of a text that has none.

    >>> numpydoc_form("Sum.\n\nParameters\n----------\nx, y : numbers\n\n>>> add(2, 3)\n5")
    'Sum.\n\nParameters\n----------\nx\n    numbers\ny\n    numbers\n\nExamples\n--------\n>>> add(2, 3)\n5'
    """
    text = SECTION.sub(lambda section: ENTRY.sub(_long_entry, section[0]), text)
    start = text.find(">>> ")
    if start < 0 or HEADING in text:
        return text
    return text[:start] + HEADING + text[start:]


def _long_entry(entry: re.Match[str]) -> str:
    """One entry for each name, since each has its own annotation."""
    return "\n".join(f"{name}\n    {entry[2]}" for name in entry[1].split(", "))


class ShortDocstrings(griffe.Extension):
    """Applies `numpydoc_form` to every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once for each module, class and function."""
        if obj.docstring:
            obj.docstring.value = numpydoc_form(obj.docstring.value)
