"""One quantized matrix in one file."""

import contextlib
import uuid
from pathlib import Path

from lattq.errors import InvalidInputError, shown
from lattq.quantized import Quantized

__all__ = ["load", "save"]


def save(path: str | Path, quantized: Quantized) -> None:
    """Write `quantized.to_bytes()` to a file, atomically: the file appears whole or not at all.

    Raises
    ------
    InvalidInputError : if `quantized` is no quantized matrix, or `path` no path
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
    path = _as_path(path).absolute()
    if not isinstance(quantized, Quantized):
        msg = f"`quantized` is {shown(quantized)}; pass what `quantize` gives"
        raise InvalidInputError(msg)
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
    return Quantized.from_bytes(_as_path(path).read_bytes(), shape)


def _as_path(path: object) -> Path:
    if not isinstance(path, str | Path):
        msg = f"`path` is {shown(path)}, no path; pass the name of a file"
        raise InvalidInputError(msg)
    return Path(path)


def plain_modes(folder: str | Path) -> None:
    """Give every file below a folder the mode that a program's own files get: libraries write some as 0600.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "private"
    ...     path.touch(mode=0o600)
    ...     plain_modes(folder)
    ...     plain = Path(folder) / "plain"
    ...     plain.touch()
    ...     path.stat().st_mode == plain.stat().st_mode
    True
    """
    folder = Path(folder)
    probe = folder / f"{uuid.uuid4().hex}.mode"  # the umask cannot be asked without changing it
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode | path.stat().st_mode & 0o111)
