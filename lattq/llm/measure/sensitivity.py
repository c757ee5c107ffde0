"""How much the output of a model minds an error in the output of each linear layer."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lattq.llm.source.windows import run

__all__ = ["output_sensitivities"]


def output_sensitivities(
    model: Any, layers: Mapping[str, nn.Linear], batches: Iterable[Int[Tensor, "_ window"]], seed: int = 0
) -> dict[str, float]:
    """Mean squared derivative of the model's score by one output of a layer: the diagonal Fisher information.

    The score is the log-likelihood of tokens drawn from the model itself, so an error e_l of variance D in every
    output of layer l costs about ``½ g_l rows D`` nats of KL per token. For a model without a head, the score is that
    of a unit Gaussian around its last hidden state.

    Parameters
    ----------
    seed : of the draws

    Returns
    -------
    g_l, per squared unit of output
    """
    generator = torch.Generator().manual_seed(seed)
    sums, counts = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)

    def watch(name: str) -> Any:
        def add(gradient: Tensor) -> None:
            sums[name] += float(gradient.double().square().sum())
            counts[name] += gradient.numel()

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            output.register_hook(add)
            return output

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            for batch in batches:
                output = run(model, batch)
                torch.autograd.backward(_score(output, generator), inputs=list(model.parameters())[:1])
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad()
    return {name: sums[name] / max(counts[name], 1) for name in layers}


def _score(output: Any, generator: torch.Generator) -> Tensor:
    if "logits" not in output:
        hidden = output.last_hidden_state
        return (hidden * torch.randn(hidden.shape, generator=generator)).sum()
    logs = torch.log_softmax(output.logits.float(), -1)
    drawn = torch.multinomial(logs.detach().exp().flatten(0, 1), 1, generator=generator)
    return logs.flatten(0, 1).gather(-1, drawn).sum()
