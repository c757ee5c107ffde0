"""What a conversion leaves dense, and why."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lattq.llm.convert.report import DenseRow
from lattq.llm.measure.moments import UNREACHED
from lattq.llm.run.layers import LattqLinear
from lattq.llm.source.matrices import matrices

__all__ = ["remainder"]


def remainder(model: Any, reasons: Mapping[str, str], file_bytes: int) -> tuple[DenseRow, ...]:
    """Every tensor of a quantized model that holds no payload, largest first.

    Parameters
    ----------
    reasons : why a matrix that could be quantized is not, by its name
    file_bytes : of the weight files
    """
    payloads = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, LattqLinear)}
    whys: dict[str, str] = {}
    for name, matrix in matrices(model).items():
        whys.setdefault(matrix.key, reasons.get(name, UNREACHED))
    kinds = {f"{name}.weight": type(module) for name, module in model.named_modules()}
    stored = model.state_dict(keep_vars=True)
    rows, seen = [], set()
    for name, tensor in stored.items():
        if name in payloads or id(tensor) in seen:
            continue
        seen.add(id(tensor))  # tied tensors are stored once
        why = whys.get(name) or _kind(kinds.get(name), tensor)
        rows.append(DenseRow(name, tuple(tensor.shape), tensor.nbytes / file_bytes, why))
    return tuple(sorted(rows, key=lambda row: (-row.share, row.name)))


def _kind(kind: type | None, tensor: Any) -> str:
    """What a tensor is that is no matrix of a known kind."""
    if kind is not None and issubclass(kind, nn.Embedding):
        return "embedding"
    return "vector" if tensor.ndim < 2 else "no linear layer"
