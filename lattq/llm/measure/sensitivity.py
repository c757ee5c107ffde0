"""How much the output of a model minds an error in the output of each matrix."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lattq.errors import InvalidInputError
from lattq.llm.source.matrices import Matrix, watching
from lattq.llm.source.windows import run

__all__ = ["output_sensitivities"]

CATEGORICAL = ("logits", "start_logits", "end_logits", "prediction_logits")


def output_sensitivities(
    model: Any, layers: Mapping[str, Matrix], batches: Iterable[Int[Tensor, "_ window"]], seed: int = 0
) -> dict[str, float]:
    """Squared derivative of the model's score by one output of a layer, per token: the diagonal Fisher information.

    The score is the log-likelihood of outcomes drawn from the model itself, so an error e_l of variance D in every
    output of layer l costs about ``½ g_l rows D`` nats of KL per token. For a model without a head, the score is that
    of a unit Gaussian around its last hidden state. Experts of one parameter share their mean.

    Parameters
    ----------
    seed : of the draws

    Returns
    -------
    g_l, per squared unit of output
    """
    generator = torch.Generator().manual_seed(seed)
    sums, tokens = dict.fromkeys(layers, 0.0), 0

    def watch(name: str, x: Tensor, y: Tensor) -> None:
        def add(gradient: Tensor) -> None:
            sums[name] += float(gradient.double().square().sum())

        if y.requires_grad:
            y.register_hook(add)

    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    starts = [table for table in tables if table.requires_grad] or list(model.parameters())
    with watching(layers, watch), torch.enable_grad():
        for batch in batches:
            tokens += batch.numel()
            output = run(model, batch)
            torch.autograd.backward(_score(output, generator), inputs=starts)
    model.zero_grad()
    means = {name: sums[name] / (max(tokens, 1) * matrix.shape[0]) for name, matrix in layers.items()}
    return {
        name: sum(means[one] for one in matrix.siblings if one in means) / sum(one in means for one in matrix.siblings)
        for name, matrix in layers.items()
    }


def _score(output: Any, generator: torch.Generator) -> Tensor:
    scores = [_drawn(output[key], generator) for key in CATEGORICAL if output.get(key) is not None]
    if scores:
        return torch.stack(scores).sum()
    hidden = next((one for one in output.values() if isinstance(one, Tensor) and one.is_floating_point()), None)
    if hidden is None:
        msg = f'the model returns {type(output).__name__} without a tensor; measure with `allocation` "distortion"'
        raise InvalidInputError(msg)
    return (hidden * torch.randn(hidden.shape, generator=generator)).sum()


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Log-likelihood of outcomes drawn along the last axis; of a unit Gaussian if there is one outcome only."""
    if logits.shape[-1] == 1:
        return (logits * torch.randn(logits.shape, generator=generator)).sum()
    logs = torch.log_softmax(logits.float(), -1).reshape(-1, logits.shape[-1])
    drawn = torch.multinomial(logs.detach().exp(), 1, generator=generator)
    return logs.gather(-1, drawn).sum()
