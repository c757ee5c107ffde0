"""One quantized matrix in one file."""

import contextlib
import uuid
from pathlib import Path

from lattq.quantized import Quantized

__all__ = ["load", "save"]


def save(path: str | Path, quantized: Quantized) -> None:
    """Write `quantized.to_bytes()` to a file, atomically: the file appears whole or not at all.

    Raises
    ------
    OSError : if the folder is missing or refuses

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import lattq as lq
    >>> layer = lq.quantize(np.eye(4), np.eye(4), lq.recipes.rtn())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lq.save(f"{folder}/layer.lattq", layer)
    ...     same = lq.load(f"{folder}/layer.lattq").to_bytes() == layer.to_bytes()
    >>> same
    True
    """
    path = Path(path).absolute()
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(quantized.to_bytes())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def load(path: str | Path, shape: tuple[int, int] | None = None) -> Quantized:
    """Read what `save` wrote; the shape is checked if it is known.

    Raises
    ------
    DamagedFileError : if any byte has changed, or the matrix has another shape
    OSError : if the file cannot be read

    Examples
    --------
    >>> import tempfile
    >>> import lattq as lq
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(f"{folder}/layer.lattq").write_bytes(b"something else")
    ...     try:
    ...         lq.load(f"{folder}/layer.lattq")
    ...     except lq.errors.DamagedFileError as error:
    ...         print(str(error)[:29])
    14 bytes are not a lattq file
    """
    return Quantized.from_bytes(Path(path).read_bytes(), shape)
