"""Draws of the score of a model's own predictions, window by window."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lattq.errors import InvalidInputError
from lattq.llm.measure.sensitivity import CATEGORICAL

__all__ = ["Score", "digest_of_window", "pooling_of"]


class Score:
    """Log-likelihoods of outcomes drawn from the model itself; their gradients have the Fisher information as moment.

    For a model without a head, the score is that of a unit Gaussian around its normalised pooled states if `pooling`
    says how they are pooled, else around each of its last hidden states. Draws depend on a window and on the seed
    alone, not on other windows.

    Parameters
    ----------
    seed : of the draws
    draws : for each window
    pooling : "mean" or "cls"; None for none
    """

    def __init__(self, seed: int = 0, draws: int = 1, pooling: str | None = None) -> None:
        self.seed, self.draws, self.pooling = seed, draws, pooling

    def __call__(self, output: Any, window: Int[Tensor, "1 tokens"]) -> list[Tensor]:
        """One score for each draw, from what the model returned for a window."""
        generator = torch.Generator().manual_seed(self._seed(window))
        heads = [output[key] for key in CATEGORICAL if output.get(key) is not None]
        if heads:
            drawn = [_drawn(logits, self.draws, generator) for logits in heads]
            return [torch.stack(one).sum() for one in zip(*drawn, strict=True)]
        state = next((one for one in output.values() if isinstance(one, Tensor) and one.is_floating_point()), None)
        if state is None:
            msg = f"the model returns {type(output).__name__} without a tensor, so that no score can be drawn"
            raise InvalidInputError(msg)
        if self.pooling is not None:
            pooled = state.mean(1) if self.pooling == "mean" else state[:, 0]
            state = torch.nn.functional.normalize(pooled, dim=-1)
        return _gaussian(state, self.draws, generator)

    def _seed(self, window: Tensor) -> int:
        return int.from_bytes(bytes.fromhex(digest_of_window(window, self.seed))[:7], "little")


def digest_of_window(window: Int[Tensor, "..."], *more: Any) -> str:
    """Hash of the tokens of a window, and of what else decides what is measured on it."""
    digest = hashlib.blake2b(repr(more).encode(), digest_size=16)
    digest.update(window.to(torch.int64).contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def pooling_of(source: str | Path) -> str | None:
    """How a directory of sentence-transformers pools states before it normalises them; None if it does not."""
    try:
        modules = json.loads((Path(source) / "modules.json").read_text(encoding="utf-8"))
        kinds = {one["type"].rpartition(".")[2]: one["path"] for one in modules}
        pooling = json.loads((Path(source) / kinds["Pooling"] / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    return known.get(modes[0]) if len(modes) == 1 and "Normalize" in kinds else None


def _drawn(logits: Tensor, draws: int, generator: torch.Generator) -> list[Tensor]:
    """Log-likelihoods of outcomes drawn along the last axis; of a unit Gaussian if there is one outcome only."""
    if logits.shape[-1] == 1:
        return _gaussian(logits, draws, generator)
    logs = torch.log_softmax(logits.float(), -1).reshape(-1, logits.shape[-1])
    below = logs.detach().double().exp().cumsum(-1)
    places = torch.rand(len(logs), draws, generator=generator, dtype=torch.float64) * below[:, -1:]
    found = torch.searchsorted(below, places, right=True).clamp_(max=logits.shape[-1] - 1)
    return [one.sum() for one in logs.gather(-1, found).unbind(1)]


def _gaussian(mean: Tensor, draws: int, generator: torch.Generator) -> list[Tensor]:
    return [(mean * torch.randn(mean.shape, generator=generator)).sum() for _ in range(draws)]
