"""Cells by name, as the command line knows them."""

from collections.abc import Callable

from lattq.errors import InvalidInputError
from lattq.lattices import BW16, E8, Leech24
from lattq.quantizers.lattice import Lattice
from lattq.quantizers.trellis import Trellis
from lattq.quantizers.uniform import Uniform

__all__ = ["by_name"]

TRELLIS = "trellis-"
CELLS: dict[str, Callable[[], Uniform | Lattice]] = {
    "uniform": Uniform,
    "e8": lambda: Lattice(E8),
    "bw16": lambda: Lattice(BW16),
    "leech24": lambda: Lattice(Leech24),
}


def by_name(name: str) -> Uniform | Trellis | Lattice:
    """The design called "uniform", "e8", "bw16", "leech24" or "trellis-STATES", in small letters or capitals.

    Raises
    ------
    InvalidInputError : for another name

    Examples
    --------
    >>> by_name("trellis-256")
    Trellis(states=256, step=1.0, shrink=False, segment=512, priced=True)
    >>> by_name("E8")
    Lattice(lattice=Lattice(E8), step=1.0, shrink=False)
    """
    lower = name.lower()
    if lower in CELLS:
        return CELLS[lower]()
    states = lower.removeprefix(TRELLIS)
    if lower.startswith(TRELLIS) and states.isascii() and states.isdecimal():
        return Trellis(int(states))
    msg = f"there is no quantizer {name!r}; choose trellis-STATES, for example trellis-256, or {', '.join(CELLS)}"
    raise InvalidInputError(msg)
