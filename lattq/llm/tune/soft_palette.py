"""Fine-tuning weights that will have few different values: soft k-means under autograd.

A weight is replaced by its mixtures of 2^bits entries at the fixed point of soft k-means, and gradients come from the
implicit function theorem (`lattq.codebooks.differentiable`). Both depend on a number's value alone, so a table with a
row for each value of 16 bits does for a weight of any size: no table of weights by entries exists, and none is kept.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

from lattq._array import require_finite, to_host
from lattq._options import as_integer
from lattq.codebooks.differentiable import SoftClustering, soft_kmeans
from lattq.errors import InvalidInputError
from lattq.llm.tune.values import ValueTable

__all__ = ["SoftPalette", "harden", "soft_palettize"]

_RESIDUAL = 1e-7  # of the range: gradients are those of a fixed point, with half the digits of float64 at least


def soft_palettize(
    weight: Shaped[Tensor, "*shape"],
    bits: int,
    *,
    softness: float = 0.05,
    temperature: float | None = None,
    start: Float[Tensor, " size"] | None = None,
    table_dtype: torch.dtype | None = None,
) -> Float[Tensor, "*shape"]:
    """Mixtures of 2^bits entries in place of weights, differentiable.

    Parameters
    ----------
    weight : of any shape; one table serves all of it
    bits : of an index, 1 to 8
    softness : the temperature over the squared mean gap between the entries of the start: the same at every scale
    temperature : of the shares softmax(-(weight - entry)² / temperature), instead of `softness`
    start : first entries; the best codebook if not given
    table_dtype : torch.bfloat16 or torch.float16, to which weights are rounded first, their gradient passing as if they
        were not. By default a weight's own type if it has 16 bits, bfloat16 for float32, and no rounding for float64,
        whose table then has a row for each different weight

    Returns
    -------
    The type of `weight`. A backward pass keeps at most 65 536 values and how often they occur.

    Raises
    ------
    InvalidInputError : if a weight is not finite, or not a floating-point number; with fewer than 2^bits different
        values; or if entries find no rest, which a smaller softness helps.

    References
    ----------
    Cho, Alizadeh Vahid, Adya and Rastegari 2022 (DKM); Cho et al. 2023 (eDKM: tables of distinct values).

    Examples
    --------
    >>> weight = torch.tensor([[0.0, 1.0, 2.0], [5.0, 6.0, 6.5]], requires_grad=True)
    >>> soft = soft_palettize(weight, 1)
    >>> soft.detach()
    tensor([[1.0000, 1.0000, 1.0000],
            [5.8333, 5.8333, 5.8333]])
    >>> soft[0, 0].backward()
    >>> weight.grad.round(decimals=2)
    tensor([[0.3300, 0.3300, 0.3300],
            [-0.0000, 0.0000, 0.0000]])
    """
    first = None if start is None else to_host(start).astype(np.float64)
    table, found = _fit(weight, bits, table_dtype, softness=softness, temperature=temperature, start=first)
    return _Mixtures.apply(weight, table, found)[0]  # type: ignore[index]


class SoftPalette(nn.Module):
    """A parametrization: a layer computes with mixtures of 2^bits entries, and trains what they are mixtures of.

    Entries go on from where they were in the forward pass before, those of the first being the best codebook; that sets
    the scale of `softness` too. `harden` ends it. Training and evaluation mode do not differ.

    Parameters
    ----------
    bits, softness, table_dtype : as for `soft_palettize`; `softness` may be changed on the way

    Examples
    --------
    >>> layer = nn.Linear(8, 8)
    >>> _ = parametrize.register_parametrization(layer, "weight", SoftPalette(bits=2))
    >>> layer(torch.ones(1, 8)).sum().backward()
    >>> layer.parametrizations.weight.original.grad.shape
    torch.Size([8, 8])
    >>> entries = harden(layer)
    >>> len(layer.weight.unique()), entries["weight"].shape
    (4, torch.Size([4]))
    """

    entries: Tensor
    gap: Tensor

    def __init__(self, bits: int, *, softness: float = 0.05, table_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.bits, self.softness, self.table_dtype = _checked_bits(bits), softness, table_dtype
        self.register_buffer("entries", torch.full((1 << self.bits,), math.nan, dtype=torch.float64))
        self.register_buffer("gap", torch.tensor(math.nan, dtype=torch.float64))  # between entries of the first start

    def forward(self, weight: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Mixtures of entries in place of weights."""
        table, found = self.clustering(weight)
        return _Mixtures.apply(weight, table, found)[0]  # type: ignore[index]

    def extra_repr(self) -> str:
        """Bits and softness."""
        return f"bits={self.bits}, softness={self.softness}"

    @torch.no_grad()
    def clustering(self, weight: Tensor) -> tuple[ValueTable, SoftClustering]:
        """The fixed point next to the last one, which it becomes."""
        fitted = bool(torch.isfinite(self.gap))
        options: dict[str, Any] = {"softness": self.softness, "temperature": None, "start": None}
        if fitted:
            heat = self.softness * float(self.gap) ** 2
            options |= {"temperature": heat, "start": to_host(self.entries).astype(np.float64)}
        table, found = _fit(weight, self.bits, self.table_dtype, **options)
        self.entries.copy_(torch.from_numpy(found.centroids))
        if not fitted:
            self.gap.fill_(math.sqrt(found.temperature / self.softness))
        return table, found


