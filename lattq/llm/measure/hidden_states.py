"""Hidden states on their way through the blocks of a model."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin

from lattq.errors import InvalidInputError
from lattq.llm.source.windows import RAW, calibrating, run

__all__ = ["BlockStream", "WholeModel", "follow"]

CACHES = ("past_key_values", "past_key_value", "layer_past", "cache_params", "past_states", "use_cache")


class BlockStream:
    """Hidden states on their way through the blocks of a model, one block at a time.

    Every block is called with the arguments the model itself gave it, recorded in one forward in which the blocks
    pass their input on. No cache is among them.

    Parameters
    ----------
    model : a `transformers` model
    blocks : its blocks, in order
    batches : token windows

    Raises
    ------
    InvalidInputError : if the model does more between its blocks than hand on hidden states, so that blocks called one
        by one would see other inputs than in the model; `WholeModel` serves it
    """

    def __init__(self, model: Any, blocks: list[nn.Module], batches: Iterable[Int[Tensor, "_ window"]]) -> None:
        self.model, self.blocks = model, blocks
        self._returned: list[Any] = []
        true: list[_Call] = []
        batches = list(batches)
        if batches:
            true = _record(model, blocks, batches[0], None)
            self._returned = [_without_state(call.output) for call in true]
        self.take(batches)
        if batches:
            self._check(true)

    def take(self, batches: Iterable[Int[Tensor, "_ window"]]) -> None:
        """Go on with other batches, at the first block."""
        self.batches = list(batches)
        self._calls = [_record(self.model, self.blocks, batch, self._returned) for batch in self.batches]
        self.hidden: list[Tensor] = [found[0].hidden for found in self._calls]

    @torch.no_grad()
    def apply(self, index: int, hidden: list[Tensor], batch: int) -> Tensor:
        """Output of block `index` for one batch of hidden states."""
        return self.call(index, hidden[batch], batch)

    def call(self, index: int, hidden: Tensor, batch: int, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Output of block `index` for hidden states in place of those of a batch, with gradients if they are on.

        Parameters
        ----------
        parameters : values for parameters of the block in place of its own, by their names in it
        """
        block: Any = self.blocks[index]
        if parameters is not None:
            block = functools.partial(_with_parameters, block, dict(parameters))
        with calibrating(self.model):
            return _state(self._calls[batch][index].repeat(block, hidden))

    def advance(self, index: int, hidden: list[Tensor]) -> list[Tensor]:
        """Outputs of block `index` for all batches."""
        return [self.apply(index, hidden, batch) for batch in range(len(hidden))]

    def finish(self, hidden: Tensor, batch: int) -> Any:
        """What the model returns if its last block gives these hidden states, with gradients if they are on."""
        returned = [*self._returned[:-1], _Last(self._returned[-1], hidden)]
        with _recorders(self.blocks, [], returned):
            return run(self.model, self.batches[batch])

    def _check(self, true: list["_Call"]) -> None:
        """Replay the first batch: every block must see what it sees in the model."""
        hidden = self.hidden[:1]
        for index, (replayed, own) in enumerate(zip(self._calls[0], true, strict=True)):
            if not (_close(hidden[0], own.hidden) and _close((replayed.args, replayed.kwargs), (own.args, own.kwargs))):
                msg = f"block {index} of {type(self.model).__name__} depends on more than the hidden states before it"
                raise InvalidInputError(msg)
            if index + 1 < len(true):
                hidden = [self.apply(index, hidden, 0)]


