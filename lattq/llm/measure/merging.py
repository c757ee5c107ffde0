"""Sums of two sets of sums, made when they are asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lattq.llm.measure.exact import Exact, ExactSum
from lattq.llm.measure.sums import exponent_of

__all__ = ["Merged"]

REST = ".rest"


class Merged(Mapping[str, np.ndarray]):
    """The arrays of two statistics together; those that both have are added exactly, one at a time.

    Parameters
    ----------
    a, b : arrays by their names, with the rest of each sum beside it

    Examples
    --------
    >>> one = {"q.inputs.counts": np.ones(3), "q.inputs.counts.rest": np.zeros(3, dtype=np.int64)}
    >>> Merged(one, one)["q.inputs.counts"]
    array([2., 2., 2.])
    """

    def __init__(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
        self._a, self._b = a, b
        self._last: tuple[str, Exact] | None = None

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._a or key not in self._b:
            return self._a[key] if key in self._a else self._b[key]
        found = self._sum(key.removesuffix(REST))
        return found.rest if key.endswith(REST) else found.sum

    def __contains__(self, key: object) -> bool:
        return key in self._a or key in self._b

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._a, *self._b}))

    def __len__(self) -> int:
        return len({*self._a, *self._b})

    def _sum(self, key: str) -> Exact:
        """The sum of one name; a sum and its rest are asked for one after the other."""
        if self._last is None or self._last[0] != key:
            total = ExactSum(tuple(np.shape(self._a[key])), exponent_of(key))
            for arrays in (self._a, self._b):
                total.merge(Exact(np.asarray(arrays[key]), np.asarray(arrays[f"{key}{REST}"])))
            self._last = key, total.exact()
        return self._last[1]
