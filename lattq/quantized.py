"""The result of quantization: codes, what decodes them, and every byte of it."""

import dataclasses
import functools
import hashlib
import html
import json
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import safetensors.numpy
from jaxtyping import Float, Int

from lattq import bounds, transforms
from lattq._array import Array, require_finite, to_host
from lattq.coding import CLASSES_PER_OCTAVE, decode_integers, encode_integers, reading
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import GAIN_GRID
from lattq.linalg import check_second_moment
from lattq.parts import find, kind_of
from lattq.quantizers import table_shift

__all__ = ["Quantized"]

FORMAT = 1
LARGEST_SIDE = 1 << 20  # rows or columns: no layer has more, and a damaged shape must not ask for all memory


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
        all 0, refits kept

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
    transform: transforms.Transform
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

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.codes.shape

    @functools.cached_property
    def coded(self) -> Any:
        """What the coder makes of the codes."""
        shared = {name: getattr(self.quantizer, name, None) for name in self.coder.carries}
        return self.coder.encode(self.codes, _class_prior(self.transform), **shared)

    def revalued(self, **changes: Any) -> "Quantized":
        """The same codes, coded once, with other gains, centroids or stats."""
        found = dataclasses.replace(self, **changes)
        found.__dict__["coded"] = self.coded
        return found

    @functools.cached_property
    def payload(self) -> bytes:
        """Everything a decoder needs, with a 64-bit hash at its end; what a model directory stores per layer."""
        gains, centroids = self.side_state()
        state = [
            FORMAT,
            list(self.shape),
            [kind_of("quantizer", self.quantizer), self.quantizer.to_state()],
            transforms.to_state(self.transform),
            *gains,
            [kind_of("coder", self.coder), self.coder.to_state()],
            self.coded,
            *centroids,
        ]
        body = bytes(msgpack.packb(state) or b"")
        return body + _digest(body)

    def side_state(self) -> tuple[list, list]:
        """Gains of rows and of columns (as differences from what the decoder expects), and centroids, as stored."""
        gains = [self.row_gains, self.column_gains]
        expected = [GAIN_GRID, GAIN_GRID]
        if self.column_gains is not None:
            expected[1] = _expected_gains(self.coder, self.coded, self.shape, _class_prior(self.transform))
        stored = [None if g is None else encode_integers(g - e) for g, e in zip(gains, expected, strict=True)]
        return stored, [] if self.centroids is None else [len(self.centroids), encode_integers(self.centroids)]

    def sizes(self) -> dict[str, int]:
        """Bytes of `to_bytes()` by what they are for: the parts, gains and centroids, and the container around them.

        >>> import lattq as lq
        >>> layer = lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn())
        >>> sum(layer.sizes().values()) == layer.nbytes
        True
        """
        gains, centroids = self.side_state()
        states = {
            "transform": [transforms.to_state(self.transform)],
            "quantizer": [[kind_of("quantizer", self.quantizer), self.quantizer.to_state()]],
            "gains": [one for one in (*gains, *centroids) if one is not None],
            "coder": [[kind_of("coder", self.coder), self.coder.to_state()], self.coded],
        }
        found = {name: sum(len(msgpack.packb(one) or b"") for one in state) for name, state in states.items()}
        return {**found, "container": self.nbytes - sum(found.values())}

    @property
    def nbytes(self) -> int:
        """Length of `to_bytes()`."""
        return len(self.to_bytes())

    @property
    def rate(self) -> float:
        """Bits per weight of `to_bytes()`, everything included."""
        return 8 * self.nbytes / self.codes.size

    def decoded(self, shift: float = 0.0) -> Float[np.ndarray, "rows columns"]:
        """Reconstruction in the coordinates of the transform, float64; `shift` moves all codes by so many cells."""
        if self.centroids is None:
            values = self.quantizer.decode(self.codes + shift if shift else self.codes)
        else:
            values = self.quantizer.decode(self.codes + (shift + table_shift(self.codes, self.centroids / GAIN_GRID)))
        if self.column_gains is not None:
            values = values * (self.column_gains / GAIN_GRID)
        if self.row_gains is not None:
            values = values * (self.row_gains[:, None] / GAIN_GRID)
        return values

    def dequantize(self, dtype: Any = np.float32) -> Float[np.ndarray, "rows columns"]:
        """The reconstruction, on the host; raises `InvalidInputError` if `dtype` does not reach that far."""
        values = self.transform.inverse(self.decoded())
        largest = float(np.abs(values).max(initial=0.0))
        if largest > float(np.finfo(dtype).max):
            msg = f"values up to {largest:.3g} do not fit `dtype` = {np.dtype(dtype).name}; pass a wider one"
            raise InvalidInputError(msg)
        return values.astype(dtype)

    def distortion(self, weight: Float[Array, "rows columns"], sigma: Float[Array, "columns columns"]) -> float:
        """tr((W-Ŵ) Σ (W-Ŵ)ᵀ) / (rows columns), squared error per weight.

        With a folded transform both weights are compared where the quantized ones live. Bytes do not hold the fold:
        for a restored matrix, pass weight and sigma already transformed.

        Raises
        ------
        InvalidInputError : if the shapes differ from the codes'
        """
        w = to_host(weight).astype(np.float64)
        require_finite("weight", w)
        if w.shape != self.shape:
            msg = f"`weight` has shape {w.shape}, the quantized matrix {self.shape}; they must agree"
            raise InvalidInputError(msg)
        s = check_second_moment(sigma, self.shape[1])
        folded = transforms.folded(self.transform)
        if folded is not None and folded.inner is not None:
            w, s = folded.forward(w), folded.congruence(s)
        error = w - self.dequantize(np.float64)
        return float(np.sum((error @ s) * error)) / error.size

    def gap(
        self,
        weight: Float[Array, "rows columns"],
        sigma: Float[Array, "columns columns"],
        *,
        row_variance: Any = None,
        column_variance: Any = None,
    ) -> float:
        """Bits per weight above the rate-distortion function of Gaussian weights at this distortion.

        The reference has the variances of W, row x column, unless they are given. For Gaussian weights it is a bound;
        for others it is the Gaussian reference (theory 1.13).

        Raises
        ------
        InvalidInputError : if the shapes differ from the codes', or W is too sparse to have two-way variances
        """
        distortion = self.distortion(weight, sigma)
        if distortion == 0:  # a lossless copy of anything that matters takes infinitely many bits
            return float("-inf") if np.any(to_host(weight) @ to_host(sigma)) else self.rate
        if row_variance is None or column_variance is None:
            rows, columns = bounds.two_way_variances(weight)
            row_variance = rows if row_variance is None else row_variance
            column_variance = columns if column_variance is None else column_variance
        return self.rate - bounds.layer_rate(sigma, distortion, row_variance, column_variance)

    def to_bytes(self) -> bytes:
        """A safetensors file with one tensor, the payload, and a JSON header that says what is inside."""
        metadata = {"lattq": json.dumps([FORMAT, *self._kinds()], separators=(",", ":"))}
        return safetensors.numpy.save({"payload": np.frombuffer(self.payload, dtype=np.uint8)}, metadata)

    @staticmethod
    def from_bytes(blob: bytes) -> "Quantized":
        """Inverse of `to_bytes`.

        Raises
        ------
        DamagedFileError : if any byte differs from what `to_bytes` wrote
        """
        try:
            payload = safetensors.numpy.load(blob)["payload"].tobytes()
        except (safetensors.SafetensorError, KeyError) as error:
            msg = f"{len(blob)} bytes are not a lattq file ({error}); it is truncated or damaged"
            raise DamagedFileError(msg) from None
        found = Quantized.from_payload(payload)
        if found.to_bytes() != blob:
            msg = "the header does not belong to this payload; the file is damaged"
            raise DamagedFileError(msg)
        return found

    @staticmethod
    def from_payload(payload: bytes, shape: tuple[int, int] | None = None) -> "Quantized":
        """Inverse of `payload`; the hash, and the shape if it is known, are checked before anything is decoded.

        Raises
        ------
        DamagedFileError : if any byte differs from what `payload` held, or it holds a matrix of another shape
        """
        body, digest = payload[:-8], payload[-8:]
        if len(digest) < 8 or _digest(body) != digest:
            msg = f"the hash of {len(payload)} bytes does not match; the file is truncated or damaged"
            raise DamagedFileError(msg)
        with reading("the payload"):
            found = _restored(msgpack.unpackb(body), shape)
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
        return [kind_of(role, getattr(self, role)) for role in ("quantizer", "transform", "coder")]

    def _title(self) -> str:
        names = " → ".join(type(part).__name__ for part in (self.transform, self.quantizer, self.coder))
        return f"{self.shape[0]} x {self.shape[1]}, {self.rate:.3f} bit per weight, {names}"


