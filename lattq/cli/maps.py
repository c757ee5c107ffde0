"""Designs of maps by name, and what a report says of the maps that were folded."""

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from lattq.errors import InvalidInputError

__all__ = ["MAPS", "maps_of", "summary_of"]

MAPS = ("smoothquant", "awq", "balanced", "rotate", "reorder", "shift", "trained", "trained-maps")
FOR_LEVELS = ("awq", "trained", "trained-maps")


def maps_of(
    text: str | None, *, levels: int | None, bits: int | None, group: int | None, input_bits: int | None = None
) -> list[Any] | None:
    """Designs for names with commas between them, in their order; None for None.

    Parameters
    ----------
    levels, bits, group, input_bits : of the recipe, which AWQ searches scales for and training rounds to; a group of 0
        is all columns

    Raises
    ------
    InvalidInputError : for another name, and designs that need levels without levels or bits

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
    needing = [name for name in names if name in FOR_LEVELS]
    if needing and count is None:
        msg = f"`--maps {needing[0]}` looks for what suits a number of levels; give `--levels` or `--bits`"
        raise InvalidInputError(msg)
    tune = importlib.import_module("lattq.llm.tune")
    columns = 128 if group is None else group or None
    trained = functools.partial(tune.Trained, count, columns, None if input_bits is None else 2**input_bits)
    kinds = {
        "smoothquant": tune.SmoothQuant,
        "awq": lambda: tune.AWQ(count, columns),
        "balanced": tune.Balanced,
        "rotate": tune.Rotate,
        "reorder": tune.Reorder,
        "shift": tune.Shift,
        "trained": trained,
        "trained-maps": functools.partial(trained, weights=False, ranges=False),
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
