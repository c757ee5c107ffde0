"""Experts that share one parameter: observed while they run, and a module that stands where the parameter stood."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lattq.llm.source.decoded import Decoded

__all__ = ["ExpertProducts", "Stack"]

LINEAR = (nn.functional.linear,)
PRODUCTS = (
    *LINEAR,
    torch.matmul,
    torch.mm,
    torch.bmm,
    Tensor.matmul,
    Tensor.mm,
    Tensor.bmm,
    Tensor.__matmul__,
)
# What code asks of a parameter besides products and indices.
OF_A_TENSOR = ("T", "mT", "contiguous", "data_ptr", "detach", "is_contiguous", "permute", "reshape", "stride")
OF_A_TENSOR += ("transpose", "unbind", "view")


class ExpertProducts(TorchFunctionMode):
    """Sees every product with a slice of a three-dimensional parameter: which expert, its inputs, its outputs.

    A product with the whole parameter is taken expert by expert; inputs that are zero did not choose the expert.

    Parameters
    ----------
    experts : whose slices are looked for, each with `weight`, `parameter`, `index`, `transposed` and `name`
    act : called with the name, inputs and outputs of an expert
    """

    def __init__(self, experts: Iterable[Any], act: Callable[[str, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.act = act
        self.places: dict[tuple[int, int], Any] = {}
        self.whole: dict[int, dict[int, Any]] = {}
        for expert in experts:
            part = expert.parameter.detach()[expert.index]
            self.places[part.data_ptr(), part.numel()] = expert
            self.whole.setdefault(expert.parameter.data_ptr(), {})[expert.index] = expert

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the function, and tell of it if it is a product with an expert."""
        options = kwargs or {}
        if func not in PRODUCTS or len(args) < 2 or not isinstance(args[1], Tensor):
            return func(*args, **options)
        x, w = args[:2]
        if w.ndim == 3 and x.ndim == 3 and w.data_ptr() in self.whole and func not in LINEAR:
            return self._all(x, w)
        y = func(*args, **options)
        if w.ndim == 2:
            self._one(self.places.get((w.data_ptr(), w.numel())), x, w, y, linear=func in LINEAR)
        return y

    def _all(self, x: Tensor, w: Tensor) -> Tensor:
        outputs = []
        for index in range(len(w)):
            rows = x[index].detach().ne(0).any(-1)
            chosen = x[index][rows]
            y = chosen @ w[index]
            self._one(self.whole[w.data_ptr()].get(index), chosen, w[index], y, linear=False)
            outputs.append(y.new_zeros(len(rows), y.shape[-1]).index_put((rows,), y))
        return torch.stack(outputs)

    def _one(self, expert: Any, x: Tensor, w: Tensor, y: Tensor, *, linear: bool) -> None:
        if expert is None or x.shape[:-1].numel() == 0:
            return
        stored = w.stride(-1) == 1  # as it lies in memory; a transposed view otherwise
        expert.transposed = stored != linear
        self.act(expert.name, x, y)


class Stack(Decoded):
    """Stands where a three-dimensional parameter stood, each slice a module that holds its own matrix in few bytes.

    The parameter is decoded as a whole: to an index it answers with a slice, and whatever else torch does with it is
    done with the decoded parameter.

    Parameters
    ----------
    shape : of the parameter
    transposed : whether a slice is inputs × outputs
    like : an empty tensor of the parameter's type
    """

    values: Tensor

    def __init__(self, shape: Iterable[int], like: Tensor, *, transposed: bool) -> None:
        super().__init__()
        self.shape, self.transposed = torch.Size(shape), transposed
        self.begin("values", self.shape, like.dtype)
        self.like = like

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameter."""
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        """Of the parameter."""
        return self.like.device

    @property
    def ndim(self) -> int:
        """Axes of the parameter."""
        return len(self.shape)

    def dim(self) -> int:
        """Axes of the parameter."""
        return len(self.shape)

    def size(self, axis: int | None = None) -> Any:
        """Shape of the parameter, or one of its lengths."""
        return self.shape if axis is None else self.shape[axis]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        return self.values[index]

    @property
    def ready(self) -> bool:
        """Whether all slices have something to decode."""
        return all(getattr(one, "ready", False) for one in self.children())

    def room(self) -> Float[Tensor, "_ _ _"]:
        """For the parameter, without values."""
        return torch.empty(self.shape, dtype=self.dtype, device=self.device)

    def write(self, room: Float[Tensor, "_ _ _"], index: int) -> None:
        """Decode one slice into its place."""
        matrix: Any = self.get_submodule(str(index))
        found = matrix.dequantize(self.dtype)
        room[index].copy_(found.T if self.transposed else found)

    def decode(self) -> Float[Tensor, "_ _ _"]:
        """All slices."""
        found = self.room()
        for index in range(len(self)):
            self.write(found, index)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.values, name) if name in OF_A_TENSOR else super().__getattr__(name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run a function of torch on the decoded parameter."""

        def decoded(value: Any) -> Any:
            return value.values if isinstance(value, Stack) else value

        return func(*map(decoded, args), **{key: decoded(value) for key, value in (kwargs or {}).items()})