def harden(model: nn.Module) -> dict[str, Float[Tensor, " size"]]:
    """End all soft palettes of a model: each weight becomes its nearest entry, and parameters are plain again.

    To measure on the way, harden a deep copy.

    Parameters
    ----------
    model : changed in place

    Returns
    -------
    Entries of each parameter that had a soft palette, by its name, in its type. The parameter has no other values.

    Raises
    ------
    InvalidInputError : if there is no soft palette, or a weight has another parametrization besides; then the
        model is as before.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    >>> _ = parametrize.register_parametrization(model[0], "weight", SoftPalette(bits=1))
    >>> entries = harden(model)
    >>> list(entries), bool(torch.isin(model[0].weight, entries["0.weight"]).all())
    (['0.weight'], True)
    """
    places = list(_soft_palettes(model))
    if not places:
        msg = f"{type(model).__name__} has no soft palettes; register some with torch.nn.utils.parametrize"
        raise InvalidInputError(msg)
    fits = [palette.clustering(original) for _, _, _, palette, original in places]  # all, before anything changes
    found, done = {}, set()
    for (path, module, name, _, original), (table, fit) in zip(places, fits, strict=True):
        entries = torch.from_numpy(fit.centroids)
        found[path] = entries.to(original)
        if id(original) not in done:  # layers may share a weight
            original.data = table.spread(original, entries[fit.assignment().astype(np.int64)])
            done.add(id(original))
        kind: Any = type(module)  # copies of a module share the class that removal changes
        object.__setattr__(module, "__class__", type(kind.__name__, kind.__bases__, dict(kind.__dict__)))
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    return found


def _soft_palettes(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, SoftPalette, Tensor]]:
    """Path, module, name, palette and weight of each parameter that has a soft palette."""
    for prefix, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        steps: Any
        for name, steps in module.parametrizations.items():  # type: ignore[union-attr,operator]
            path = f"{prefix}.{name}".lstrip(".")
            palettes = [step for step in steps if isinstance(step, SoftPalette)]
            if palettes and len(steps) > 1:
                msg = f"`{path}` has {len(steps)} parametrizations; remove those that are no SoftPalette first"
                raise InvalidInputError(msg)
            if palettes:
                yield path, module, name, palettes[0], steps.original


class _Mixtures(torch.autograd.Function):
    """Mixtures and entries of a fixed point; backward keeps the clustering of values, and the weight to find them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, table: ValueTable, found: SoftClustering) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight)
        ctx.set_materialize_grads(False)
        ctx.table, ctx.found = table, found
        entries = torch.from_numpy(found.centroids).to(weight.device)
        return table.spread(weight, torch.from_numpy(np.asarray(found.output()))), entries

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output: Tensor | None, entries: Tensor | None) -> tuple[Tensor, None, None]:
        (weight,), table = ctx.saved_tensors, ctx.table
        if output is None:
            output = weight.new_zeros(()).expand(weight.shape)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite spreads, as elsewhere under autograd
            by_entry = None if entries is None else to_host(entries)
            direct, through = ctx.found.gradient_parts(table.gather(weight, output), by_entry)
        return table.spread(weight, torch.from_numpy(through), torch.from_numpy(direct), output), None, None


def _fit(weight: Tensor, bits: int, dtype: torch.dtype | None, **options: Any) -> tuple[ValueTable, SoftClustering]:
    """Values of a weight and their fixed point."""
    size, dtype = 1 << _checked_bits(bits), _table_dtype(weight, dtype)
    table = ValueTable.of(weight, dtype)
    if not bool(torch.isfinite(table.values).all()):
        require_finite("weight", weight.detach())
        largest = torch.finfo(dtype or weight.dtype).max
        msg = f"`weight` has numbers beyond {largest:.4g}, the largest of {dtype}; use another `table_dtype`"
        raise InvalidInputError(msg)
    different = len(table.values.unique())
    if different < size:
        kind = dtype or weight.dtype
        msg = f"`weight` has {different} different values in {kind}, fewer than {size} entries; use fewer bits"
        raise InvalidInputError(msg)
    found = soft_kmeans(table.values.numpy(), size, table.counts.numpy(), **options)
    span = float(table.values.max() - table.values.min())
    if not found.residual <= _RESIDUAL * span:
        msg = f"entries still move by {found.residual:.2g} of a range of {span:.2g}; use a smaller `softness`"
        raise InvalidInputError(msg)
    return table, found


def _checked_bits(bits: int) -> int:
    found = as_integer("bits", bits)
    if not 1 <= found <= 8:
        msg = f"`bits` is {found}; give 1 to 8"
        raise InvalidInputError(msg)
    return found


def _table_dtype(weight: Tensor, wanted: torch.dtype | None) -> torch.dtype | None:
    """The type of 16 bits whose values the table has; None for no rounding."""
    own = {torch.bfloat16: torch.bfloat16, torch.float16: torch.float16, torch.float32: torch.bfloat16}
    if weight.dtype not in (*own, torch.float64):
        msg = f"`weight` has dtype {weight.dtype}; convert it to float16, bfloat16, float32 or float64"
        raise InvalidInputError(msg)
    if wanted not in (None, torch.bfloat16, torch.float16):
        msg = f"`table_dtype` is {wanted}; pass torch.bfloat16, torch.float16 or None"
        raise InvalidInputError(msg)
    return own.get(weight.dtype) if wanted is None else wanted
