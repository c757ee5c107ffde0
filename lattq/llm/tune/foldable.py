"""What a layer must be before a map is folded into its parameters."""

from typing import Any

import torch

from lattq.errors import InvalidInputError
from lattq.llm.source.decoded import Decoded
from lattq.llm.source.place import Location, Place, Site
from lattq.llm.source.places import submodule

__all__ = ["require_foldable"]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_foldable(model: Any, place: Place, site: Site) -> None:
    """Raise unless the parameters of a site are dense, in memory, of the right width and nobody else's."""
    module: Any = submodule(model, site.module)
    weight = None if isinstance(module, Decoded) else module._parameters.get("weight")
    if weight is None or weight.dtype not in FLOATS or weight.ndim != (1 if site.location is Location.GAIN else 2):
        msg = f"{site.module} ({type(module).__name__}) holds no dense weight to fold into; fold before quantizing"
        raise InvalidInputError(msg)
    if weight.is_meta:
        msg = f"{site.module} is on the meta device; load the model into memory first"
        raise InvalidInputError(msg)
    along = weight.shape[-1] if site.location is Location.WEIGHT_INPUT or site.transposed else weight.shape[0]
    along = site.rows[1] - site.rows[0] if site.rows and site.location is Location.WEIGHT_OUTPUT else along
    if along % place.channels or (along != place.channels and not place.per_head):
        msg = (
            f"{site.module} has {along} channels where {place.name} has {place.channels}; its table is of another model"
        )
        raise InvalidInputError(msg)
    owners = [name for name, other in model.named_modules() if any(one is weight for one in other._parameters.values())]
    if len(owners) > 1:
        cost = weight.nbytes / 2**20
        msg = (
            f"{' and '.join(owners)} share one weight, which {place.name} would change for one of them; call `untie`, "
            f"which adds {weight.numel()} weights ({cost:.1f} MiB)"
        )
        raise InvalidInputError(msg)
