"""Parts for lattq, written outside of it: levels at powers of two, a reflection, and zlib."""

import dataclasses
import zlib

import numpy as np

import lattq as lq
from lattq.coding.schema import Integer, Octets, Real, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts.forms import NumberForm

__all__ = ["Deflate", "Powers", "PowersQuantizer", "Reflect", "Reflection"]


@lq.register("quantizer", "lattq-example/powers")
@dataclasses.dataclass(frozen=True, eq=False)
class PowersQuantizer(lq.quantizers.BaseQuantizer):
    """The nearest of 0 and ± scale / 2^k, k = 0 ... levels - 1; the scale is a float16 number."""

    scale: float
    levels: int

    @property
    def table(self) -> np.ndarray:
        positive = self.scale * 0.5 ** np.arange(self.levels)[::-1]
        return np.concatenate([-positive[::-1], [0.0], positive])

    @property
    def coder(self) -> lq.coding.FixedLength:
        return lq.coding.FixedLength(2 * self.levels + 1, -self.levels)

    def encode(self, x: np.ndarray) -> np.ndarray:
        if not np.isfinite(x).all():
            msg = "`x` holds NaN or infinity"
            raise InvalidInputError(msg)
        middles = (self.table[1:] + self.table[:-1]) / 2
        return (np.searchsorted(middles, x) - self.levels).astype(np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return self.table[codes + self.levels]

    def to_state(self) -> list:
        return [self.scale, self.levels]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "PowersQuantizer":
        return PowersQuantizer(*checked(Record(scale=Real(2.0**-24, 65504.0), levels=Integer(1, 64)), state))

    def packed_form(self, codes: np.ndarray, shifts: np.ndarray | None = None) -> NumberForm:
        one = np.ones((len(codes), 1))
        return NumberForm(codes + self.levels, self.table[None], 0 * one.astype(int), one, codes.shape[1])


@dataclasses.dataclass(frozen=True)
class Powers(lq.quantizers.BaseDesign):
    """Design: the largest magnitude of a group of columns is the largest level."""

    levels: int = 7
    group: int | None = None
    shrink: bool = False

    def __call__(self, entries: lq.quantizers.Entries) -> PowersQuantizer:
        largest = float(abs(entries.values).max())
        return PowersQuantizer(float(np.float16(largest or 1.0)), self.levels)


@lq.register("transform", "lattq-example/reflection")
@dataclasses.dataclass(frozen=True, eq=False)
class Reflection(lq.transforms.BaseTransform):
    """The Householder reflection at a direction of float32 numbers."""

    direction: np.ndarray

    def forward(self, weight: np.ndarray) -> np.ndarray:
        unit = self.direction.astype(np.float64) / np.linalg.norm(self.direction.astype(np.float64))
        return (weight - 2 * (weight @ unit)[:, None] * unit).astype(weight.dtype)

    inverse = forward
    on_inputs = forward  # pyright: ignore[reportAssignmentType]

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        moved = self.forward(self.forward(sigma).T)
        return (moved + moved.T) / 2

    def to_state(self) -> list:
        return [self.direction.astype("<f4").tobytes()]

    @staticmethod
    def from_state(state: list, columns: int) -> "Reflection":
        (data,) = checked(Record(direction=Octets(4 * columns)), state)
        direction = np.frombuffer(data, dtype="<f4")
        if not 0 < np.linalg.norm(direction.astype(np.float64)) < np.inf:
            msg = "the direction of a reflection is 0, NaN or infinite; the file is damaged"
            raise DamagedFileError(msg)
        return Reflection(direction)


@dataclasses.dataclass(frozen=True)
class Reflect:
    """Design: the reflection at the diagonal of the second moment."""

    def __call__(self, weight: np.ndarray, sigma: np.ndarray) -> Reflection:
        return Reflection(np.diag(sigma).astype(np.float32))


@lq.register("coder", "lattq-example/deflate")
@dataclasses.dataclass(frozen=True)
class Deflate(lq.coding.BaseCoder):
    """32-bit integers, compressed by zlib."""

    level: int = 9

    def encode(self, codes: np.ndarray, prior: object = 0) -> bytes:
        return zlib.compress(codes.astype("<i4").tobytes(), self.level)

    def decode(self, data: bytes, shape: tuple[int, int], prior: object = 0) -> np.ndarray:
        size = 4 * shape[0] * shape[1]
        try:
            found = zlib.decompressobj().decompress(checked(Octets(), data), size)  # never more than belongs there
        except zlib.error as error:
            msg = f"{len(data)} bytes are not compressed codes ({error}); the file is damaged"
            raise DamagedFileError(msg) from error
        checked(Octets(size), found)
        return np.frombuffer(found, dtype="<i4").astype(np.int32).reshape(shape)
