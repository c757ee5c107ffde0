"""Array-API namespace helpers and array types.

The core is written once against the array API standard; NumPy, PyTorch and CuPy run the same lines.
Factorisations, randomness and entropy coding happen on the host, in NumPy.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array

from lattq.errors import InvalidInputError

# `Any` at run time: jaxtyping then checks shape and dtype of whatever array library the caller uses.
Array = Any

__all__ = ["Array", "array_namespace", "detached", "from_host", "require_finite", "require_integers", "to_host"]


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
    return array_namespace(like).asarray(x, device=device(like))


def require_finite(name: str, x: Array) -> None:
    """Raise `InvalidInputError` naming the first entry of `x` that is NaN or infinite."""
    xp = array_namespace(x)
    finite = to_host(xp.isfinite(x))
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        value = to_host(x)[index]
        msg = f"`{name}` holds {value} at index {index} ({(~finite).sum()} such entries); clean it before quantizing"
        raise InvalidInputError(msg)


def require_integers(name: str, x: Array) -> None:
    """Raise `InvalidInputError` unless the dtype of `x` holds integers.

    >>> require_integers("digits", np.arange(3))
    """
    if not array_namespace(x).isdtype(x.dtype, "integral"):
        msg = f"`{name}` holds numbers of {x.dtype}; pass integers"
        raise InvalidInputError(msg)
