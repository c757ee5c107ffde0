"""How far the predictions of a model are from those of another, differentiable.

They are log-probabilities of next tokens, or embeddings of windows where a model has no head.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lattq.errors import InvalidInputError
from lattq.llm.source.windows import batches_of, run

__all__ = ["distance", "divergence", "log_probabilities", "mean_distance", "predictions"]


def predictions(model: Any, batch: Int[Tensor, "batch window"]) -> Tensor:
    """What a model says of a batch: log-probabilities of next tokens, or embeddings of windows where it has no head.

    An embedding is the mean of the last hidden states, of length 1.
    """
    if model.can_generate():
        return log_probabilities(model, batch)
    found = run(model.base_model, batch).get("last_hidden_state")
    if found is None or found.ndim != 3:
        msg = f"{type(model.base_model).__name__} returns no hidden states of tokens; there is nothing to compare"
        raise InvalidInputError(msg)
    return torch.nn.functional.normalize(found.float().mean(1), dim=-1)


def log_probabilities(model: Any, batch: Int[Tensor, "batch window"]) -> Float[Tensor, "batch predictions tokens"]:
    """Log-probabilities of the tokens of a batch, each but the first of a window given those before it."""
    return torch.log_softmax(run(model, batch).logits[:, :-1].float(), -1)


def divergence(
    wanted: Float[Tensor, "*predictions tokens"], found: Float[Tensor, "*predictions tokens"]
) -> Float[Tensor, "*predictions"]:
    """KL(wanted ‖ found) in nats of each prediction, from log-probabilities.

    >>> even = torch.log(torch.tensor([0.5, 0.5]))
    >>> divergence(even, even), divergence(even, torch.log(torch.tensor([0.25, 0.75])))
    (tensor(0.), tensor(0.1438))
    """
    return (wanted.exp() * (wanted - found)).sum(-1)


def distance(wanted: Tensor, found: Tensor) -> Tensor:
    """`divergence` of what `predictions` gave; of embeddings, between unit Gaussians around them.

    >>> distance(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([1.])
    """
    return 0.5 * (found - wanted).square().sum(-1) if wanted.ndim == 2 else divergence(wanted, found)


@torch.no_grad()
def mean_distance(dense: Any, model: Any, windows: Int[Tensor, "windows window"]) -> float:
    """Mean `distance` of what a model says of windows from what its dense model says."""
    total, count = 0.0, 0
    for batch in batches_of(windows):
        found = distance(predictions(dense, batch), predictions(model, batch))
        total, count = total + float(found.double().sum()), count + found.numel()
    return total / count
