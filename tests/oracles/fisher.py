"""The exact Fisher information of a layer's outputs, by every label at every token."""

from typing import Any

import numpy as np
import torch


def fisher_information(model: Any, module: torch.nn.Module, tokens: torch.Tensor) -> np.ndarray:
    """Σ over tokens t and labels v of p(v) Σ_s g_s g_sᵀ, g_s the gradient of log p(v) at token t by the output at s.

    Parameters
    ----------
    model : returns logits
    module : whose output is meant
    tokens : of one window, shape (1, tokens)

    Examples
    --------
    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> head = torch.nn.Linear(3, 2)
    >>> class Model:
    ...     def __call__(self, input_ids):
    ...         return type("Output", (), {"logits": head(torch.eye(3)[input_ids])})
    >>> found = fisher_information(Model(), head, torch.tensor([[1]]))
    >>> p = torch.softmax(head(torch.eye(3)[1]), -1).detach().numpy()
    >>> bool(np.allclose(found, np.diag(p) - np.outer(p, p), atol=1e-6))
    True
    """
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logs = torch.log_softmax(model(input_ids=tokens).logits[0], -1)
    handle.remove()
    (output,) = seen
    total = np.zeros((output.shape[-1],) * 2)
    for row in logs:
        for one in row:
            (gradient,) = torch.autograd.grad(one, output, retain_graph=True)
            g = gradient.reshape(-1, gradient.shape[-1]).double().numpy()
            total += float(one.detach().double().exp()) * g.T @ g
    return total
