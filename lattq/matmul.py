"""Matrix products of factors that are quantized apart, as activations, caches and weights in one multiplication are.

Γ(R) of `lattq.bounds.product_distortion` is the least error; derivations: theory/06_products_and_formats.py.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from lattq import bounds
from lattq._array import Array, array_namespace, as_floats, from_host, short_repr, to_host
from lattq._options import among, as_flag, as_float, as_integer, as_seed
from lattq.errors import CodeOverflowError, InvalidInputError, shown
from lattq.feedback.loop import GAIN_GRID
from lattq.linalg.hadamard import has_hadamard_matrix, randomized_hadamard
from lattq.quantized import Quantized
from lattq.scheme import Scheme, quantize

__all__ = ["approximate", "sketch"]

SCALINGS = ("wiener", "unbiased", "none")
SKETCHES = ("hadamard", "gaussian", "signs")
LARGEST_GAIN = 2.0


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """An estimate of AᵀB and what it was made of.

    Attributes
    ----------
    estimate : shape of AᵀB
    a, b : the quantized factors, transposed: a row for each column of A or B; None for a factor that is known exactly
    rate_a, rate_b : bits per entry of A and of B, every byte counted; infinite for a factor that is known exactly

    Examples
    --------
    >>> from lattq import Scheme
    >>> from lattq.quantizers import Uniform
    >>> a, b = np.random.default_rng(0).standard_normal((2, 64, 32))
    >>> found = approximate(a, b, Scheme(quantizer=Uniform(0.1)))
    >>> found.estimate.shape, bool(found.error(a, b) < 0.002)
    ((32, 32), True)
    """

    estimate: Float[np.ndarray, "columns_a columns_b"]
    a: Quantized | None
    b: Quantized | None
    rate_a: float
    rate_b: float

    def error(self, a: Float[Array, "n columns_a"], b: Float[Array, "n columns_b"]) -> float:
        """‖Ĉ - AᵀB‖² over ‖A‖² ‖B‖² / n: 1 for Ĉ = 0 and independent factors, `product_distortion` at best.

        Raises
        ------
        InvalidInputError : for factors of other shapes, or of zeros
        """
        a, b = _factors(a, b)
        if self.estimate.shape != (a.shape[1], b.shape[1]):
            msg = f"the product has shape {self.estimate.shape}, the factors give {(a.shape[1], b.shape[1])}"
            raise InvalidInputError(msg)
        tops = [float(np.max(np.abs(x))) for x in (a, b)]
        if not all(tops):
            msg = "a factor of zeros has no relative error; pass the factors that were quantized"
            raise InvalidInputError(msg)
        a, b = a / tops[0], b / tops[1]  # squares of small or large factors leave the range of float64
        power = float(np.sum(np.square(a)) * np.sum(np.square(b)))
        return float(np.sum(np.square(self.estimate / tops[0] / tops[1] - a.T @ b))) * len(a) / power

    def gap(self, a: Float[Array, "n columns_a"], b: Float[Array, "n columns_b"]) -> float:
        """Bits per entry above the rate at which Γ has this error; both factors quantized, at rates about equal.

        Unequal rates count with their mean. For independent Gaussian factors Γ is a bound.

        Raises
        ------
        InvalidInputError : if a factor is known exactly, and as `error`
        """
        if self.a is None or self.b is None:
            msg = "`b` is known exactly, for which Γ is no measure; see `lattq.bounds.one_sided_product_distortion`"
            raise InvalidInputError(msg)
        return (self.rate_a + self.rate_b) / 2 - bounds.product_rate(self.error(a, b))


def approximate(
    a: Float[Array, "n columns_a"],
    b: Float[Array, "n columns_b"],
    scheme_a: Scheme,
    scheme_b: Scheme | None = None,
    *,
    scaling: str = "wiener",
    keep: float = 1.0,
    seed: int = 0,
    exact_b: bool = False,
) -> Product:
    """Estimate AᵀB from factors that are quantized without knowledge of each other.

    Columns of A and B become rows of a weight with white inputs, so that any `Scheme` serves: a rotation as its
    transform, `OpenLoop` as its feedback, the granularity of scales as the group of its quantizer. The second moment of
    the inputs is an n by n matrix in float64, in the open loop too: memory grows with n².

    Parameters
    ----------
    scheme_a, scheme_b : for A and B; the same unless two are given, none for a B that is exact
    scaling : "wiener" scales each decoded column for the least squared error, <x, q> / <q, q>; "unbiased" so that it
        estimates inner products without bias, <x, x> / <x, q>: on average over a random rotation or dither, and for
        factors quantized with independent errors, which takes two seeds. Both in 128ths, and charged. "none" takes
        columns as they are decoded
    keep : fraction of the coordinates that are quantized, after a rotation by `sketch`: below R* = 0.906 bits per entry
        R / R* is best. Rates still count all entries. A scheme with a `Hadamard` transform or with blocks takes the
        sizes that it takes for a weight
    seed : of the sketch
    exact_b : take B as it is

    Raises
    ------
    InvalidInputError : for factors of other shapes or with NaN, an option out of range, or a column whose unbiased gain
        is beyond 2, as the scheme leaves less than half of it

    References
    ----------
    Ordentlich and Polyanskiy 2024, "Optimal quantization for matrix multiplication".

    Examples
    --------
    >>> from lattq.feedback import OpenLoop
    >>> from lattq.quantizers import AbsMax
    >>> from lattq.transforms import Hadamard
    >>> a, b = np.random.default_rng(0).standard_normal((2, 256, 64))
    >>> scheme = Scheme(transform=Hadamard(), feedback=OpenLoop(), quantizer=AbsMax(16, group=None))
    >>> found = approximate(a, b, scheme)
    >>> round(found.rate_a, 2), round(found.error(a, b), 3), round(found.gap(a, b), 1)
    (4.18, 0.027, 1.1)
    """
    if not among(scaling, SCALINGS):
        msg = f"`scaling` is {shown(scaling)}; choose from {', '.join(SCALINGS)}"
        raise InvalidInputError(msg)
    keep, seed = as_float("keep", keep), as_seed(seed)
    if not 0.0 < keep <= 1.0:
        msg = f"`keep` is {keep}; a fraction of the coordinates is above 0 and at most 1"
        raise InvalidInputError(msg)
    _check_schemes(scheme_a, scheme_b, exact_b=as_flag("exact_b", exact_b))
    a, b = _factors(a, b)
    n, size = len(a), max(1, round(keep * len(a)))
    left, right = (x if size == n else sketch(x, size, seed=seed) * math.sqrt(size / n) for x in (a, b))
    try:
        quantized_a = _quantized(left, scheme_a, scaling)
        quantized_b = None if exact_b else _quantized(right, scheme_b or scheme_a, scaling)
    except CodeOverflowError:
        raise
    except InvalidInputError as refusal:
        raise _with_other_size(refusal, keep, size, n) from None
    decoded = [x.T if q is None else q.dequantize(np.float64) for x, q in ((left, quantized_a), (right, quantized_b))]
    with np.errstate(over="ignore", invalid="ignore"):
        product = decoded[0] @ decoded[1].T
    if not np.isfinite(product).all():
        msg = "the product is beyond float64; divide a factor by a constant first"
        raise InvalidInputError(msg)
    return Product(
        product * n / size if scaling == "unbiased" else product,
        quantized_a,
        quantized_b,
        8 * quantized_a.nbytes / a.size,
        math.inf if quantized_b is None else 8 * quantized_b.nbytes / b.size,
    )


def sketch(x: Float[Array, "n columns"], size: int, *, kind: str = "hadamard", seed: int = 0) -> Array:
    """Project columns from n coordinates to `size`, with squared norms that are right on average.

    The inner product of sketched columns estimates that of the columns with the variance (theory 6.11, 6.12)

        (1 / size - 1 / n) |x|² |y|² ("hadamard"),    |x|² |y|² / size ("gaussian", "signs"),

    where x and y are almost orthogonal; in general the second is (|x|² |y|² + <x, y>²) / size.

    Parameters
    ----------
    kind : "hadamard", `size` coordinates of a randomized Hadamard transform; "gaussian" or "signs", inner products with
        independent vectors (Johnson and Lindenstrauss)
    seed : two factors of a product need the same

    Raises
    ------
    InvalidInputError : for a size beyond n, another kind, a length that has no Hadamard matrix, or what is no matrix of
        finite floating-point numbers

    References
    ----------
    Johnson and Lindenstrauss 1984; Ailon and Chazelle 2006 (fast transforms).

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((1024, 50))
    >>> ratio = np.sum(sketch(x, 512) ** 2, axis=0) / np.sum(x**2, axis=0)
    >>> bool(abs(ratio.mean() - 1) < 0.02)
    True
    """
    x = _matrix("x", x)
    n, size, seed, xp = x.shape[0], as_integer("size", size), as_seed(seed), array_namespace(x)
    if not 1 <= size <= n:
        msg = f"`size` is {size}; of {n} coordinates 1 to {n} can be kept"
        raise InvalidInputError(msg)
    rng = np.random.default_rng(seed)
    if not among(kind, SKETCHES):
        msg = f"`kind` is {shown(kind)}; choose from {', '.join(SKETCHES)}"
        raise InvalidInputError(msg)
    if kind == "hadamard":
        chosen = from_host(np.sort(rng.permutation(n)[:size]), like=x)
        rotated = randomized_hadamard(xp.matrix_transpose(x), seed)
        return xp.matrix_transpose(xp.take(rotated, chosen, axis=1)) * math.sqrt(n / size)
    matrix = rng.standard_normal((size, n)) if kind == "gaussian" else rng.choice([-1.0, 1.0], (size, n))
    return xp.matmul(xp.astype(from_host(matrix / math.sqrt(size), like=x), x.dtype), x)


def _factors(a: Array, b: Array) -> tuple[np.ndarray, np.ndarray]:
    """Both factors on the host in float64, of as many rows."""
    a, b = _matrix("a", a), _matrix("b", b)
    if a.shape[0] != b.shape[0]:
        msg = f"`a` has {a.shape[0]} rows and `b` {b.shape[0]}; the product aᵀ b sums over as many rows of both"
        raise InvalidInputError(msg)
    return to_host(a).astype(np.float64), to_host(b).astype(np.float64)


def _matrix(name: str, x: Array) -> Array:
    """A matrix of finite floating-point numbers; raises `InvalidInputError` for anything else."""
    x = as_floats(name, x)
    if x.ndim != 2 or 0 in x.shape:
        msg = f"`{name}` has shape {tuple(x.shape)}; pass a matrix of floating-point numbers"
        raise InvalidInputError(msg)
    return x


def _check_schemes(scheme_a: Scheme, scheme_b: Scheme | None, *, exact_b: bool) -> None:
    for name, scheme in (("scheme_a", scheme_a), ("scheme_b", scheme_b)):
        if not isinstance(scheme, Scheme) and (name, scheme) != ("scheme_b", None):
            msg = f"`{name}` is {shown(scheme)}; pass a `Scheme`, such as `lattq.recipes.nestquant(feedback=False)`"
            raise InvalidInputError(msg)
    if exact_b and scheme_b is not None:
        msg = "`exact_b` takes B as it is, and `scheme_b` quantizes it; pass one of the two"
        raise InvalidInputError(msg)


def _with_other_size(refusal: InvalidInputError, keep: float, size: int, n: int) -> InvalidInputError:
    """The refusal of a sketch, with the nearest fraction whose size suits rotations and blocks of eight, if any."""
    fitting = [k for k in range(8, n + 1, 8) if has_hadamard_matrix(k)]
    if size in (n, *fitting) or not fitting:
        return refusal
    nearest = min(fitting, key=lambda k: abs(k - size))
    return InvalidInputError(
        f"{refusal}. `keep` is {keep} and leaves {size} of {n} coordinates; `keep={nearest} / {n}` leaves a multiple "
        "of 8 that has a Hadamard matrix"
    )


def _quantized(x: np.ndarray, scheme: Scheme, scaling: str) -> Quantized:
    """Columns of x as quantized rows, scaled."""
    rows = np.ascontiguousarray(x.T)
    found = quantize(rows, np.eye(len(x)), scheme)
    if scaling == "none":
        return found
    tops = np.max(np.abs(rows), axis=1, keepdims=True)
    tops[tops == 0.0] = 1.0
    rows, decoded = rows / tops, found.dequantize(np.float64) / tops  # squares of small numbers are no zeros
    cross = np.einsum("rc,rc->r", rows, decoded)
    own = np.einsum("rc,rc->r", *((decoded, decoded) if scaling == "wiener" else (rows, rows)))
    below, above = (own, cross) if scaling == "wiener" else (cross, own)
    live = own > 0
    gains = np.divide(above, below, out=np.ones(len(rows)), where=live & (below > 0))
    if scaling == "unbiased" and not (live <= (below * LARGEST_GAIN >= above)).all():
        worst = int(np.argmax(np.where(live, above - LARGEST_GAIN * below, -np.inf)))
        msg = (
            f"column {worst} keeps {below[worst] / above[worst]:.3g} of its square, below 1/2: "
            'raise the rate, or pass scaling="wiener"'
        )
        raise InvalidInputError(msg)
    before = GAIN_GRID if found.row_gains is None else found.row_gains
    stored = np.clip(np.rint(gains * before), 0, LARGEST_GAIN * GAIN_GRID).astype(np.int64)
    return found if (stored == before).all() else found.revalued(row_gains=stored)
