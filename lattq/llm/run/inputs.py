"""Inputs of a layer rounded to a few bits while the model runs."""

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lattq._options import as_flag, as_float, as_integer, normalize
from lattq.coding.schema import Choice, Flag, Inner, Integer, Real, checked
from lattq.errors import DamagedFileError, InvalidInputError

__all__ = ["InputRounding", "as_input_bits", "as_input_clip", "input_block", "read_input_block"]

FEWEST, MOST = 2, 8
# The words of compressed-tensors: one range for each token, found when it comes.
FIELDS = {
    "num_bits": Integer(FEWEST, MOST),
    "symmetric": Flag(),
    "strategy": Choice("token"),
    "dynamic": Choice(True),
    "clip": Inner(),
}
CLIP = Real(sys.float_info.min, 1.0)


def as_input_bits(name: str, value: Any) -> int:
    """The bits of rounded inputs as a Python integer; raises `InvalidInputError`.

    >>> as_input_bits("bits", 4)
    4
    """
    bits = as_integer(name, value)
    if not FEWEST <= bits <= MOST:
        msg = f"`{name}` is {bits}; inputs are rounded to {FEWEST} to {MOST} bits"
        raise InvalidInputError(msg)
    return bits


def as_input_clip(name: str, value: Any) -> float:
    """The factor of their ranges as a Python float; raises `InvalidInputError`.

    >>> as_input_clip("clip", 1)
    1.0
    """
    clip = as_float(name, value)
    if not 0.0 < clip <= 1.0:
        msg = f"`{name}` is {clip}; a range shrinks by a factor above 0 and at most 1"
        raise InvalidInputError(msg)
    return clip


@dataclasses.dataclass(frozen=True)
class InputRounding:
    """Rounds every token to integers of its own range, from its smallest to its largest entry, zero always among them.

    Entries outside of a clipped range become its ends. A token with NaN or infinity becomes NaN throughout; what is
    beyond the dtype after rounding becomes its largest number.

    Parameters
    ----------
    bits : 2 to 8
    symmetric : the range is that of the largest magnitude to both sides; else with a zero point, as in OmniQuant
    clip : factor of every token's range, above 0 and at most 1

    Examples
    --------
    >>> InputRounding(bits=2)(torch.tensor([[-1.0, 0.1, 0.9, 2.0], [0.0, 0.0, 0.0, 0.0]]))
    tensor([[-1.,  0.,  1.,  2.],
            [ 0.,  0.,  0.,  0.]])
    """

    bits: int = 4
    symmetric: bool = False
    clip: float = 1.0

    def __post_init__(self) -> None:
        normalize(self, as_flag, "symmetric")
        normalize(self, as_input_bits, "bits")
        normalize(self, as_input_clip, "clip")

    def __call__(self, x: Tensor) -> Float[Tensor, "*batch n"]:
        """The rounded tokens, in their dtype; float16 and bfloat16 are calculated with as float32.

        Raises
        ------
        InvalidInputError : for a tensor that is no vector or holds no floating-point numbers
        """
        if not x.is_floating_point() or x.ndim < 1:
            msg = f"`x` is a tensor of {x.dtype} with {x.ndim} axes; pass tokens of floating-point numbers"
            raise InvalidInputError(msg)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        largest = wide.abs().amax(-1, keepdim=True)
        unit = largest.where(largest != 0, torch.ones_like(largest))
        scaled = wide / unit  # within ±1, whatever the unit of the token is
        step, bottom, top = self._range(scaled)
        codes = torch.minimum(torch.maximum((scaled / step + 0.5).floor(), bottom), top)
        return (codes * step * unit).clamp(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max).to(x.dtype)

    def _range(self, scaled: Float[Tensor, "*batch n"]) -> tuple[Tensor, Tensor, Tensor]:
        """Step of every token, its smallest and its largest integer."""
        if self.symmetric:
            high = self.clip * scaled.abs().amax(-1, keepdim=True)
            low, steps = -high, 2**self.bits - 2
        else:
            low = self.clip * scaled.amin(-1, keepdim=True).clamp(max=0)
            high = self.clip * scaled.amax(-1, keepdim=True).clamp(min=0)
            steps = 2**self.bits - 1
        step = (high - low) / steps
        step = step.where(step != 0, torch.ones_like(step))
        top = (high / step + 0.5).floor()
        return step, top - steps, top


def input_block(inputs: Mapping[str, InputRounding]) -> dict[str, Any] | None:
    """What `config.json` says of rounded inputs: bits that all layers share, a factor for each; None if there are none.

    >>> input_block({"proj": InputRounding(bits=4, clip=0.9)})["clip"]
    {'proj': 0.9}
    """
    if not inputs:
        return None
    kinds = {(one.bits, one.symmetric) for one in inputs.values()}
    if len(kinds) > 1:
        msg = f"inputs of one model are rounded in {len(kinds)} ways; give all layers the same bits"
        raise InvalidInputError(msg)
    ((bits, symmetric),) = kinds
    clips = {name: one.clip for name, one in inputs.items()}
    return {"num_bits": bits, "symmetric": symmetric, "strategy": "token", "dynamic": True, "clip": clips}


def read_input_block(block: Any, layers: Iterable[str]) -> dict[str, InputRounding]:
    """Inverse of `input_block` for a model with these quantized layers.

    Raises
    ------
    DamagedFileError : for anything that `input_block` does not write, or other layers

    Examples
    --------
    >>> read_input_block(input_block({"proj": InputRounding(bits=4, clip=0.9)}), ["proj"])
    {'proj': InputRounding(bits=4, symmetric=False, clip=0.9)}
    """
    if block is None:
        return {}
    if not isinstance(block, dict) or block.keys() != FIELDS.keys():
        msg = f"`input_activations` in config.json is {str(block)[:40]!r}; expected {', '.join(FIELDS)}"
        raise DamagedFileError(msg)
    bits, symmetric, _, _, clips = (checked(schema, block[name], name) for name, schema in FIELDS.items())
    if not isinstance(clips, dict) or clips.keys() != set(layers):
        msg = "`clip` in config.json is not one factor for each quantized layer; the file is damaged"
        raise DamagedFileError(msg)
    factors = {name: checked(CLIP, clip, f"clip of {name}") for name, clip in clips.items()}
    return {name: InputRounding(bits, symmetric, factor) for name, factor in factors.items()}
