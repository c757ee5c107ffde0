"""Experts that share one parameter: observed while they run, and a module that stands where the parameter stood."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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


class Stack(nn.Module):
    """Stands where a three-dimensional parameter stood, each slice a module that decodes its own matrix.

    An index decodes only what it takes; whatever else torch does with it is done with the decoded parameter.

    Parameters
    ----------
    shape : of the parameter
    transposed : whether a slice is inputs × outputs
    like : an empty tensor of the parameter's type
    """

    like: Tensor
    _is_hf_initialized = True  # nothing to initialise

    def __init__(self, shape: Iterable[int], like: Tensor, *, transposed: bool) -> None:
        super().__init__()
        self.shape, self.transposed = torch.Size(shape), transposed
        self.register_buffer("like", like, persistent=False)  # follows casts and moves
        self._parts: dict[int, Tensor] = {}
        self._whole: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the decoded parameter."""
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        """Of the decoded parameter."""
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
        single = isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0)
        return self.part(int(index)) if single else self.whole()[index]

    def part(self, index: int) -> Float[Tensor, "_ _"]:
        """Decode one slice."""
        self._forget_other_types()
        if self._whole is not None:
            return self._whole[index]
        if index not in self._parts:
            matrix: Any = self.get_submodule(str(index % len(self)))
            found = matrix.dequantize(self.dtype).to(self.device)
            self._parts[index] = found.T.contiguous() if self.transposed else found
        return self._parts[index]

    def whole(self) -> Float[Tensor, "_ _ _"]:
        """Decode the parameter."""
        self._forget_other_types()
        if self._whole is None:
            self._whole = torch.stack([self.part(index) for index in range(len(self))])
            self._parts = {}
        return self._whole

    def _forget_other_types(self) -> None:
        kept = [self._whole] if self._whole is not None else list(self._parts.values())[:1]
        if any(one.dtype != self.dtype or one.device != self.device for one in kept):
            self._whole, self._parts = None, {}

    def __getattr__(self, name: str) -> Any:
        if name in OF_A_TENSOR:
            return getattr(self.whole(), name)
        return super().__getattr__(name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run a function of torch on the decoded parameter."""

        def decoded(value: Any) -> Any:
            return value.whole() if isinstance(value, Stack) else value

        return func(*map(decoded, args), **{key: decoded(value) for key, value in (kwargs or {}).items()})
