"""What an array is, decided once, and helpers of the array-API namespaces.

The core is written once against the array API standard; NumPy, PyTorch and CuPy run the same lines.
Factorisations, randomness and entropy coding happen on the host, in NumPy.
"""

import dataclasses
import math
from typing import Any, TypeVar

import array_api_compat
import array_api_compat.numpy
import numpy as np
from array_api_compat import device, is_array_api_obj, is_torch_array

from lattq.errors import InvalidInputError, shown

# `Any` at run time: jaxtyping then checks shape and dtype of whatever array library the caller uses.
Array = Any
Class = TypeVar("Class", bound=type)
SHOWN = 8  # entries of an array that a repr prints

__all__ = [
    "Array",
    "array_namespace",
    "as_array",
    "as_floats",
    "as_reals",
    "detached",
    "epsilon",
    "from_host",
    "host_reals",
    "require_finite",
    "require_integers",
    "short_repr",
    "to_host",
]


def array_namespace(*arrays: Any) -> Any:
    """The functions of the library of these arrays; for NumPy's, which the loop asks column by column, at once.

    >>> array_namespace(np.ones(1)).__name__
    'array_api_compat.numpy'
    """
    if all(type(x) is np.ndarray for x in arrays):
        return array_api_compat.numpy
    return array_api_compat.array_namespace(*arrays)


def as_array(name: str, x: Any) -> Array:
    """The array `x` of any library, contiguous row by row and without history; so no result depends on its layout.

    NumPy's bfloat16 and float8, which calculate in their own precision, become float32, exactly.

    Raises
    ------
    InvalidInputError : for what only resembles an array: lists, matrices, masked and sparse arrays, arrays of objects

    >>> as_array("x", np.ones((2, 3)).T).flags.c_contiguous
    True
    """
    if isinstance(x, np.ndarray):
        return _numpy_array(name, x)
    if is_torch_array(x):
        if "strided" not in str(x.layout):
            raise _no_array(name, x, "no dense array; pass `{}.to_dense()`")
        return x.detach().contiguous()
    if hasattr(x, "toarray"):  # sparse matrices of SciPy and CuPy
        raise _no_array(name, x, "no dense array; pass `{}.toarray()`")
    if not is_array_api_obj(x):
        raise _no_array(name, x, "no array; pass one of NumPy, PyTorch or CuPy, such as `np.asarray({})`")
    return x


def _numpy_array(name: str, x: np.ndarray) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray):
        raise _no_array(name, x, "whose mask would be lost; pass `{}.filled(value)`")
    if isinstance(x, np.matrix):
        raise _no_array(name, x, "whose products are others; pass `np.asarray({})`")
    if _is_narrow(x.dtype):
        return np.ascontiguousarray(x, dtype=np.float32)
    if x.dtype.kind not in "biufc":
        raise _no_array(name, x, f"of {x.dtype}; pass numbers, such as `{{}}.astype(np.float64)`")
    return np.asarray(x, dtype=x.dtype.newbyteorder("="), order="C")


def _is_narrow(dtype: np.dtype) -> bool:
    """Whether a dtype is a floating-point type that NumPy does not have itself, such as bfloat16."""
    return dtype.isbuiltin == 2 and "float" in dtype.name and np.can_cast(dtype, np.float32)


def _no_array(name: str, x: Any, advice: str) -> InvalidInputError:
    return InvalidInputError(f"`{name}` is {shown(x)}, {advice.replace('{}', name)}")


def as_reals(name: str, x: Any) -> Array:
    """`as_array` of real numbers in float32 or float64: narrower types become float32, integers float64, exactly.

    Raises
    ------
    InvalidInputError : as `as_array`, for complex numbers, and for more digits than float64 has

    >>> as_reals("x", np.ones(2, dtype=np.float16)).dtype, as_reals("x", np.arange(2)).dtype
    (dtype('float32'), dtype('float64'))
    """
    x = as_array(name, x)
    xp = array_namespace(x)
    if x.dtype in (xp.float32, xp.float64):
        return x
    if xp.isdtype(x.dtype, "integral"):
        return xp.astype(x, xp.float64)
    if not xp.isdtype(x.dtype, "real floating"):
        msg = f"`{name}` has dtype {x.dtype}; convert it to a floating-point type"
        raise InvalidInputError(msg)
    if xp.finfo(x.dtype).bits > 64:
        msg = f"`{name}` has dtype {x.dtype}, more digits than any part calculates with; convert it to float64"
        raise InvalidInputError(msg)
    return xp.astype(x, xp.float32)


