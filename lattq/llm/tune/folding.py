"""Fold invertible maps into a model: its function stays, its class too, its weights are others.

Everything is computed in float64 and rounded once, and nothing is written before all of it is known to be right.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lattq._array import Array, host_reals
from lattq.errors import InvalidInputError
from lattq.llm.source.place import Location, Place
from lattq.llm.source.places import places, submodule
from lattq.llm.tune.equivalence import folded, shifted
from lattq.llm.tune.foldable import require_foldable
from lattq.llm.tune.maps import map_of

__all__ = ["Draft", "fold", "fold_gains", "shift"]

ROTATIONS = ("rotation", "centred_rotation")
Act = Callable[[Place, Mapping[str, Tensor]], dict[str, Tensor]]


class Draft:
    """What maps make of the parameters of a model: each is folded for what those before it leave, none is written yet.

    Examples
    --------
    >>> import numpy as np
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> draft = Draft(model)
    >>> draft.fold("model.layers.0.mlp_input", "diagonal", np.full(256, 2.0))
    >>> sorted(name.rpartition("layers.0.")[2] for name in draft.changes)
    ['mlp.gate_proj.weight', 'mlp.up_proj.weight', 'post_attention_layernorm.weight']
    >>> draft.write()
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.changes: dict[str, Tensor] = {}

    @torch.no_grad()
    def fold(self, place: str | Place, structure: str, values: Array) -> None:
        """`fold`, but for writing."""
        place = _of(self.model, place)
        transform = map_of(place, structure, values)
        if structure in ROTATIONS:
            self._require_unit_gains(place)
        self._change(place, lambda part, tensors: folded(part, transform, tensors))

    @torch.no_grad()
    def shift(self, place: str | Place, delta: Float[Array, " channels"]) -> None:
        """`shift`, but for writing."""
        place = _of(self.model, place)
        offsets = _offsets(self.model, place, delta)
        self._change(place, lambda part, tensors: shifted(part, offsets, tensors))

    @torch.no_grad()
    def fold_gains(self) -> None:
        """`fold_gains`, but for writing."""
        for place in places(self.model).values():
            if place.readers and place.forward[0].location is Location.GAIN:
                norm = place.forward[0]
                require_foldable(self.model, place, norm)
                gain = self._now(f"{norm.module}.weight").double() + norm.plus
                self._change(place, lambda part, tensors, gain=gain: _without_gain(part, gain, tensors))

    @torch.no_grad()
    def write(self) -> None:
        """Give the model its new parameters."""
        for name, new in self.changes.items():
            self.model.get_parameter(name).copy_(new)

    def _now(self, name: str) -> Tensor:
        """A parameter as the maps so far leave it."""
        return self.changes[name] if name in self.changes else self.model.get_parameter(name).detach()

    def _change(self, place: Place, act: Act) -> None:
        """Change the parameters around a place, layer by layer, each checked and rounded to its type."""
        for site in place.sites:
            require_foldable(self.model, place, site)
        found: dict[str, Tensor] = {}
        for name in dict.fromkeys(site.module for site in place.sites):
            part = place.changed(lambda site, name=name: [site] if site.module == name else [])
            own = dict(submodule(self.model, name).named_parameters(prefix=name, recurse=False))
            for key, tensor in act(part, {key: self._now(key).double() for key in own}).items():
                found[key] = tensor.to(own[key].dtype)
                if not found[key].isfinite().all():
                    msg = f"{key} leaves the range of {own[key].dtype} at {place.name}; choose a map that moves less"
                    raise InvalidInputError(msg)
        self.changes |= found

    def _require_unit_gains(self, place: Place) -> None:
        for site in place.norms:
            known = submodule(self.model, site.module).weight is not None
            if known and not bool((self._now(f"{site.module}.weight") + site.plus == 1).all()):
                msg = f"{site.module} has gains other than 1, which no rotation passes; call `fold_gains` first"
                raise InvalidInputError(msg)


