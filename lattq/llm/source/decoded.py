"""A module with a matrix that is decoded from something smaller: a parameter for whoever counts, never saved."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Decoded", "settled"]


class Decoded(nn.Module):
    """What the matrix of such a module is: frozen, in no state dict, on the device "meta" until it is decoded.

    It is decoded when it is first asked for, unless `fill` has come before. A cast lets go of it, so that it is always
    what its dtype makes of the codes; a move takes it along. Subclasses call `begin` once and write `decode`.
    """

    like: Tensor
    _is_hf_initialized = True  # nothing to initialise

    def begin(self, attribute: str, shape: Iterable[int], dtype: torch.dtype | None) -> None:
        """Name the matrix, and say how large it is and of what type."""
        self._matrix, self._extent = attribute, tuple(shape)
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)  # follows casts and moves
        self.forget()

    @property
    def matrix_dtype(self) -> torch.dtype:
        """Of the matrix."""
        return self.like.dtype

    @property
    def ready(self) -> bool:
        """Whether there is something to decode."""
        return True

    def decode(self) -> Tensor:
        """The matrix, newly made."""
        raise NotImplementedError

    def decoded(self) -> Tensor | None:
        """The matrix if it is decoded."""
        found = self._parameters.get(self._matrix)
        return None if found is None or found.is_meta else found

    def forget(self) -> None:
        """Let go of the matrix."""
        self._settle(torch.empty(self._extent, dtype=self.matrix_dtype, device="meta"))

    def expect_place(self) -> None:
        """Until it is decoded, let whoever places buffers decide on which device the matrix will be."""
        del self._parameters[self._matrix]
        empty = torch.empty(self._extent, dtype=self.matrix_dtype, device="meta")
        self.register_buffer(self._matrix, empty, persistent=False)

    def fill(self) -> None:
        """Decode the matrix, unless it is; also where gradients will be wanted later and are not now."""
        if self.decoded() is None:
            self.keep(settled(self.decode))

    def keep(self, matrix: Tensor) -> None:
        """Take what `decode` has made, on its device; a buffer stays one where weights are moved in for each use."""
        if self._matrix in self._buffers and getattr(getattr(self, "_hf_hook", None), "offload", False):
            self._buffers[self._matrix] = matrix
        else:
            self._settle(matrix)

    def _settle(self, matrix: Tensor) -> None:
        self._buffers.pop(self._matrix, None)
        self._non_persistent_buffers_set.discard(self._matrix)
        self._parameters[self._matrix] = nn.Parameter(matrix, requires_grad=False)

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name == self.__dict__.get("_matrix") and found.is_meta and self.ready:
            self.fill()
            return super().__getattr__(name)
        return found

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if fn(self.like).dtype != self.like.dtype:
            self.forget()
        held = self._parameters.get(self._matrix)
        empty = held is not None and held.is_meta
        if empty:
            del self._parameters[self._matrix]
        super()._apply(fn, recurse)
        if empty:
            self.forget()
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(prefix + self._matrix, None)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._parameters.pop(self._matrix, None)
        super()._load_from_state_dict(*args)
        self.forget()


def settled(make: Any) -> Tensor:
    """What a function of tensors returns, as if no mode of inference were on: backward passes may use it.

    >>> with torch.inference_mode():
    ...     settled(lambda: torch.ones(2)).is_inference()
    False
    """
    with torch.inference_mode(False), torch.no_grad():
        return make()
