"""The matrices of a model that can be quantized; each kind reads, writes, observes and replaces itself."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lattq.errors import InvalidInputError
from lattq.llm.source.decoded import Decoded
from lattq.llm.source.experts import ExpertProducts, Stack

__all__ = ["ConvMatrix", "ExpertMatrix", "LinearMatrix", "Matrix", "matrices", "replace", "watching"]

PLAIN = vars(nn.Linear(1, 1)).keys()  # attributes of a linear layer
Act = Callable[[str, Tensor, Tensor], None]


class LinearMatrix:
    """Weight of an `nn.Linear`.

    Attributes
    ----------
    name : under which it is quantized and stored
    key : name of the parameter that holds it
    module : that holds the parameter
    transposed : whether the parameter holds inputs × outputs
    siblings : names of the matrices whose inputs resemble its own, itself included
    routed : whether the inputs decide which tokens reach it

    Examples
    --------
    >>> matrix = LinearMatrix("proj", nn.Linear(3, 2))
    >>> matrix.shape, matrix.key
    ((2, 3), 'proj.weight')
    """

    transposed: bool = False
    routed = False

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        self.key = f"{name}.weight"
        self.siblings: tuple[str, ...] = (name,)

    @property
    def parameter(self) -> Any:
        """The parameter as it stands in the model."""
        return self.module.weight

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """The matrix, outputs × inputs, in the parameter's own memory."""
        return _turned(self.parameter.detach(), self.transposed)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.weight.shape
        return rows, columns

    @property
    def text(self) -> str:
        """Shape in `config.json`, with a mark for slices of a parameter that are inputs × outputs."""
        rows, columns = self.shape
        return f"{rows}x{columns}{'T' if self.routed and self.transposed else ''}"

    def write(self, weight: Float[Tensor, "rows columns"]) -> None:
        """Put other values into the parameter."""
        self.weight.copy_(weight)

    def explains(self, x: Tensor, y: Any) -> bool:
        """Whether outputs are the product with the inputs, and the bias: subclasses may do more."""
        if type(self.module) in (nn.Linear, Conv1D):
            return True
        wanted = nn.functional.linear(x, self.weight.to(x.dtype), self.module.bias)
        return isinstance(y, Tensor) and y.shape == wanted.shape and torch.allclose(y, wanted, rtol=1e-3, atol=1e-5)

    def watch(self, act: Act) -> Any:
        """Call `act` with the name, inputs and outputs at each use, until the handle that this returns is removed."""
        return self.module.register_forward_hook(lambda module, inputs, output: act(self.name, inputs[0], output))

    def place(self, model: nn.Module, layer: Any) -> None:
        """Let `layer`, which holds a payload, compute in its place; it takes over the bias."""
        layer.bias = self.module.bias
        self.module.weight = nn.Parameter(torch.empty_like(self.parameter, device="meta"), requires_grad=False)
        replace(model, self.name, layer)

    def restore(self, model: nn.Module, weight: Float[Tensor, "rows columns"]) -> None:
        """Undo `place`, with these values."""
        bias: Any = model.get_submodule(self.name).bias
        self.module.bias = None if bias is None else nn.Parameter(bias.detach().to(weight.dtype))
        self.module.weight = nn.Parameter(_turned(weight, self.transposed).contiguous())
        replace(model, self.name, self.module)


class ConvMatrix(LinearMatrix):
    """Weight of a `Conv1D`, the linear layer of GPT-2: inputs × outputs."""

    transposed = True


class ExpertMatrix(LinearMatrix):
    """One expert's slice of a three-dimensional parameter.

    Which way round a slice lies shows when it is used: `transposed` is None until then.
    """

    transposed: Any = None
    routed = True

    def __init__(self, name: str, module: Any, attribute: str, index: int) -> None:
        super().__init__(f"{name}.{index}", module)
        self.key, self.attribute, self.index = name, attribute, index
        self.whole = tuple(self.parameter.shape)
        self.siblings = tuple(f"{name}.{other}" for other in range(self.whole[0]))

    def explains(self, x: Tensor, y: Any) -> bool:
        """A use is a product."""
        return True

    @property
    def parameter(self) -> Any:
        """All experts."""
        return getattr(self.module, self.attribute)

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """The matrix, outputs × inputs, in the parameter's own memory."""
        return _turned(self.parameter.detach()[self.index], self.transposed)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        first, second = self.whole[1:]
        return (second, first) if self.transposed else (first, second)

    def place(self, model: nn.Module, layer: Any) -> None:
        """Let `layer` hold this slice of what takes the parameter's place."""
        if self.attribute in self.module._parameters:
            like = torch.empty(0, dtype=self.parameter.dtype, device=self.parameter.device)
            del self.module._parameters[self.attribute]
            self.module.add_module(self.attribute, Stack(self.whole, like, transposed=self.transposed))
        self.parameter.add_module(str(self.index), layer)

    def restore(self, model: nn.Module, weight: Float[Tensor, "rows columns"]) -> None:
        """Undo `place`, with these values."""
        if self.attribute in self.module._modules:
            del self.module._modules[self.attribute]
            self.module.register_parameter(self.attribute, nn.Parameter(weight.new_empty(self.whole)))
        self.write(weight)


Matrix = LinearMatrix


def matrices(model: nn.Module) -> dict[str, Matrix]:
    """Every matrix of a model that could be quantized, by name.

    Linear layers, unless a subclass adds attributes, as routers do; `Conv1D`; and the slices of three-dimensional
    parameters of a model's own modules.

    >>> list(matrices(nn.Sequential(nn.Linear(3, 2), nn.ReLU())))
    ['0']
    """
    found: dict[str, Matrix] = {}
    for name, module in model.named_modules():
        if isinstance(module, Conv1D):
            found[name] = ConvMatrix(name, module)
        elif isinstance(module, nn.Linear):
            if not {key for key in vars(module).keys() - PLAIN if key[0] != "_"}:
                found[name] = LinearMatrix(name, module)
        elif not isinstance(module, Decoded) and not type(module).__module__.startswith("torch."):
            for attribute, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 3 and min(parameter.shape) > 1:
                    path = f"{name}.{attribute}" if name else attribute
                    slices = [ExpertMatrix(path, module, attribute, index) for index in range(len(parameter))]
                    found |= {one.name: one for one in slices}
    return found


@contextlib.contextmanager
def watching(found: Mapping[str, Matrix], act: Act) -> Iterator[None]:
    """Call `act` with the name, inputs and outputs of each use of the matrices."""
    routed = [matrix for matrix in found.values() if matrix.routed]
    handles = [matrix.watch(act) for matrix in found.values() if not matrix.routed]
    try:
        with ExpertProducts(routed, act) if routed else contextlib.nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def replace(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where `model` has the submodule `name`."""
    try:
        model.get_submodule(name)
    except AttributeError:
        msg = f"the model has no module `{name}`"
        raise InvalidInputError(msg) from None
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _turned(matrix: Tensor, transposed: bool | None) -> Tensor:
    return matrix.T if transposed else matrix
