"""Designs of maps by name, and what a report says of the maps that were folded."""

import importlib
from collections.abc import Mapping
from typing import Any

from lattq.errors import InvalidInputError

__all__ = ["MAPS", "maps_of", "summary_of"]

MAPS = ("smoothquant", "awq", "balanced", "rotate", "reorder", "shift")


def maps_of(text: str | None, *, levels: int | None, bits: int | None, group: int | None) -> list[Any] | None:
    """Designs for names with commas between them, in their order; None for None.

    Parameters
    ----------
    levels, bits, group : of the recipe, which AWQ searches its scales for; a group of 0 is all columns

    Raises
    ------
    InvalidInputError : for another name, and AWQ without levels or bits

    Examples
    --------
    >>> maps_of("rotate,balanced", levels=None, bits=None, group=None)[1].share
    0.5
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if name not in MAPS]
    if wrong:
        msg = f"`--maps` names {wrong[0]!r}; choose from {', '.join(MAPS)}, with commas between several"
        raise InvalidInputError(msg)
    count = levels if bits is None else 2**bits
    if "awq" in names and count is None:
        msg = "`--maps awq` searches scales for a number of levels; give `--levels` or `--bits`"
        raise InvalidInputError(msg)
    tune = importlib.import_module("lattq.llm.tune")
    kinds = {
        "smoothquant": tune.SmoothQuant,
        "awq": lambda: tune.AWQ(count, 128 if group is None else group or None),
        "balanced": tune.Balanced,
        "rotate": tune.Rotate,
        "reorder": tune.Reorder,
        "shift": tune.Shift,
    }
    return [kinds[name]() for name in names]


def summary_of(maps: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A line for all maps of a design at places of a kind: how many, the worst condition, weights added.

    >>> row = {"design": "Balanced", "place": "layers.0.values", "structure": "heads", "condition": 9.0, "added": 0}
    >>> summary_of([row, {**row, "place": "layers.1.values", "condition": 11.0}])
    [('Balanced', 'values', 'heads', '2', '11', '0')]
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in maps:
        key = (row["design"], row["place"].rpartition(".")[2], row["structure"])
        groups.setdefault(key, []).append(row)
    return [
        (*key, str(len(rows)), f"{max(row['condition'] for row in rows):.3g}", f"{sum(row['added'] for row in rows):,}")
        for key, rows in groups.items()
    ]