def fold(model: Any, place: str | Place, structure: str, values: Array) -> None:
    """Fold a map into a model, x → T x at a place: its outputs stay, up to rounding times the condition of T.

    Maps at one place compose: folding A, then B, is folding B A. A map D R at a norm is the rotation R of the residual
    stream, folded first, and then the diagonal D at the norm.

    Parameters
    ----------
    model : a dense model of `transformers` in memory; its parameters are written
    place : name of one of `places(model)`, or one of them
    structure : what the map is, one of the place's structures
    values : its numbers, with the shapes that `lattq.llm.tune.maps.map_of` lists

    Raises
    ------
    InvalidInputError
        for maps that `map_of` refuses, weights that are quantized, on the meta device or shared with others, rotations
        between norms whose gains are not 1, and weights that leave the range of their type; nothing is written then

    Examples
    --------
    >>> import numpy as np
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> tokens = torch.arange(8)[None]
    >>> before = model(tokens).logits
    >>> heads = np.random.default_rng(0).standard_normal((4, 64, 64)) + 8 * np.eye(64)
    >>> fold(model, "model.layers.0.values", "heads", heads)
    >>> bool((model(tokens).logits - before).abs().max() < 1e-4)
    True
    """
    draft = Draft(model)
    draft.fold(place, structure, values)
    draft.write()


def shift(model: Any, place: str | Place, delta: Float[Array, " channels"]) -> None:
    """Move an activation, x → x − δ, which biases around it undo.

    Parameters
    ----------
    model, place : as for `fold`
    delta : one number for each channel

    Raises
    ------
    InvalidInputError
        where a shift is not exact, or a layer that would take it has no bias, as all norms of the Llama family; and as
        `fold`. Nothing is written then

    Examples
    --------
    >>> import numpy as np
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> shift(load_model(llm.embedded_model()), "model.layers.0.values", np.ones(256))
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: model.layers.0.self_attn.v_proj has no bias to take a shift ...
    """
    draft = Draft(model)
    draft.shift(place, delta)
    draft.write()


def fold_gains(model: Any) -> None:
    """Move the gains of all norms into the layers behind them; a bias is divided by its gain.

    Raises
    ------
    InvalidInputError : for a gain of 0 beside a bias, and as `fold`

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> from lattq.llm.tune import untie
    >>> model = load_model(llm.embedded_model())
    >>> untie(model)
    524288
    >>> fold_gains(model)
    >>> bool((model.model.norm.weight == 1).all())
    True
    """
    draft = Draft(model)
    draft.fold_gains()
    draft.write()


def _of(model: Any, place: str | Place) -> Place:
    """The place of a model that is meant."""
    if isinstance(place, Place):
        return place
    found = places(model)
    if place not in found:
        msg = f"`place` is {place!r}; {type(model).__name__} has {', '.join(found)}"
        raise InvalidInputError(msg)
    return found[place]


def _offsets(model: Any, place: Place, delta: Array) -> Float[Tensor, "heads size"]:
    """The shift by head; raises `InvalidInputError` where it is not exact or no bias takes it."""
    if place.shift is None:
        msg = (
            f"a shift at {place.name} is not exact; shift inputs of a norm's readers, keys without rotation, or values"
        )
        raise InvalidInputError(msg)
    offset = torch.from_numpy(host_reals("delta", delta))
    if offset.shape != (place.channels,):
        msg = f"`delta` has shape {tuple(offset.shape)}; {place.name} takes ({place.channels},)"
        raise InvalidInputError(msg)
    for site in place.forward + (place.inverse if place.shift == "undone" else ()):
        if getattr(submodule(model, site.module), "bias", None) is None:
            msg = f"{site.module} has no bias to take a shift at {place.name}; only classes with biases allow it"
            raise InvalidInputError(msg)
    return offset.reshape(place.heads, place.size)


def _without_gain(place: Place, gain: Float[Tensor, " n"], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters around a norm after its gain has moved into its readers."""
    found = {f"{name}.weight": tensors[f"{name}.weight"] * gain for name in place.readers}
    for norm in place.forward:
        found[f"{norm.module}.weight"] = torch.full_like(gain, 1 - norm.plus)
        if f"{norm.module}.bias" in tensors:
            bias = tensors[f"{norm.module}.bias"]
            lost = ((gain == 0) & (bias != 0)).nonzero().ravel().tolist()
            if lost:
                msg = f"{norm.module} has gain 0 and a bias at channel {lost[0]}; move the bias with `shift` first"
                raise InvalidInputError(msg)
            found[f"{norm.module}.bias"] = torch.where(gain == 0, bias, bias / gain)
    return found
