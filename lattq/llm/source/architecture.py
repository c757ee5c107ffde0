"""Which modules of a model are its blocks, and which matrices are quantized."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from lattq.errors import InvalidInputError, shown
from lattq.llm.source.matrices import Matrix, matrices

__all__ = ["Choice", "choose", "choose_modules", "find_blocks"]

TIED = "tied to the embedding"
SHARED = "shared by several modules"
OUTSIDE = "outside the blocks"
EXCLUDED = "excluded"
UNASKED = "not asked for"


class Choice(NamedTuple):
    """Matrices to quantize by name, and why the others of a model are not among them."""

    matrices: dict[str, Matrix]
    reasons: dict[str, str]


def find_blocks(model: nn.Module, chosen: Mapping[str, Matrix] | None = None) -> list[tuple[str, nn.Module]]:
    """The repeated blocks of a transformer: the list of modules that holds most weights of the chosen matrices."""
    found = matrices(model) if chosen is None else chosen
    weights = {name: matrix.shape[0] * matrix.shape[1] for name, matrix in found.items()}
    best: list[tuple[str, nn.Module]] = []
    most = 0
    for blocks in _repeated(model):
        inside = tuple(f"{name}." for name, _ in blocks)
        total = sum(size for name, size in weights.items() if name.startswith(inside))
        if total > most:
            best, most = blocks, total
    return best


def choose_modules(model: Any, modules: Iterable[str] | None = None) -> dict[str, Matrix]:
    """The matrices of `choose`, by name."""
    return choose(model, modules).matrices


def choose(
    model: Any,
    modules: Iterable[str] | None = None,
    *,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
) -> Choice:
    """Matrices to quantize: those inside repeated blocks, or the ones asked for.

    Parameters
    ----------
    modules : exact names
    include : patterns of names, as of the shell; whatever matches one, inside the blocks or not
    exclude : patterns of names to leave out

    Raises
    ------
    InvalidInputError : if there are none, a name does not exist or is no such matrix, or shares its weight with the
        embedding; if a pattern matches nothing, or only some experts of one parameter
    """
    known = matrices(model)
    reasons = _shared(model, known)
    if modules is not None:
        chosen = _named(known, list(dict.fromkeys(modules)), reasons)
    elif include is not None:
        chosen = _matching("include", include, known)
    else:
        inside = tuple(f"{name}." for blocks in _repeated(model) for name, _ in blocks)
        chosen = {name for name in known if inside and name.startswith(inside)}
    for name in known.keys() - chosen:
        reasons.setdefault(name, OUTSIDE if modules is None and include is None else UNASKED)
    excluded = _matching("exclude", exclude, known)
    for name in excluded & chosen:
        reasons.setdefault(name, EXCLUDED)
    left = {name: matrix for name, matrix in known.items() if name in chosen and name not in reasons}
    if not left:
        msg = f"{type(model).__name__} has no linear layers to quantize; name some in `modules`"
        raise InvalidInputError(msg)
    for matrix in left.values():
        missing = [name for name in matrix.siblings if name not in left]
        if missing:
            msg = f"{matrix.name} is to be quantized and {missing[0]} is not; experts of one parameter stay together"
            raise InvalidInputError(msg)
    return Choice(left, reasons)


def _repeated(model: nn.Module) -> list[list[tuple[str, nn.Module]]]:
    """Lists of modules that are in no other list."""
    found: list[list[tuple[str, nn.Module]]] = []
    outer: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not name.startswith(outer or ("\0",)):
            found.append([(f"{name}.{index}", block) for index, block in enumerate(module)])
            outer += (f"{name}.",)
    return found


def _shared(model: nn.Module, known: Mapping[str, Matrix]) -> dict[str, str]:
    """Matrices whose parameter belongs to others too."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    owners: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), set()).add(id(module))
    found = {}
    for name, matrix in known.items():
        if id(matrix.parameter) in embeddings:
            found[name] = TIED
        elif len(owners[id(matrix.parameter)]) > 1:
            found[name] = SHARED
    return found


def _named(known: Mapping[str, Matrix], names: list[str], reasons: Mapping[str, str]) -> set[str]:
    for name in names:
        if name not in known:
            msg = f"`modules` names {name!r}, which is not a linear layer; there are {', '.join(list(known)[:8])}, ..."
            raise InvalidInputError(msg)
        if name in reasons:
            msg = f"`modules` names {name!r}, whose weight is {reasons[name]}; leave it out"
            raise InvalidInputError(msg)
    return set(names)


def _matching(argument: str, patterns: Iterable[str], known: Mapping[str, Matrix]) -> set[str]:
    """Names that match one of some patterns, each of which must match."""
    if isinstance(patterns, str):
        msg = f"`{argument}` is the text {patterns!r}; pass a list of patterns"
        raise InvalidInputError(msg)
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in known if fnmatch.fnmatchcase(name, pattern)}
        if not matches:
            some = ", ".join(list(known)[:8])
            msg = f"`{argument}` holds {shown(pattern)}, which no linear layer matches; there are {some}, ..."
            raise InvalidInputError(msg)
        found |= matches
    return found
