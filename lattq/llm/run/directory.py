"""Weight files of a quantized directory: they lie in it, and hold what was written."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.digests import context, digest_of_files, unbind
from lattq.llm.run.encoded import Place
from lattq.llm.source.weights import read_header

__all__ = ["check_places", "naming", "places", "verified_payloads", "verify"]


def verified_payloads(config: Any, files: list[Path]) -> dict[str, bytes]:
    """`Quantized.payload` of each layer of a directory, every tensor of whose files is checked.

    Raises
    ------
    DamagedFileError : if any tensor is missing, added, altered, or of another layer or run
    """
    verify(config, files)
    return _payloads(config, files)


def verify(config: Any, files: list[Path]) -> None:
    """Raise `DamagedFileError` unless the files hold what was written; it names the layer, if it is one."""
    if digest_of_files(files) == config.digest:
        return
    _payloads(config, files)
    where = files[0].parent if files else "the directory"
    msg = (
        f"the tensors in {where} are not those that config.json describes: one is altered, missing, added, or of "
        "another run; fetch the directory again"
    )
    raise DamagedFileError(msg)


def _payloads(config: Any, files: list[Path]) -> dict[str, bytes]:
    found, where = {}, places(config, files)
    for name in config.modules:
        blob = where[name].content() if name in where else b""
        with naming(name):
            found[name] = unbind(blob, context(config.run, name))
    return found


def places(config: Any, files: list[Path]) -> dict[str, Place]:
    """Where the payloads of layers lie, by name; those that no file holds are left out."""
    entries = {key: (path.absolute(), entry) for path in files for key, entry in read_header(path).items()}
    named = {name: entries[f"{name}.weight"] for name in config.modules if f"{name}.weight" in entries}
    return {name: Place(path, one.start, one.end, context(config.run, name)) for name, (path, one) in named.items()}


@contextlib.contextmanager
def naming(layer: str) -> Iterator[None]:
    """Put the layer before the message of a `DamagedFileError`."""
    try:
        yield
    except DamagedFileError as error:
        msg = f"layer {layer}: {error}"
        raise DamagedFileError(msg) from None


def check_places(files: list[Path], source: Any) -> None:
    """Raise `InvalidInputError` for a weight file outside the directory that is loaded."""
    if not files:
        return
    home = os.path.abspath(source if source and Path(source).is_dir() else files[0].parent)
    for file in files:
        if not Path(os.path.abspath(file)).is_relative_to(home):
            msg = f"the index names the weight file {file}, which is outside {home}; move it there"
            raise InvalidInputError(msg)