def _restored(state: list, expected: tuple[int, int] | None) -> Quantized:
    """Value of a payload's state, whose hash has been checked."""
    if state[0] != FORMAT:
        msg = f"format version {state[0]}; this lattq reads version {FORMAT}: use the release that wrote the file"
        raise DamagedFileError(msg)
    _, (height, width), quantizer, transform, rows, columns, coder, data, *centroids = state
    shape = (height, width)
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        msg = f"a matrix of {height} x {width} weights; the file is damaged"
        raise DamagedFileError(msg)
    if expected is not None and shape != expected:
        msg = f"a matrix of {height} x {width} weights where {expected[0]} x {expected[1]} belong; the file is damaged"
        raise DamagedFileError(msg)
    coder = find("coder", coder[0]).from_state(coder[1])
    transform = transforms.from_state(transform, width)
    prior = _class_prior(transform)
    if columns is not None:
        columns = decode_integers(columns, width) + _expected_gains(coder, data, shape, prior)
    found = Quantized(
        codes=np.ascontiguousarray(coder.decode(data, shape, prior), dtype=np.int32),
        quantizer=_restored_quantizer(quantizer, coder, coder.context(data, shape, prior), shape),
        transform=transform,
        coder=coder,
        row_gains=None if rows is None else decode_integers(rows, height) + GAIN_GRID,
        column_gains=columns,
        centroids=decode_integers(centroids[1], centroids[0]) if centroids else None,
    )
    if found.centroids is not None and not found.quantizer.ordered:
        msg = f"centroids for a {type(found.quantizer).__name__}, whose codes have no places; the file is damaged"
        raise DamagedFileError(msg)
    found.quantizer.check_codes(found.codes)
    transform.check_rows(height)  # pyright: ignore[reportAttributeAccessIssue]
    found.__dict__["coded"] = data  # encoding again would give the same
    return found


def _restored_quantizer(state: list, coder: Any, context: Mapping[str, Any], shape: tuple[int, int]) -> Any:
    """The quantizer of a file, with what the coder has stored for it."""
    kind, own = state
    quantizer = find("quantizer", kind).from_state(own, shape)
    quantizer.check_coder(coder)
    known = {name: value for name, value in context.items() if hasattr(quantizer, name)}
    return dataclasses.replace(quantizer, **known) if known else quantizer


def _class_prior(transform: Any) -> Any:
    """Guess of the coder's column classes from the scales of an equalizing transform (16ths to 8ths of an octave)."""
    exponents = transform.exponents
    return 0 if exponents is None else exponents * CLASSES_PER_OCTAVE // transforms.SCALE_GRID


def _expected_gains(coder: Any, data: Any, shape: tuple[int, int], prior: Any) -> Any:
    """Column gains that what the coder made of the codes predicts, in 128ths."""
    found = coder.gains(data, shape, prior)
    return GAIN_GRID if found is None else found


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).digest()
