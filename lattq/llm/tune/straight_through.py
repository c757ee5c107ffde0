"""Integers whose gradients pass through rounding as if it were not there, and through the ranges that set the steps.

Training maps needs both: a scale of a column acts on its group through the largest and the least weight alone. What is
learned of a range are factors in (0, 1] on its two ends, kept as logits (OmniQuant, arXiv 2308.13137, eq. 2).
"""

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["OPEN", "integers", "rounded", "token_integers"]

OPEN = 4.0  # logit with which OmniQuant begins: 0.982 of the range
SMALLEST = 2.0**-24  # of float16: the step of a group of zeros
Clip = Float[Tensor, "2 rows groups"]


def rounded(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The nearest integers, with the gradient of x.

    >>> import torch
    >>> x = torch.tensor([0.4, 1.6], requires_grad=True)
    >>> rounded(x).sum().backward()
    >>> rounded(x).tolist(), x.grad
    ([0.0, 2.0], tensor([1., 1.]))
    """
    return x + (x.round() - x).detach()


def integers(
    weight: Float[Tensor, "rows columns"], levels: int, group: int | None, clip: Clip | None = None
) -> Float[Tensor, "rows columns"]:
    """Weights rounded to integers with a step and a zero point for each row and group of columns; 0 is in every range.

    As `lattq.quantizers.MinMax` does, steps in float16.

    Parameters
    ----------
    levels : number of integers
    group : columns that share a step, of which the last may be short; None for whole rows
    clip : logits of the factors on the least and on the largest weight of each group

    Examples
    --------
    >>> import torch
    >>> integers(torch.tensor([[0.0, 1.1, 3.0]]), 4, None)
    tensor([[0., 1., 3.]])
    """
    parts = _grouped(weight, group)
    low, high = _ends(parts, clip)
    step = ((high - low) / (levels - 1)).clamp(min=SMALLEST)
    step = step + (step.half().to(step) - step).detach()
    return _on_grid(parts, low, step, levels).view(len(weight), -1)[:, : weight.shape[1]]


def token_integers(
    x: Float[Tensor, "*batch channels"], levels: int, clip: Float[Tensor, ""] | None = None
) -> Float[Tensor, "*batch channels"]:
    """Activations rounded to integers with a step and a zero point for each token.

    Parameters
    ----------
    clip : logit of the factor on every token's range

    Examples
    --------
    >>> import torch
    >>> token_integers(torch.tensor([[0.0, 1.1, 3.0], [0.0, 0.0, 0.0]]), 4)
    tensor([[0., 1., 3.],
            [0., 0., 0.]])
    """
    low, high = _ends(x, None if clip is None else clip.expand(2))
    return _on_grid(x, low, ((high - low) / (levels - 1)).clamp(min=SMALLEST), levels)


def _grouped(weight: Float[Tensor, "rows columns"], group: int | None) -> Float[Tensor, "rows groups size"]:
    """Groups of columns; zeros fill the last, which change no range."""
    rows, columns = weight.shape
    size = columns if group is None else min(group, columns)
    return nn.functional.pad(weight, (0, -columns % size)).view(rows, -1, size)


def _ends(x: Float[Tensor, "*batch n"], clip: Tensor | None) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Ends of the ranges, with 0 in them."""
    low, high = x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)
    if clip is None:
        return low, high
    factors = clip.sigmoid()
    return low * factors[0], high * factors[1]


def _on_grid(
    x: Float[Tensor, "*batch n"], low: Float[Tensor, "*batch"], step: Float[Tensor, "*batch"], levels: int
) -> Float[Tensor, "*batch n"]:
    """Rounded to so many equal steps from `low` on."""
    step = step[..., None]
    zero = rounded(-low[..., None] / step)
    return ((rounded(x / step) + zero).clamp(0, levels - 1) - zero) * step
