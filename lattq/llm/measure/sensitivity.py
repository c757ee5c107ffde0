"""How much the output of a model minds an error in the output of each matrix."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lattq._options import as_seed
from lattq.errors import InvalidInputError
from lattq.llm.source.matrices import Matrix, watching
from lattq.llm.source.windows import run

__all__ = ["output_sensitivities", "state_sensitivities"]

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
    sums, tokens = dict.fromkeys(layers, 0.0), 0

    def watch(name: str, x: Tensor, y: Tensor) -> None:
        def add(gradient: Tensor) -> None:
            sums[name] += float(gradient.double().square().sum())

        if y.requires_grad:
            y.register_hook(add)

    with watching(layers, watch):
        for count in _backward(model, batches, seed):
            tokens += count
    means = {name: sums[name] / (max(tokens, 1) * matrix.shape[0]) for name, matrix in layers.items()}
    return {
        name: sum(means[one] for one in matrix.siblings if one in means) / sum(one in means for one in matrix.siblings)
        for name, matrix in layers.items()
    }


def state_sensitivities(
    model: Any, blocks: Iterable[nn.Module], batches: Iterable[Int[Tensor, "_ window"]], seed: int = 0
) -> list[Float[Tensor, "channels channels"]]:
    """Fisher information of the hidden states behind each block, averaged over tokens: E[g gᵀ], g as above.

    An error e of the states of all tokens, independent of the draws, costs about ``½ eᵀ G e`` nats of KL per token.

    Parameters
    ----------
    blocks : whose outputs, or the first of them, are hidden states
    seed : of the draws
    """
    found: list[Any] = []
    hooks = []

    def hook(index: int) -> Any:
        def add(gradient: Tensor) -> None:
            rows = gradient.detach().reshape(-1, gradient.shape[-1]).double()
            found[index] = found[index] + rows.T @ rows

        def watch(module: nn.Module, args: Any, output: Any) -> None:
            state = output[0] if isinstance(output, tuple | list) else output
            state.register_hook(add)

        return watch

    for index, block in enumerate(blocks):
        found.append(0.0)
        hooks.append(block.register_forward_hook(hook(index)))
    try:
        tokens = sum(_backward(model, batches, seed))
    finally:
        for one in hooks:
            one.remove()
    return [one / max(tokens, 1) for one in found]


def _backward(model: Any, batches: Iterable[Int[Tensor, "_ window"]], seed: int) -> Iterator[int]:
    """Differentiate the score of each batch; its number of tokens."""
    generator = torch.Generator().manual_seed(as_seed(seed, bits=64))
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    starts = [table for table in tables if table.requires_grad] or tables or list(model.parameters())
    starts = [one for one in starts if one.is_floating_point()]
    frozen = [one for one in starts if not one.requires_grad]
    try:
        for one in frozen:
            one.requires_grad_(True)
        for batch in batches:
            with torch.enable_grad():
                torch.autograd.backward(_score(run(model, batch), generator), inputs=starts)
            yield batch.numel()
    finally:
        model.zero_grad()
        for one in frozen:
            one.requires_grad_(False)


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
