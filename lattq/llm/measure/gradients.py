"""Gradients of a model's score at the outputs of its layers, block by block or through the whole model at once."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.measure.score import Score
from lattq.llm.source.architecture import find_blocks
from lattq.llm.source.matrices import Matrix, watching
from lattq.llm.source.windows import RAW, run

__all__ = ["differentiate"]

KEPT = 1 << 30  # bytes of hidden states between blocks
SMALL = 1 << 28  # bytes of a model
Act = Callable[[str, Tensor, Tensor], None]
Begin = Callable[[int, Tensor], Any]


def differentiate(
    model: Any,
    layers: Mapping[str, Matrix],
    windows: Sequence[Int[Tensor, "1 window"]],
    score: Score,
    act: Act,
    begin: Begin,
    advance: Callable[[str], Any],
    whole: bool | None = None,
) -> None:
    """Run a model over windows, one by one, and differentiate each score that is drawn of it.

    Block by block where blocks can be called one by one: hidden states between blocks are kept, and what is inside a
    block is computed again when its gradients are. So memory is that of one block, and of the states. A small model
    is differentiated at once, which spares that forward pass.

    Parameters
    ----------
    act : called with the name, inputs and outputs of each use of a layer; its hooks on the outputs see the gradients
    begin : called with the number of a piece of the model and the window before that runs on it
    advance : called with a name after each window
    whole : False for blocks where they can be called, True for the whole model, None to choose by the size of the model
    """
    blocks = find_blocks(model, layers)
    if whole is None:
        whole = sum(one.nbytes for one in model.parameters()) <= SMALL
    stream = None if whole else _stream(model, layers, blocks, windows)
    with _frozen(model):
        if stream is None:
            _through_the_model(model, layers, windows, score, act, begin, advance)
        else:
            names = [name for name, _ in blocks]
            _through_blocks(stream, names, layers, windows, score, act, begin, advance)


def _stream(model: Any, layers: Mapping[str, Matrix], blocks: list, windows: Sequence[Tensor]) -> BlockStream | None:
    """The blocks one by one, if they can be and hold all layers."""
    prefixes = tuple(f"{name}." for name, _ in blocks)
    if not prefixes or not all(name.startswith(prefixes) for name in layers):
        return None
    try:
        return BlockStream(model, [block for _, block in blocks], windows[:1])
    except RAW:
        return None


def _through_the_model(
    model: Any,
    layers: Mapping[str, Matrix],
    windows: Sequence[Tensor],
    score: Score,
    act: Act,
    begin: Begin,
    advance: Callable[[str], Any],
) -> None:
    for index, window in enumerate(windows):
        begin(0, window)
        with torch.enable_grad():
            with _embedded(model) as starts, watching(layers, _starting(act, starts)):
                output = run(model, window)
            _backward(score(output, window), starts)
        advance(f"window {index + 1}")


def _through_blocks(
    stream: BlockStream,
    names: list[str],
    layers: Mapping[str, Matrix],
    windows: Sequence[Tensor],
    score: Score,
    act: Act,
    begin: Begin,
    advance: Callable[[str], Any],
) -> None:
    inside = [{key: one for key, one in layers.items() if key.startswith(f"{name}.")} for name in names]
    first = next(index for index, mine in enumerate(inside) if mine)
    size = stream.hidden[0].nbytes * (len(names) + 1 + score.draws)
    together = max(1, KEPT // size)
    for start in range(0, len(windows), together):
        stream.take(windows[start : start + together])
        states = [stream.hidden]
        for index in range(len(names)):
            states.append(stream.advance(index, states[-1]))
        above = [_head(stream, score, hidden, batch) for batch, hidden in enumerate(states.pop())]
        for index in reversed(range(first, len(names))):
            for batch, hidden in enumerate(states.pop()):
                begin(index, stream.batches[batch])
                starts = [hidden.detach().requires_grad_()]
                with torch.enable_grad(), watching(inside[index], _starting(act, starts)):
                    output = stream.call(index, starts[0], batch)
                above[batch] = _backward([output] * score.draws, starts, above[batch])
        for batch in range(len(stream.batches)):
            advance(f"window {start + batch + 1}")


def _head(stream: BlockStream, score: Score, hidden: Tensor, batch: int) -> list[Tensor]:
    """Gradients of the scores at the output of the last block."""
    leaf = hidden.detach().requires_grad_()
    with torch.enable_grad():
        return _backward(score(stream.finish(leaf, batch), stream.batches[batch]), [leaf])


def _backward(outputs: list[Tensor], starts: list[Tensor], above: list[Tensor] | None = None) -> list[Tensor]:
    """Gradients at the first of `starts`, from scores, or from what their gradients are at some outputs."""
    found = []
    for index, one in enumerate(outputs):
        more = index + 1 < len(outputs)
        given = None if above is None else above[index]
        gradients = torch.autograd.grad(one, starts, given, retain_graph=more, allow_unused=True)
        found.append(torch.zeros_like(starts[0]) if gradients[0] is None else gradients[0])
    return found


def _starting(act: Act, starts: list[Tensor]) -> Act:
    """Differentiate by outputs, too, that do not depend on hidden states, such as those of embedded distances."""

    def seen(name: str, x: Tensor, y: Tensor) -> None:
        if not y.requires_grad:
            starts.append(y.requires_grad_())
        act(name, x, y)

    return seen


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Without gradients of parameters, so that nothing is kept for them."""
    before = [one for one in model.parameters() if one.requires_grad]
    for one in before:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in before:
            one.requires_grad_(True)


@contextlib.contextmanager
def _embedded(model: nn.Module) -> Iterator[list[Tensor]]:
    """What embeddings give in one forward, with gradients: all layers come behind it."""
    starts: list[Tensor] = []

    def start(module: nn.Module, args: Any, output: Any) -> Tensor:
        starts.append(output.detach().requires_grad_())
        return starts[-1].clone()  # some models write into it

    handles = [one.register_forward_hook(start) for one in model.modules() if isinstance(one, nn.Embedding)]
    try:
        yield starts
    finally:
        for handle in handles:
            handle.remove()