def as_floats(name: str, x: Any) -> Array:
    """`as_reals` of a floating-point type, all finite.

    Raises
    ------
    InvalidInputError : as `as_reals`, for integers, and for NaN and infinity

    >>> as_floats("x", np.ones(2, dtype=np.float16)).dtype
    dtype('float32')
    """
    given = as_array(name, x)
    if not array_namespace(given).isdtype(given.dtype, "real floating"):
        msg = f"`{name}` has dtype {given.dtype}; convert it to a floating-point type"
        raise InvalidInputError(msg)
    found = as_reals(name, given)
    require_finite(name, found)
    return found


def host_reals(name: str, x: Any) -> np.ndarray:
    """`as_reals`, all finite, on the host in float64.

    Raises
    ------
    InvalidInputError : as `as_floats`, but for integers

    >>> host_reals("x", np.arange(2))
    array([0., 1.])
    """
    found = as_reals(name, x)
    require_finite(name, found)
    return to_host(found).astype(np.float64)


def epsilon(x: Array) -> float:
    """The distance from 1 to the next number of the dtype of `x`; that of float64 for integers.

    >>> epsilon(np.ones(1, dtype=np.float16)) == 2.0**-10
    True
    """
    if isinstance(x, np.ndarray) and _is_narrow(x.dtype):
        steps = 1 + np.exp2(-np.arange(24.0, dtype=np.float32))
        return float(np.exp2(-np.flatnonzero(steps.astype(x.dtype).astype(np.float32) == steps)[-1]))
    xp = array_namespace(x)
    return float(xp.finfo(x.dtype if xp.isdtype(x.dtype, "real floating") else xp.float64).eps)


def to_host(x: Array) -> np.ndarray:
    """Copy an array of any library to a NumPy array on the host (no copy if it is one).

    >>> to_host(np.ones(2))
    array([1., 1.])
    """
    if isinstance(x, np.ndarray):
        return x
    if is_torch_array(x):
        x = x.detach().cpu()
        if not hasattr(np, str(x.dtype).removeprefix("torch.")):  # bfloat16 and other types NumPy lacks
            x = x.float()
        return x.numpy()
    if hasattr(x, "get"):  # CuPy
        return x.get()
    return np.asarray(x)


def detached(x: Array) -> Array:
    """The array without its history: the loop must not run under autograd.

    >>> detached(np.ones(1))
    array([1.])
    """
    return x.detach() if is_torch_array(x) else x


def from_host(x: np.ndarray, like: Array) -> Array:
    """Move a host array to the library and device of `like`; the dtype stays.

    >>> from_host(np.ones(2, dtype=np.float32), like=np.zeros(1)).dtype
    dtype('float32')
    """
    if isinstance(like, np.ndarray):
        return x
    return array_namespace(like).asarray(x, device=device(like))


def require_finite(name: str, x: Array) -> None:
    """Raise `InvalidInputError` naming the first entry of `x` that is NaN or infinite."""
    xp = array_namespace(x)
    if not bool(xp.all(xp.isfinite(x))):
        finite = to_host(xp.isfinite(x))
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        value = to_host(x)[index]
        msg = f"`{name}` holds {value} at index {index} ({(~finite).sum()} such entries); clean it before quantizing"
        raise InvalidInputError(msg)


def require_integers(name: str, x: Array) -> None:
    """Raise `InvalidInputError` unless `x` is an array of integers.

    >>> require_integers("digits", np.arange(3))
    """
    x = as_array(name, x)
    if not array_namespace(x).isdtype(x.dtype, "integral"):
        msg = f"`{name}` holds numbers of {x.dtype}; pass integers"
        raise InvalidInputError(msg)


def short_repr(cls: Class) -> Class:
    """Decorator of a dataclass that holds arrays: its repr shows their shapes where they have more than 8 entries.

    >>> import dataclasses
    >>> short_repr(dataclasses.make_dataclass("Pair", ["one", "other"]))(np.ones(2), np.ones((9, 5)))
    Pair(one=array([1., 1.]), other=<9 x 5 float64>)
    """

    def shown(value: Any) -> str:
        shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
        if is_array_api_obj(value) and math.prod(shape) > SHOWN:
            return f"<{' x '.join(map(str, shape))} {str(dtype).removeprefix('torch.')}>"
        return repr(value)

    def represent(self: Any) -> str:
        fields = [
            f"{field.name}={shown(getattr(self, field.name))}" for field in dataclasses.fields(self) if field.repr
        ]
        return f"{type(self).__qualname__}({', '.join(fields)})"

    setattr(cls, "__repr__", represent)  # noqa: B010  (a class of any type)
    return cls
