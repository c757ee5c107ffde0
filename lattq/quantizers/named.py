"""Cells by name, as the command line knows them."""

from lattq.errors import InvalidInputError
from lattq.quantizers.trellis import Trellis
from lattq.quantizers.uniform import Uniform

__all__ = ["by_name"]

TRELLIS = "trellis-"


def by_name(name: str) -> Uniform | Trellis:
    """The design called "uniform" or "trellis-STATES".

    Raises
    ------
    InvalidInputError : for another name

    Examples
    --------
    >>> by_name("trellis-256")
    Trellis(states=256, step=1.0, shrink=False, segment=512)
    """
    if name == "uniform":
        return Uniform()
    states = name.removeprefix(TRELLIS)
    if name.startswith(TRELLIS) and states.isdecimal():
        return Trellis(int(states))
    msg = f"there is no quantizer {name!r}; choose uniform or trellis-STATES, for example trellis-256"
    raise InvalidInputError(msg)
