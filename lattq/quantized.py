"""The result of quantization: codes, what decodes them, and every byte of it."""

import dataclasses
import functools
import html
import json
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import safetensors.numpy
from jaxtyping import Bool, Float, Int

from lattq._array import Array, host_reals
from lattq._distortion import reference_rate, where_measured
from lattq._format_1 import payload_fields_1
from lattq._layer import as_metric
from lattq._metric import Metric
from lattq._payload import (
    FORMAT,
    HASH,
    OLD_FORMAT,
    class_prior,
    decoded_codes,
    expected_gains,
    format_version,
    payload_fields,
    require_bytes,
    sealed,
    stored_kinds,
)
from lattq._reconstruction import weights
from lattq.coding.damage import reading
from lattq.coding.integers import encode_integers
from lattq.coding.messages import packed, unpacked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback.loop import GAIN_GRID
from lattq.parts.registry import kind_of
from lattq.quantizers.scalars import table_shift
from lattq.transforms import chains

__all__ = ["Quantized"]


@dataclasses.dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized matrix: reconstruction = inverse transform of row gain x quantizer(codes) x column gain.

    Attributes
    ----------
    codes : integers
    quantizer : decodes them
    transform : its inverse is applied last
    coder : turns codes into bytes
    row_gains, column_gains : scales of the reconstruction in 128ths, or None for 1; in the transform's coordinates
    centroids : shifts of what the codes -K ... K decode to, in 128ths of a cell, or None for 0
    stats : what happened on the way: weights outside the range, steps too small for float16, columns whose codes are
        all 0, refits kept; retries with more damping, the damping that was best, rows with a gain, if zeros were better

    Examples
    --------
    >>> import lattq as lq
    >>> weight = np.random.default_rng(0).normal(size=(64, 8))
    >>> layer = lq.quantize(weight, np.eye(8), lq.recipes.watersic(step=0.1))
    >>> layer.rate > lq.bounds.layer_rate(np.eye(8), layer.distortion(weight, np.eye(8)))
    True
    >>> again = lq.Quantized.from_bytes(layer.to_bytes())
    >>> bool((again.dequantize() == layer.dequantize()).all())
    True
    """

    codes: Int[np.ndarray, "rows columns"]
    quantizer: Any
    transform: Any
    coder: Any
    row_gains: Int[np.ndarray, " rows"] | None = None
    column_gains: Int[np.ndarray, " columns"] | None = None
    centroids: Int[np.ndarray, " codes"] | None = None
    stats: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kinds()
        # What is measured is what is stored: sums over other layouts of memory would differ in their last bits.
        object.__setattr__(self, "codes", np.ascontiguousarray(self.codes))
        object.__setattr__(self, "quantizer", self.quantizer.stored())
        self.__dict__["shape"] = self.codes.shape

    def __getattr__(self, name: str) -> Any:
        """The codes of a file are decoded when somebody asks for them."""
        if name != "codes" or "coded" not in self.__dict__:
            msg = f"{type(self).__name__} has no attribute {name}"
            raise AttributeError(msg)
        found = decoded_codes(self.coder, self.coded, self.shape, class_prior(self.transform))
        self.__dict__["codes"] = found
        return found

    @functools.cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.codes.shape

    @functools.cached_property
    def coded(self) -> Any:
        """What the coder makes of the codes."""
        shared = {name: getattr(self.quantizer, name) for name in self.coder.carries if name in self.quantizer.carried}
        return self.coder.encode(self.codes, class_prior(self.transform), **shared)

    def revalued(self, **changes: Any) -> "Quantized":
        """The same codes, coded once, with other gains, centroids or stats."""
        found = dataclasses.replace(self, **changes)
        found.__dict__["coded"] = self.coded
        return found

    @functools.cached_property
    def payload(self) -> bytes:
        """Everything a decoder needs, with a 64-bit hash at its end; what a model directory stores per layer."""
        fields = self._fields()
        return sealed(msgpack.Packer().pack_array_header(len(fields)) + b"".join(fields))

    def _fields(self) -> list[bytes]:
        """Messages of what the payload holds; raises `InvalidInputError` for what a part gives and no file can hold."""
        gains, centroids = self.side_state()
        parts = ("quantizer", self.quantizer), ("coder", self.coder)
        quantizer, coder = ([kind_of(role, part), part.to_state()] for role, part in parts)
        return [
            *(packed(one, "version and shape") for one in (FORMAT, list(self.shape))),
            packed(quantizer, f"`to_state` of {self.quantizer!r}"),
            packed(chains.to_state(self.transform), f"`to_state` of {self.transform!r}"),
            *(packed(one, "gains") for one in gains),
            packed(coder, f"`to_state` of {self.coder!r}"),
            packed(self.coded, f"what `encode` of {self.coder!r} returns"),
            *(packed(one, "centroids") for one in centroids),
        ]

    def side_state(self) -> tuple[list, list]:
        """Gains of rows and of columns (as differences from what the decoder expects), and centroids, as stored."""
        gains = [self.row_gains, self.column_gains]
        expected = [GAIN_GRID, GAIN_GRID]
        if self.column_gains is not None:
            expected[1] = expected_gains(self.coder, self.coded, self.shape, class_prior(self.transform))
        stored = [None if g is None else encode_integers(g - e) for g, e in zip(gains, expected, strict=True)]
        return stored, [] if self.centroids is None else [len(self.centroids), encode_integers(self.centroids)]

    def sizes(self) -> dict[str, int]:
        """Bytes of `to_bytes()` by what they are for: the parts, gains and centroids, and the container around them.

        >>> import lattq as lq
        >>> layer = lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn())
        >>> sum(layer.sizes().values()) == layer.nbytes
        True
        """
        _, _, quantizer, transform, rows, columns, coder, data, *centroids = map(len, self._fields())
        gains = sum(centroids) + sum(size for size in (rows, columns) if size > 1)  # a byte says that there are none
        found = {"transform": transform, "quantizer": quantizer, "gains": gains, "coder": coder + data}
        return {**found, "container": self.nbytes - sum(found.values())}

    @property
    def nbytes(self) -> int:
        """Length of `to_bytes()`."""
        return len(self.to_bytes())

    @property
    def rate(self) -> float:
        """Bits per weight of `to_bytes()`, everything included."""
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    @functools.cached_property
    def kept(self) -> Bool[np.ndarray, "rows columns"] | None:
        """Which entries the codes decide, in the coordinates of the transform; None where they decide all."""
        return chains.kept(self.transform, self.shape)

    def decoded(self, shift: float = 0.0) -> Float[np.ndarray, "rows columns"]:
        """Reconstruction in the coordinates of the transform, float64; `shift` moves all codes by so many cells.

        It is 0 where weights are stored by themselves.
        """
        values = self.decoded_codes(shift)
        return values if self.kept is None else np.where(self.kept, values, 0.0)

    def decoded_codes(self, shift: float = 0.0) -> Float[np.ndarray, "rows columns"]:
        """What codes and gains decode to, at every place."""
        if self.centroids is None:
            values = self.quantizer.decode(self.codes + shift if shift else self.codes)
        else:
            values = self.quantizer.decode(self.codes + (shift + table_shift(self.codes, self.centroids / GAIN_GRID)))
        if self.column_gains is not None:
            values = values * (self.column_gains / GAIN_GRID)
        if self.row_gains is not None:
            values = values * (self.row_gains[:, None] / GAIN_GRID)
        return values

    def dequantize(self, dtype: Any = np.float32, out: np.ndarray | None = None) -> np.ndarray:
        """The reconstruction, (rows, columns), on the host.

        Where nobody has asked for the codes of a file, they are decoded to weights one after the other.

        Parameters
        ----------
        dtype : float64, float32, or one that is rounded from float32, to the nearest and ties to even: float16 and
            bfloat16, which is "bfloat16" or that of `ml_dtypes`
        out : array that is written and returned, of this dtype or, for bfloat16, of uint16, which gets the bits; a new
            one unless given

        Raises
        ------
        InvalidInputError : if `dtype` does not reach as far as the weights, or `out` does not fit

        Examples
        --------
        >>> import lattq as lq
        >>> layer = lq.quantize(np.eye(2), np.eye(2), lq.recipes.huffman_gptq(step=0.25))
        >>> layer.dequantize("bfloat16", out=np.empty((2, 2), dtype=np.uint16))
        array([[16256,     0],
               [    0, 16256]], dtype=uint16)
        """
        return weights(self, dtype, out)

    def distortion(self, weight: Float[Array, "rows columns"], sigma: Any) -> float:
        """tr(G (W-Ŵ) Σ (W-Ŵ)ᵀ) / (rows columns), squared error per weight; `sigma` is Σ, then G = I, or a `Metric`.

        With a folded transform both weights are compared where the quantized ones live. Bytes do not hold the fold:
        for a restored matrix, pass weight and sigma already transformed.

        Raises
        ------
        InvalidInputError : if the shapes differ from the codes'
        """
        w, metric = self._measured(weight, sigma)
        return metric.squared_error(w - self.dequantize(np.float64))

    def _measured(self, weight: Array, sigma: Any) -> tuple[np.ndarray, Metric]:
        """Weight and metric where errors are measured."""
        w = host_reals("weight", weight)
        if w.shape != self.shape:
            msg = f"`weight` has shape {w.shape}, the quantized matrix {self.shape}; they must agree"
            raise InvalidInputError(msg)
        return where_measured(self.transform, w, as_metric(sigma, self.shape))

    def gap(
        self,
        weight: Float[Array, "rows columns"],
        sigma: Any,
        *,
        row_variance: Any = None,
        column_variance: Any = None,
        covariance: Any = None,
    ) -> float:
        """Bits per weight above the rate–distortion function of independent Gaussian weights at this distortion.

        The reference has the variances of W, row x column, unless they are given. It is a bound for independent
        Gaussian weights of known variances; with fitted ones the gap is (1 / rows + 1 / columns) / (2 ln 2) bits too
        large at high rate (theory 1.13b). Weights that depend on each other, as those of models, may fall below it; if
        their `covariance` is given, it is a bound again.

        Parameters
        ----------
        row_variance, column_variance, covariance : as for `lattq.bounds.layer_rate`; None for variances of W

        Raises
        ------
        InvalidInputError : if the shapes differ from the codes', or W is too sparse to have two-way variances
        """
        w, metric = self._measured(weight, sigma)
        error = w - self.dequantize(np.float64)
        distortion = metric.squared_error(error)
        if distortion <= metric.rounding(error):  # a lossless copy of anything that matters takes infinitely many bits
            return float("-inf") if metric.squared_error(w) > metric.rounding(w) else self.rate
        metric = as_metric(sigma, self.shape)
        return self.rate - reference_rate(weight, metric, distortion, row_variance, column_variance, covariance)

    def to_bytes(self) -> bytes:
        """A safetensors file with one tensor, the payload, and a JSON header that says what is inside."""
        version = self.payload[1]  # which may be an earlier one than what would be written now
        kinds = self._kinds() if version == FORMAT else stored_kinds(self.payload)
        metadata = {"lattq": json.dumps([version, *kinds], separators=(",", ":"))}
        return safetensors.numpy.save({"payload": np.frombuffer(self.payload, dtype=np.uint8)}, metadata)

    @staticmethod
    def from_bytes(blob: bytes, shape: tuple[int, int] | None = None) -> "Quantized":
        """Inverse of `to_bytes`; the shape is checked if it is known, and bounds what is decoded as in `from_payload`.

        Raises
        ------
        DamagedFileError : if any byte differs from what `to_bytes` wrote, or it holds a matrix of another shape
        """
        require_bytes("blob", blob)
        start = 8 + int.from_bytes(blob[:8], "little")
        if len(blob) < 8 or start > len(blob) or b'"lattq"' not in blob[8:start]:
            msg = f"{len(blob)} bytes are not a lattq file; it is truncated or damaged"
            raise DamagedFileError(msg)
        found = Quantized.from_payload(blob[start:], shape)
        if found.to_bytes() != blob:
            msg = "the header does not belong to this payload; the file is damaged"
            raise DamagedFileError(msg)
        return found

    @staticmethod
    def from_payload(payload: bytes, shape: tuple[int, int] | None = None) -> "Quantized":
        """Inverse of `payload`; the hash, and the shape if it is known, are checked before anything is decoded.

        Time and memory are bounded by the length of the payload and the shape. Without a shape, n bytes may hold
        max(2^24, 1024 n) weights, of which max(2^19, 1024 n) in columns that are not all zeros: pass the shape of a
        larger matrix that is nearly all zeros.

        Raises
        ------
        DamagedFileError : if any byte differs from what `payload` held, or it holds a matrix of another shape
        """
        require_bytes("payload", payload)
        body = payload[:-HASH]
        if sealed(body) != payload:
            msg = f"the hash of {len(payload)} bytes does not match; the file is truncated or damaged"
            raise DamagedFileError(msg)
        with reading("the payload"):
            state = unpacked(body)
            if format_version(state) == OLD_FORMAT:
                fields = payload_fields_1(state, shape, len(payload))
                found = _restored(fields, fields["codes"].shape)
            else:
                fields, sides, data = payload_fields(state, shape, len(payload))
                found = Quantized(**fields) if "codes" in fields else _restored(fields, sides)
                found.__dict__["coded"] = data  # encoding again would give the same
        found.__dict__["payload"] = payload  # known already: encoding again would give the same bytes
        return found

    def __repr__(self) -> str:
        """Shape, rate and parts."""
        return f"<Quantized {self._title()}>"

    def _repr_html_(self) -> str:
        rows = {"rate": f"{self.rate:.4f} bit per weight", "bytes": f"{self.nbytes:,}", **self.stats}
        cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table><caption>{html.escape(self._title())}</caption>{cells}</table>"

    def _kinds(self) -> list[str]:
        """Kinds of the parts; raises `InvalidInputError` for one that no file can hold."""
        kind_of("transform", self.transform)
        parts = self.quantizer, chains.split_unit(self.transform)[0], self.coder
        return [kind_of(role, part) for role, part in zip(("quantizer", "transform", "coder"), parts, strict=True)]

    def _title(self) -> str:
        parts = chains.split_unit(self.transform)[0], self.quantizer, self.coder
        names = " → ".join(type(part).__name__ for part in parts)
        return f"{self.shape[0]} x {self.shape[1]}, {self.rate:.3f} bit per weight, {names}"


def _restored(fields: dict[str, Any], shape: tuple[int, int]) -> Quantized:
    """A value whose codes are still coded, or whose parts files hold no longer."""
    found = object.__new__(Quantized)
    known = {"stats": {}, **fields, "quantizer": fields["quantizer"].stored(), "shape": shape}
    found.__dict__.update(known)
    return found
