"""A quantized model that learns: layers with frozen codes, and the vectors that stay dense."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lattq.llm.distill.factors import FrozenCodes
from lattq.llm.run.encoded import Encoded
from lattq.llm.source.architecture import find_blocks
from lattq.llm.source.checkpoint import remember_dtypes, restore_dtypes
from lattq.llm.source.matrices import replace

__all__ = ["Student"]


class Student:
    """A model with payloads, made differentiable by what may change without a byte of codes.

    That is the factors of `FrozenCodes`, and norms and biases: every dense vector, which keeps its type in the files
    and so its bytes. In between they are float32; `rounded` shows what files would hold. Experts of one parameter stay
    as they are: their matrices are decoded by slices.

    Parameters
    ----------
    model : of `transformers`, loaded from a directory of lattq; cast to float32, it computes as before until it learns
    embeddings : whether embeddings and the output layer learn too, where they are dense
    gains : whether gains of rows and columns do, whose bytes change

    Attributes
    ----------
    layers : that learn, by name
    learned : all parameters that do, by name
    weights : that are quantized, experts included
    """

    def __init__(self, model: Any, *, embeddings: bool = False, gains: bool = False) -> None:
        self.model = model
        self.dtypes = remember_dtypes(model)
        nn.Module.float(model)  # `transformers` forbids the method where a model is quantized
        self.blocks = [block for _, block in find_blocks(model, model.hf_quantizer.matrices)]
        found = {name: one for name, one in model.named_modules() if isinstance(one, Encoded)}
        routed = {name for name, one in model.hf_quantizer.matrices.items() if one.routed}
        self.plain: dict[str, Any] = {name: one for name, one in found.items() if name not in routed}
        self.weights = sum(one.out_features * one.in_features for one in found.values())
        self.others = sum(found[name].payload_bytes for name in found if name in routed)
        self.layers: dict[str, FrozenCodes] = {}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        dense = self._dense(embeddings)
        for name, layer in self.plain.items():
            self.layers[name] = FrozenCodes(layer, gains=gains)
            replace(model, name, self.layers[name])
        factors = {
            f"{name}.{key}": one
            for name, layer in self.layers.items()
            for key, one in layer.named_parameters()
            if key != "bias"
        }
        self.learned: dict[str, nn.Parameter] = factors | dense
        self.kept = {name: self.dtypes[name] for name in dense}
        for parameter in self.learned.values():
            parameter.requires_grad_(True)

    def _dense(self, embeddings: bool) -> dict[str, nn.Parameter]:
        """Norms and biases by name, and perhaps tables of tokens."""
        tables = [self.model.get_input_embeddings(), self.model.get_output_embeddings()] if embeddings else []
        wanted = {id(table.weight) for table in tables if isinstance(table, nn.Embedding | nn.Linear)}
        named = self.model.named_parameters()
        return {name: one for name, one in named if one.is_floating_point() and (one.ndim == 1 or id(one) in wanted)}

    def bits(self) -> Tensor:
        """About what the gains of all layers take."""
        return torch.stack([torch.zeros(()), *(layer.bits() for layer in self.layers.values())]).sum()

    def payloads(self) -> dict[str, bytes]:
        """Of each layer that learns, as it stands."""
        return {name: layer.quantized().payload for name, layer in self.layers.items()}

    def size(self) -> int:
        """Bytes of all payloads, those of experts included."""
        return self.others + sum(map(len, self.payloads().values()))

    def state(self) -> dict[str, Tensor]:
        """A copy of what is learned."""
        return {name: one.detach().clone() for name, one in self.learned.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a copy."""
        for name, one in self.learned.items():
            one.copy_(state[name])

    @torch.no_grad()
    def round(self) -> None:
        """Give everything learned the values that files will hold."""
        for layer in self.layers.values():
            layer.round()
        for name, dtype in self.kept.items():
            self.learned[name].copy_(self.learned[name].to(dtype).float())

    @contextlib.contextmanager
    def rounded(self) -> Iterator[None]:
        """The model as files would hold it, for a while."""
        before = self.state()
        self.round()
        try:
            yield
        finally:
            self.load(before)

    @contextlib.contextmanager
    def recomputing(self) -> Iterator[None]:
        """Blocks that keep their inputs alone, and run again for gradients."""
        forwards = [block.forward for block in self.blocks]
        for block, forward in zip(self.blocks, forwards, strict=True):
            block.forward = _recomputed(forward)
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    def finish(self) -> None:
        """Put layers with payloads back, everything rounded, and the types that the model came with."""
        self.round()
        payloads = self.payloads()
        for name, layer in self.plain.items():
            layer.hold(payloads[name])
            replace(self.model, name, layer)
        for parameter in self.learned.values():
            parameter.requires_grad_(False)
        restore_dtypes(self.model, self.dtypes)


def _recomputed(forward: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return call
