"""Arrays that a design of maps keeps in the folder of a conversion, to continue from."""

import io
import urllib.parse
from collections.abc import Iterator, Mapping, MutableMapping

import numpy as np

from lattq.llm.convert.workspace import Workspace

__all__ = ["KeptArrays"]


class KeptArrays(MutableMapping[str, Mapping[str, np.ndarray]]):
    """Arrays by name, by name of what they are of, one file for each of these; damaged files are missing.

    Parameters
    ----------
    workspace : of the conversion

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> keep = KeptArrays(Workspace(f"{folder.name}/out", {}))
    >>> keep["model.layers.0"] = {"scale": np.ones(2)}
    >>> keep["model.layers.0"]["scale"], list(keep)
    (array([1., 1.]), ['model.layers.0'])
    >>> folder.cleanup()
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        body = self.workspace.body(_file(name))
        if body is None:
            raise KeyError(name)
        with np.load(io.BytesIO(body), allow_pickle=False) as found:
            return dict(found)

    def __setitem__(self, name: str, value: Mapping[str, np.ndarray]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{key: np.asarray(array) for key, array in value.items()})
        self.workspace.put_body(_file(name), buffer.getvalue())

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        (self.workspace.root / _file(name)).unlink()

    def __iter__(self) -> Iterator[str]:
        names = (urllib.parse.unquote(path.name) for path in sorted((self.workspace.root / "maps").glob("*")))
        return (name for name in names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _file(name: str) -> str:
    return f"maps/{urllib.parse.quote(name, safe=' ')}"
