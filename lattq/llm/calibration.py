"""Second moments of the inputs of linear layers, from calibration text."""

import contextlib
import inspect
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lattq.errors import InvalidInputError
from lattq.linalg import SecondMoment

__all__ = ["BlockStream", "InputMoments", "batches_of", "forward_batches", "token_windows"]

TOKENS_PER_BATCH = 4096


def token_windows(
    tokenizer: Any, text: str, window: int, samples: int | None = None, seed: int = 0, *, stride: int | None = None
) -> Int[Tensor, "windows window"]:
    """Tokenise a text and cut it into windows, each with the special tokens of one sequence.

    Parameters
    ----------
    window : tokens per window, special tokens included; a shorter remainder is dropped
    samples : how many windows, drawn without replacement; None for all
    seed : of the draw
    stride : tokens between the starts of windows; None for disjoint ones

    Raises
    ------
    InvalidInputError : if the text is empty or shorter than one window
    """
    if not text.strip():
        msg = "the text is empty; give some text that resembles what the model will read"
        raise InvalidInputError(msg)
    prefix, suffix = _special_tokens(tokenizer)
    body = window - len(prefix) - len(suffix)
    if body < 2:
        msg = f"`window` is {window} tokens; it must leave at least 2 beside {len(prefix) + len(suffix)} special tokens"
        raise InvalidInputError(msg)
    tokens = np.asarray(_tokens(tokenizer, text), dtype=np.int64)
    count = len(tokens) // body
    if count == 0:
        msg = f"the text has {len(tokens)} tokens, one window takes {body}; give a longer text or a smaller `window`"
        raise InvalidInputError(msg)
    if seed < 0:
        msg = f"`seed` is {seed}; give an integer of at least 0"
        raise InvalidInputError(msg)
    for name, value in (("samples", samples), ("stride", stride)):
        if value is not None and value < 1:
            msg = f"`{name}` is {value}; it must be at least 1"
            raise InvalidInputError(msg)
    rows = np.lib.stride_tricks.sliding_window_view(tokens, body)[:: min(stride or body, body)]
    count = len(rows)
    if samples is not None and samples < count:
        rows = rows[np.sort(np.random.default_rng(seed).permutation(count)[:samples])]
    ends = [np.tile(np.asarray(ids, dtype=np.int64), (len(rows), 1)) for ids in (prefix, suffix)]
    return torch.from_numpy(np.concatenate([ends[0], rows, ends[1]], axis=1))


def batches_of(windows: Int[Tensor, "windows window"]) -> list[Int[Tensor, "_ window"]]:
    """Split windows into batches of about 4096 tokens."""
    return list(windows.split(max(1, TOKENS_PER_BATCH // windows.shape[1])))


class InputMoments:
    """Second moments of the inputs of linear layers, updated while a model runs inside `record`.

    Layers that receive the same tensor, such as q, k and v, share one accumulator. With `drift`, forwards come in
    pairs: first the clean model inside `remember`, then the drifted one inside `record`.

    Parameters
    ----------
    layers : name to linear layer
    drift : also accumulate E[x x̂ᵀ] of remembered and recorded inputs
    """

    def __init__(self, layers: Mapping[str, nn.Linear], *, drift: bool = False) -> None:
        self.layers, self.drift = layers, drift
        self.leader: dict[str, str] = {}
        self._moments: dict[str, SecondMoment] = {}
        self._cross: dict[str, SecondMoment] = {}
        self._clean: dict[str, Tensor] = {}
        self._seen: list[tuple[weakref.ref, str]] = []

    def sigma(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x xᵀ] of the inputs of a layer."""
        if name not in self.leader:
            msg = f"no calibration input reached `{name}`; leave it out of `modules`"
            raise InvalidInputError(msg)
        return self._moments[self.leader[name]].matrix

    def cross(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x x̂ᵀ] of remembered and recorded inputs of a layer."""
        return self._cross[self.leader[name]].matrix

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Accumulate what reaches the layers in one forward."""
        with self._hooked(self._update):
            yield
        self._clean.clear()

    @contextlib.contextmanager
    def remember(self) -> Iterator[None]:
        """Keep what reaches the layers in one forward, for the cross moments of the next `record`."""
        with self._hooked(self._clean.__setitem__):
            yield

    @contextlib.contextmanager
    def _hooked(self, act: Any) -> Iterator[None]:
        def hook(name: str) -> Any:
            return lambda module, inputs: self._arrived(name, inputs[0], act)

        handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in self.layers.items()]
        self._seen = []
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _arrived(self, name: str, x: Tensor, act: Any) -> None:
        if name not in self.leader:
            same = (first for seen, first in self._seen if seen() is x)  # identity: the modules read one tensor
            self.leader[name] = next(same, name)
        if self.leader[name] == name:
            self._seen.append((weakref.ref(x), name))
            act(name, x)

    def _update(self, name: str, x: Tensor) -> None:
        width = x.shape[-1]
        self._moments.setdefault(name, SecondMoment(width)).update(x)
        if self.drift:
            self._cross.setdefault(name, SecondMoment(width, width)).update(self._clean[name], x)


class BlockStream:
    """Hidden states on their way through the blocks of a model, one block at a time.

    Every block is called with the arguments the model itself gave it, recorded in one forward in which the blocks
    pass their input on.

    Parameters
    ----------
    model : a `transformers` model
    blocks : its blocks, in order
    batches : token windows
    """

    def __init__(self, model: Any, blocks: list[nn.Module], batches: Iterable[Int[Tensor, "_ window"]]) -> None:
        self.blocks = blocks
        self.hidden: list[Tensor] = []
        self._calls: list[list[tuple[tuple, dict]]] = []
        for batch in batches:
            calls: list[tuple[tuple, dict]] = []
            with torch.no_grad(), _recorders(blocks, self.hidden, calls):
                run(model.base_model, batch)
            self._calls.append(calls)

    @torch.no_grad()
    def apply(self, index: int, hidden: list[Tensor], batch: int) -> Tensor:
        """Output of block `index` for one batch of hidden states."""
        args, kwargs = self._calls[batch][index]
        output = self.blocks[index](hidden[batch], *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def advance(self, index: int, hidden: list[Tensor]) -> list[Tensor]:
        """Outputs of block `index` for all batches."""
        return [self.apply(index, hidden, batch) for batch in range(len(hidden))]


@contextlib.contextmanager
def _recorders(blocks: list[nn.Module], hidden: list[Tensor], calls: list[tuple[tuple, dict]]) -> Iterator[None]:
    """Let every block record its arguments and return its input; the first also runs, to learn what blocks return."""
    returns_tuple = False

    def recorder(index: int, forward: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal returns_tuple
            if index == 0:
                returns_tuple = isinstance(forward(*args, **kwargs), tuple)
            x, *rest = args if args else (kwargs.pop("hidden_states"),)
            if index == 0:
                hidden.append(x)
            calls.append((tuple(rest), kwargs))
            return (x,) if returns_tuple else x

        return call

    for index, block in enumerate(blocks):
        block.forward = recorder(index, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def run(model: nn.Module, batch: Int[Tensor, "batch window"]) -> Any:
    """One forward without a key-value cache, with gradients if they are on."""
    known = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in known else {}
    return model(input_ids=batch, **options)


def forward_batches(model: Any, batches: Iterable[Int[Tensor, "_ window"]], moments: InputMoments) -> None:
    """Run the whole model over all batches while `moments` records."""
    for batch in batches:
        with torch.no_grad(), moments.record():
            run(model, batch)


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after one sequence."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start], full[start + len(plain) :]
    return [], []


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
