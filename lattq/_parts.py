"""The parts that a file can hold, and what its coder is told about them."""

import dataclasses
from typing import Any

import numpy as np

from lattq import transforms
from lattq.coding import CLASSES_PER_OCTAVE, FixedLength, Indices, Pooled, TwoWay, reading
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import GAIN_GRID
from lattq.lattices import EntropyCodedLattice, NestedCoder
from lattq.quantizers import (
    BitshiftQuantizer,
    CodebookQuantizer,
    FormatQuantizer,
    LatticeQuantizer,
    NestedQuantizer,
    TrellisQuantizer,
    UniformQuantizer,
)
from lattq.trellis import EntropyCodedTrellis

__all__ = [
    "CODERS",
    "QUANTIZERS",
    "class_prior",
    "encoded",
    "expected_gains",
    "kind_of",
    "require_decodable",
    "restored_quantizer",
]

QUANTIZERS = {
    "uniform": UniformQuantizer,
    "trellis": TrellisQuantizer,
    "bitshift": BitshiftQuantizer,
    "lattice": LatticeQuantizer,
    "format": FormatQuantizer,
    "nested": NestedQuantizer,
    "codebook": CodebookQuantizer,
}
CODERS = {
    "fixed": FixedLength,
    "two-way": TwoWay,
    "pooled": Pooled,
    "trellis": EntropyCodedTrellis,
    "lattice": EntropyCodedLattice,
    "nested": NestedCoder,
    "indices": Indices,
}


def kind_of(kinds: dict[str, type], value: Any) -> str:
    """Name of the kind of a part; raises `InvalidInputError` for one that no file can hold.

    >>> kind_of(CODERS, TwoWay())
    'two-way'
    """
    kind = next((name for name, cls in kinds.items() if isinstance(value, cls)), None)
    if kind is None:
        known = ", ".join(cls.__name__ for cls in kinds.values())
        msg = f"a file cannot hold {value!r}; it knows {known}"
        raise InvalidInputError(msg)
    return kind


def class_prior(transform: transforms.Transform) -> Any:
    """Guess of the coder's column classes from the scales of an equalizing transform (16ths to 8ths of an octave).

    >>> class_prior(transforms.Diagonal(np.array([1.0, 2.0])))
    array([0, 8])
    """
    exponents = transforms.octaves(transform)
    return 0 if exponents is None else exponents * CLASSES_PER_OCTAVE // transforms.SCALE_GRID


def expected_gains(coder: Any, data: Any, shape: tuple[int, int], prior: Any) -> Any:
    """Column gains that what the coder made of the codes predicts, in 128ths.

    >>> expected_gains(FixedLength(4), b"", (1, 1), 0)
    128
    """
    return coder.gains(data, shape, prior) if hasattr(coder, "gains") else GAIN_GRID


def encoded(coder: Any, codes: np.ndarray, quantizer: Any, prior: Any) -> Any:
    """What the coder makes of the codes; that of lattice points is told the row classes, which say where they lie.

    >>> encoded(FixedLength(256), np.ones((1, 3), dtype=np.int32), None, 0)
    b'\\x01\\x01\\x01'
    """
    if isinstance(coder, EntropyCodedLattice):
        return coder.encode(codes, prior, getattr(quantizer, "row_classes", None))
    return coder.encode(codes, prior)


def require_decodable(quantizer: Any, codes: np.ndarray, centroids: np.ndarray | None) -> None:
    """Raise `DamagedFileError` for codes that the quantizer of a file does not know, or centroids that it cannot move.

    >>> require_decodable(UniformQuantizer(np.ones((1, 1))), np.array([[-5]]), None)
    """
    if centroids is not None and not getattr(quantizer, "ordered", True):
        msg = f"centroids for a {type(quantizer).__name__}, whose codes have no place to move; the file is damaged"
        raise DamagedFileError(msg)
    if isinstance(quantizer, FormatQuantizer):
        low, high = quantizer.number.low, quantizer.number.low + quantizer.number.values.size - 1
        if not low <= codes.min() <= codes.max() <= high:
            msg = f"codes {codes.min()} ... {codes.max()} where {quantizer.number!r} has {low} ... {high}; "
            raise DamagedFileError(msg + "the file is damaged")
    elif hasattr(quantizer, "check_codes"):
        with reading("the codes"):
            quantizer.check_codes(codes)


def restored_quantizer(state: list, coder: Any, data: Any, shape: tuple[int, int], prior: Any) -> Any:
    """The quantizer of a file; that of lattice points gets its row classes back from the coder's bytes.

    >>> restored_quantizer(["uniform", UniformQuantizer(np.ones((1, 1))).to_state()], TwoWay(), [], (2, 2), 0).step
    array([[1.]])
    """
    kind, parts = state
    quantizer = QUANTIZERS[kind].from_state(parts, shape)
    if isinstance(quantizer, CodebookQuantizer) and coder != quantizer.coder:
        msg = f"{coder} beside tables that {quantizer.coder} belongs to; the file is damaged"
        raise DamagedFileError(msg)
    if isinstance(quantizer, LatticeQuantizer) and isinstance(coder, EntropyCodedLattice):
        return dataclasses.replace(quantizer, row_classes=coder.row_classes(data, shape, prior))
    return quantizer
