"""What a conversion did, layer by layer."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._distortion import reference_rate
from lattq._metric import Metric
from lattq.errors import InvalidInputError
from lattq.llm.source.design import FoldedMap
from lattq.quantized import Quantized

__all__ = ["DenseRow", "LayerRow", "Report"]

FILE = "lattq_report.json"
DERIVED = ("distortion", "gap", "operations")
ENOUGH = 8  # tokens for each column: fewer cost more than about 0.05 bit (theory 11.2)


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One quantized layer.

    Attributes
    ----------
    name, shape : of the layer
    value : its step or number of levels
    rate : bits per weight of the payload
    distortion : squared error of the outputs per weight, for the second moment and target weight it was coded with, all
        outputs alike
    reference : bits per weight that independent Gaussian weights of these variances need at this distortion, which
        weights that depend on each other may undercut; None if the distortion is 0. Where outputs count differently, at
        the distortion in that metric
    gap : rate - reference
    seconds : time to quantize
    stats : `Quantized.stats`
    tokens : inputs that the second moment was measured on; from few, it is shrunk, and distortion, reference and gap
        are those of an estimate
    input_clip : factor of the range of each token that its inputs are rounded in; None where they are not
    operations : multiplications and additions, a pair counted once, that its transform takes for each token while the
        model runs; 0 where it is undone once, when the layer is decoded, as it is unless inputs are rounded

    Examples
    --------
    >>> LayerRow("proj", (2, 3), 0.5, 3.0, distortion=0.1, reference=2.5, gap=0.5, seconds=0.1, stats={}).gap
    0.5
    """

    name: str
    shape: tuple[int, int]
    value: float | int
    rate: float
    distortion: float
    reference: float | None
    gap: float | None
    seconds: float
    stats: dict[str, Any]
    tokens: int = 0
    input_clip: float | None = None
    operations: int = 0


@dataclasses.dataclass(frozen=True)
class DenseRow:
    """One tensor that stays as it was.

    Attributes
    ----------
    name, shape : of the tensor, or of one expert's slice of it
    share : of the bytes of the weight files
    why : it stays

    Examples
    --------
    >>> DenseRow("embed_tokens.weight", (16384, 64), share=0.4, why="embedding").why
    'embedding'
    """

    name: str
    shape: tuple[int, ...]
    share: float
    why: str


@dataclasses.dataclass(frozen=True)
class Report:
    """A conversion.

    Attributes
    ----------
    rate : bits per quantized weight: 8 x (bytes of all that replaces those weights, and of dense weights that maps
        added) / (their number)
    weights : how many weights of the source are quantized; a copy of the embedding that maps made is none of them
    stored_bytes : what replaces them, counted in the files: payloads, header entries, block in config.json
    file_bytes : size of all weight files, unquantized tensors included
    value : the step before the factors of the layers, or the number of levels
    seconds : of the whole conversion
    settings : how it was made
    layers : one row per layer
    dense : one row per tensor that stays as it was
    run : name of the conversion, which `config.json` has too
    maps : what was folded into the model before, one row per map
    added_bytes : of dense weights that the maps added, such as an output layer that no longer shares the embedding's

    Examples
    --------
    >>> row = LayerRow("proj", (2, 3), 0.5, 3.0, distortion=0.1, reference=2.5, gap=0.5, seconds=0.1, stats={})
    >>> report = Report(3.2, 6, 3, 90, 0.5, 1.0, {"recipe": "watersic"}, (row,))
    >>> Report.from_json(report.to_json()) == report
    True
    """

    rate: float
    weights: int
    stored_bytes: int
    file_bytes: int
    value: float | int
    seconds: float
    settings: dict[str, Any]
    layers: tuple[LayerRow, ...]
    dense: tuple[DenseRow, ...] = ()
    run: str = ""
    maps: tuple[FoldedMap, ...] = ()
    added_bytes: int = 0

    def dense_shares(self) -> dict[str, float]:
        """Share of the weight files that stays dense, by reason, largest first."""
        shares: dict[str, float] = {}
        for row in self.dense:
            shares[row.why] = shares.get(row.why, 0.0) + row.share
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @property
    def distortion(self) -> float:
        """Mean over weights."""
        return self._mean([row.distortion for row in self.layers])

    @property
    def operations(self) -> int:
        """For each token, of all layers."""
        return sum(row.operations for row in self.layers)

    @property
    def gap(self) -> float | None:
        """Mean of the gaps of the payloads over weights; None if a layer has none."""
        gaps = [row.gap for row in self.layers if row.gap is not None]
        return self._mean(gaps) if len(gaps) == len(self.layers) else None

    def few_tokens(self) -> str | None:
        """What to say if layers saw fewer than eight tokens for each column; None if none did."""
        few = [row for row in self.layers if row.tokens < ENOUGH * row.shape[1]]
        if not few:
            return None
        worst = min(few, key=lambda row: row.tokens / row.shape[1])
        others = f", and {len(few) - 1} more layers saw few" if len(few) > 1 else ""
        return (
            f"few calibration tokens: {worst.name} saw {worst.tokens} for its {worst.shape[1]} columns{others}; their "
            f"second moments are shrunk, which costs bits: give a longer text, more `samples` or a longer `window`, "
            f"for at least {ENOUGH} tokens a column"
        )

    def to_json(self) -> str:
        """All fields, the means over weights, and the sum of operations."""
        fields = dataclasses.asdict(self) | {name: getattr(self, name) for name in DERIVED}
        return json.dumps(fields, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "Report":
        """Inverse of `to_json`; raises `InvalidInputError` for anything else."""
        try:
            fields = json.loads(text)
            rows = tuple(LayerRow(**{**row, "shape": tuple(row["shape"])}) for row in fields.pop("layers"))
            dense = tuple(DenseRow(**{**row, "shape": tuple(row["shape"])}) for row in fields.pop("dense"))
            maps = tuple(FoldedMap(**row) for row in fields.pop("maps"))
            rest = {key: fields[key] for key in fields if key not in DERIVED}
            return Report(layers=rows, dense=dense, maps=maps, **rest)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            msg = f"this is not a report of a conversion ({error}); read {FILE} of a quantized model"
            raise InvalidInputError(msg) from None

    def save(self, directory: Path) -> None:
        """Write `lattq_report.json`."""
        (directory / FILE).write_text(self.to_json(), encoding="utf-8")

    def _mean(self, values: list[float]) -> float:
        sizes = [math.prod(row.shape) for row in self.layers]
        return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


def layer_row(
    name: str,
    value: float | int,
    quantized: Quantized,
    target: Float[np.ndarray, "rows columns"],
    metric: Metric,
    seconds: float,
    tokens: int,
    input_clip: float | None = None,
) -> LayerRow:
    """Measure a quantized layer."""
    rate = 8 * len(quantized.payload) / target.size
    distortion, coded = (quantized.distortion(target, one) for one in (metric.of_inputs(), metric))
    stats = dict(quantized.stats)
    reference = None
    if coded > 0:
        try:
            reference = reference_rate(target, metric, coded, None, None, None)
        except InvalidInputError as error:  # pruned weights have no Gaussian reference; the layer itself is fine
            stats["no_reference"] = str(error)
    gap = None if reference is None else rate - reference
    operations = 0 if input_clip is None else quantized.transform.operations(target.shape[1])
    return LayerRow(
        name, quantized.shape, value, rate, distortion, reference, gap, seconds, stats, tokens, input_clip, operations
    )
