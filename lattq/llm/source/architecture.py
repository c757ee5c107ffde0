"""Which modules of a model are its blocks, and which linear layers are quantized."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from lattq.errors import InvalidInputError

__all__ = ["choose_modules", "find_blocks"]


def find_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The repeated blocks of a transformer: its longest list of equal modules that hold linear layers."""
    known = set(getattr(model, "_no_split_modules", None) or ())
    best: list[tuple[str, nn.Module]] = []
    score = (False, 0)
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len({type(block) for block in module}) != 1:
            continue
        if any(isinstance(part, nn.Linear) for part in module.modules()):
            found = (type(module[0]).__name__ in known, len(module))
            if found > score:
                score, best = found, [(f"{name}.{index}", block) for index, block in enumerate(module)]
    return best


def choose_modules(model: Any, modules: Iterable[str] | None = None) -> dict[str, nn.Linear]:
    """Linear layers to quantize, by name: those inside the blocks, or the ones asked for.

    Raises
    ------
    InvalidInputError : if there are none, one does not exist, is not linear, or shares its weight with the embedding
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if modules is None:
        inside = tuple(f"{name}." for name, _ in find_blocks(model))
        chosen = [name for name in linears if name.startswith(inside)] if inside else []
    else:
        chosen = list(dict.fromkeys(modules))
    if not chosen:
        msg = f"{type(model).__name__} has no linear layers to quantize; name some in `modules`"
        raise InvalidInputError(msg)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name in chosen:
        if name not in linears:
            msg = (
                f"`modules` names {name!r}, which is not a linear layer; there are {', '.join(list(linears)[:8])}, ..."
            )
            raise InvalidInputError(msg)
        if id(linears[name].weight) in embeddings:
            msg = f"`modules` names {name!r}, whose weight is tied to the embedding; leave it out"
            raise InvalidInputError(msg)
    return {name: linears[name] for name in chosen}
