"""What a conversion leaves dense, and why."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lattq.llm.convert.report import DenseRow
from lattq.llm.measure.moments import UNREACHED
from lattq.llm.run.encoded import ENCODED, Encoded
from lattq.llm.run.plugin import saved_tensors
from lattq.llm.source.matrices import matrices

__all__ = ["remainder"]

NO_PLACE = "no part of this class"


def remainder(
    model: Any, carried: Mapping[str, Tensor], reasons: Mapping[str, str], file_bytes: int
) -> tuple[DenseRow, ...]:
    """Every tensor of a quantized model that holds no payload, largest first.

    Parameters
    ----------
    carried : tensors that the model has no place for, which come along
    reasons : why a matrix that could be quantized is not, by its name
    file_bytes : of the weight files
    """
    payloads = {f"{name}.{ENCODED}" for name, module in model.named_modules() if isinstance(module, Encoded)}
    whys: dict[str, str] = {}
    for name, matrix in matrices(model).items():
        whys.setdefault(matrix.key, reasons.get(name, UNREACHED))
    kinds = {f"{name}.weight": type(module) for name, module in model.named_modules()}
    rows = []
    for name, tensor in saved_tensors(model).items():
        if name not in payloads:
            why = whys.get(name) or _kind(kinds.get(name), tensor)
            rows.append(DenseRow(name, tuple(tensor.shape), tensor.nbytes / file_bytes, why))
    rows += [DenseRow(name, tuple(t.shape), t.nbytes / file_bytes, NO_PLACE) for name, t in carried.items()]
    return tuple(sorted(rows, key=lambda row: (-row.share, row.name)))


def _kind(kind: type | None, tensor: Tensor) -> str:
    """What a tensor is that is no matrix of a known kind."""
    if kind is not None and issubclass(kind, nn.Embedding):
        return "embedding"
    return "vector" if tensor.ndim < 2 else "no linear layer"