def _with_parameters(block: nn.Module, parameters: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    return torch.func.functional_call(block, parameters, args, kwargs)


class WholeModel:
    """`BlockStream` for models whose blocks cannot be called one by one: every call runs the whole model.

    Examples
    --------
    >>> WholeModel(nn.Linear(2, 2), [torch.zeros(1, 4, dtype=torch.int64)] * 2).hidden
    [None, None]
    """

    def __init__(self, model: Any, batches: Iterable[Int[Tensor, "_ window"]]) -> None:
        self.model, self.batches = model, list(batches)
        self.hidden: list[Any] = [None] * len(self.batches)

    @torch.no_grad()
    def apply(self, index: int, hidden: list[Any], batch: int) -> None:
        """Run one batch; block `index` sees what the blocks before it make of it now."""
        run(self.model, self.batches[batch])

    def advance(self, index: int, hidden: list[Any]) -> list[Any]:
        """Nothing to keep."""
        return hidden


def follow(model: Any, blocks: list[nn.Module], batches: list[Int[Tensor, "_ window"]]) -> "BlockStream | WholeModel":
    """The blocks one by one where that gives the inputs that they have in the model; else the whole model each time."""
    try:
        return BlockStream(model, blocks, batches)
    except RAW:
        return WholeModel(model, batches)


@dataclasses.dataclass
class _Call:
    """What the model gave to one block, and what that returned."""

    index: int
    hidden: Tensor
    args: tuple
    kwargs: dict[str, Any]
    key: str | None
    output: Any = None

    @staticmethod
    def of(index: int, args: tuple, kwargs: dict[str, Any]) -> "_Call":
        """Take the hidden states out of the arguments, and leave out caches."""
        args = tuple(None if _is_cache(one) else one for one in args)
        kwargs = {key: _without_cache(key, value) for key, value in kwargs.items()}
        if args:
            return _Call(index, args[0], args[1:], kwargs, None)
        tensors = [key for key, value in kwargs.items() if isinstance(value, Tensor) and value.is_floating_point()]
        key = "hidden_states" if "hidden_states" in kwargs else tensors[0]
        return _Call(index, kwargs.pop(key), args, kwargs, key)

    def repeat(self, block: Any, hidden: Tensor) -> Any:
        """Call the block as the model did."""
        if self.key is None:
            return block(hidden, *self.args, **self.kwargs)
        return block(*self.args, **{**self.kwargs, self.key: hidden})


def _record(model: Any, blocks: list[nn.Module], batch: Tensor, returned: list[Any] | None) -> list[_Call]:
    """The calls of all blocks in one forward of the base model, in which they pass their input on if it is known what
    they return."""
    calls: list[_Call] = []
    with torch.no_grad(), _recorders(blocks, calls, returned):
        run(model.base_model, batch)
    if [call.index for call in calls] != list(range(len(blocks))):
        msg = f"{type(model).__name__} does not call its blocks once each and in order"
        raise InvalidInputError(msg)
    return calls


@contextlib.contextmanager
def _recorders(blocks: list[nn.Module], calls: list[_Call], returned: list[Any] | None) -> Iterator[None]:
    def recorder(index: int, forward: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = _Call.of(index, args, kwargs)
            calls.append(found)
            if returned is None:
                found.hidden = found.hidden.clone()  # the block may write into it
                found.output = forward(*args, **kwargs)
                return found.output
            given = returned[index]
            return given.output() if isinstance(given, _Last) else _like(given, found.hidden)

        return call

    for index, block in enumerate(blocks):
        block.forward = recorder(index, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@dataclasses.dataclass
class _Last:
    """In what form the last block returns hidden states, and which."""

    form: Any
    hidden: Tensor

    def output(self) -> Any:
        """What it returns."""
        return _like(self.form, self.hidden)


def _without_state(output: Any) -> Any:
    """The form of an output without what is in it."""
    if isinstance(output, tuple | list):
        return [None] * len(output) if isinstance(output, list) else (None,) * len(output)
    return None


def _like(output: Any, hidden: Tensor) -> Any:
    """Hidden states in the form in which a block returned its output."""
    if isinstance(output, tuple):
        return (hidden, *[None] * (len(output) - 1))
    return [hidden, *[None] * (len(output) - 1)] if isinstance(output, list) else hidden


def _state(output: Any) -> Tensor:
    """The hidden states in the output of a block."""
    found = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(found, Tensor):
        msg = f"a block returns {type(found).__name__}, not hidden states"
        raise InvalidInputError(msg)
    return found


def _is_cache(value: Any) -> bool:
    return isinstance(value, Cache | CacheLayerMixin) or type(value).__name__.endswith("Cache")


def _without_cache(key: str, value: Any) -> Any:
    if key == "use_cache":
        return False
    return None if key in CACHES or _is_cache(value) else value


def _close(a: Any, b: Any) -> bool:
    """Whether two trees of arguments agree, tensors up to rounding."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.is_floating_point():
            return torch.equal(a, b)
        return torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_close, a, b))
    return type(a) is type(b) and (a == b if isinstance(a, int | float | str | bool | None) else True)
