"""A matrix of packed codes and its products."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, as_reals, from_host, short_repr, to_host
from lattq._options import as_integer
from lattq.errors import InvalidInputError
from lattq.feedback.loop import GAIN_GRID
from lattq.lattices import HierarchicalCode
from lattq.packed.forms import VALUES, Layers, Nested8, Tables, in_threads
from lattq.packed.packers import packers
from lattq.packed.sparse import SparseRows
from lattq.packed.vectors import VectorTables
from lattq.quantized import Quantized
from lattq.transforms.maps import Identity

__all__ = ["PackedMatrix"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A matrix as packed codes, for products with vectors: `matvec`, `matmul`.

    Weights are those of `Quantized.dequantize`, and products are summed in float32: they agree with products of the
    dequantized matrix up to the rounding of such sums. Transforms are applied to the vectors. Results do not depend on
    the number of threads.

    Attributes
    ----------
    shape : rows and columns
    codes : indices into tables of numbers or vectors, nested E8 codes, or layers of a hierarchical code
    transform : what vectors go through first
    factors : what entries of the transformed vectors are multiplied by, float32; or None
    sparse : what is added at the weights that are stored by themselves, and multiplies the vectors as they are; or
        None

    Examples
    --------
    >>> import lattq as lq
    >>> weight = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    >>> layer = lq.quantize(weight, np.eye(256), lq.recipes.rtn(16))
    >>> packed = PackedMatrix.from_quantized(layer)
    >>> x = np.ones(256, dtype=np.float32)
    >>> bool(np.allclose(packed.matvec(x), layer.dequantize() @ x, atol=1e-4))
    True
    >>> packed.nbytes, 4 * weight.size
    (8896, 65536)
    """

    shape: tuple[int, int]
    codes: Tables | VectorTables | Nested8 | Layers
    transform: Any = dataclasses.field(default_factory=Identity)
    factors: Float[np.ndarray, " columns"] | None = None
    sparse: SparseRows | None = None

    @staticmethod
    def from_quantized(quantized: Quantized) -> "PackedMatrix":
        """Pack a quantized matrix.

        Its quantizer is uniform with codes that span at most 16 values (as those of `AbsMax` and `MinMax` do), a
        `Format` of at most 16 values, `Nested` with E8, an odd q from 5 to 13 and up to 4 scales, or a codebook of at
        most 256 entries of up to 8 weights. Codebooks of at most 16 numbers take four bits an index, and the others as
        many as their entries need. The weights that `Outliers` takes out are kept row by row.

        Raises
        ------
        InvalidInputError : for another one; it names what stands in the way
        """
        quantizer, rows, columns = quantized.quantizer, quantized.row_gains, quantized.column_gains
        shifts = None if quantized.centroids is None else quantized.centroids / GAIN_GRID
        form = quantizer.packed_form(quantized.codes, shifts)
        if form is None:
            msg = (
                f"a {type(quantizer).__name__} has no packed product; use uniform codes, a number format, a codebook "
                f"or nested E8, or write `packed_form` in {type(quantizer).__name__}"
            )
            raise InvalidInputError(msg)
        packed = packers[form.kind](form, quantized.codes, None if rows is None else rows / GAIN_GRID)
        factors = packed.factors
        if columns is not None:
            factors = columns / GAIN_GRID if factors is None else factors * (columns / GAIN_GRID)
        whole: Any = quantized.transform
        sparse, transform = whole.split()
        transform.on_inputs(np.zeros((1, quantized.shape[1])))  # refuses what it does not know
        rounded = None if factors is None else factors.astype(np.float32)
        beside = None
        if sparse is not None:
            beside = SparseRows.packed(sparse, transform.inverse(quantized.decoded_codes()))
        return PackedMatrix(quantized.shape, packed.codes, transform, rounded, beside)

    @staticmethod
    def from_tables(
        index: Int[np.ndarray, "rows columns"],
        tables: Float[np.ndarray, "#rows groups values"],
        group: int | None = None,
    ) -> "PackedMatrix":
        """Pack indices into tables of at most 16 numbers, one for each row (or all) and group of columns.

        Raises
        ------
        InvalidInputError : for an index beyond its table, or shapes that do not fit

        Examples
        --------
        >>> packed = PackedMatrix.from_tables(np.array([[0, 1], [1, 1]]), np.array([[[0.5, 2.0]], [[-1.0, 3.0]]]))
        >>> packed.matvec(np.array([1.0, 10.0]))
        array([20.5, 33. ], dtype=float32)
        """
        (rows, columns), size = index.shape, tables.shape[2]
        width = columns if group is None else as_integer("group", group)
        groups = -(-columns // max(width, 1))
        if size > VALUES or width < 1 or tables.shape[:2] not in ((1, groups), (rows, groups)):
            msg = f"`tables` have shape {tables.shape}; pass (1 or {rows}, {groups}, up to {VALUES})"
            raise InvalidInputError(msg)
        which = np.broadcast_to(np.arange(tables[..., 0].size).reshape(tables.shape[:2]), (rows, groups))
        codes = Tables.packed(index, tables.reshape(-1, size), which, np.ones((rows, groups)), width)
        return PackedMatrix((rows, columns), codes)

    @staticmethod
    def from_hierarchical(
        code: HierarchicalCode,
        digits: Int[np.ndarray, "rows vectors layers n"],
        scale: Float[np.ndarray, " rows"],
    ) -> "PackedMatrix":
        """Pack vectors of a hierarchical code of at most 256 leaders, which products look up in tables of the query.

        Each layer of each vector is a look-up of its own: these products save memory, not time.

        Raises
        ------
        InvalidInputError : for more leaders, digits that are not of the code, or another number of scales

        Examples
        --------
        >>> from lattq.lattices import D
        >>> code = HierarchicalCode(D(4), 4, 2)
        >>> digits = code.encode(np.array([[[3.0, -1.0, 2.0, 0.0]]]))
        >>> PackedMatrix.from_hierarchical(code, digits, np.array([0.5])).matvec(np.arange(4.0))
        array([1.5], dtype=float32)
        """
        leaders = code.q**code.dimension
        if leaders > 256 or code.lattice.generator.shape[1] != code.dimension or scale.shape != digits.shape[:1]:
            msg = (
                f"{code} has {leaders} leaders, and there are {scale.shape} scales for {digits.shape[0]} rows; "
                "an index is a byte, and each row has a scale"
            )
            raise InvalidInputError(msg)
        from lattq.kernels import packed_layers as native  # numba takes most of a second to import

        index = native.pack(code.code.to_index(digits).astype(np.uint8).swapaxes(1, 2))
        shape = (len(digits), digits.shape[1] * code.dimension)
        return PackedMatrix(shape, Layers(index, scale.astype(np.float32), code))

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and tables in memory."""
        own = [*vars(self.codes).values(), *(vars(self.sparse).values() if self.sparse else ()), self.factors]
        return sum(part.nbytes for part in own if isinstance(part, np.ndarray))

    def matvec(self, x: Float[Array, " columns"], *, threads: int = 1) -> Float[Array, " rows"]:
        """Product with a vector, float32; raises `InvalidInputError` for another length."""
        return self.matmul(self._checked(x, 1)[:, None], threads=threads)[:, 0]

    def matmul(self, x: Float[Array, "columns sides"], *, threads: int = 1) -> Float[Array, "rows sides"]:
        """Product with a few vectors, float32; raises `InvalidInputError` for another number of rows.

        Nested codes are decoded once for all vectors, tables are read for each four of them, and products with their
        entries made before for each 16: this is for a few vectors, and for many a product with the dequantized matrix
        is faster.
        """
        x = self._checked(x, 2)
        if as_integer("threads", threads) < 1:
            msg = f"`threads` is {threads}; pass at least 1"
            raise InvalidInputError(msg)
        given = np.ascontiguousarray(to_host(x).T)
        inputs = self.transform.on_inputs(given).astype(np.float32)
        if self.factors is not None:
            inputs = inputs * self.factors
        out = np.empty((len(inputs), self.shape[0]), dtype=np.float32)
        write = self.codes.product(inputs, out)
        if self.sparse is not None:
            write = self.sparse.after(write, given.astype(np.float32), out)
        in_threads(write, self.shape[0], threads)
        return from_host(np.ascontiguousarray(out.T), like=x)

    def _checked(self, x: Any, sides: int) -> Array:
        x = as_reals("x", x)
        if x.ndim != sides or x.shape[0] != self.shape[1]:
            msg = f"`x` has shape {tuple(x.shape)}; a product with this matrix takes {self.shape[1]} rows"
            raise InvalidInputError(msg)
        return x
