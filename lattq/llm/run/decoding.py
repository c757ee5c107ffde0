"""All weights of a model decoded at once, in threads, with a bar."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from lattq.llm.run.directory import naming
from lattq.llm.source.decoded import settled
from lattq.llm.source.experts import Stack
from lattq.progress import Observer, Stage, stage

__all__ = ["LoadingBar", "decode_weights", "in_threads"]


class LoadingBar:
    """A bar like that of `transformers` for loading weights, which its `disable_progress_bar` switches off too.

    >>> with Stage("Decoding weights", 1, observer=LoadingBar()) as stage:
    ...     stage.advance("model.layers.0")
    """

    def begin(self, stage: Stage) -> None:
        """Show it."""
        self.bar = logging.tqdm(total=stage.total, desc=stage.name)

    def advance(self, stage: Stage, what: str) -> None:
        """Move it."""
        self.bar.update(1)

    def end(self, stage: Stage) -> None:
        """Leave it as it stands."""
        self.bar.close()


def in_threads(jobs: Mapping[str, Callable[[], Any]], inside: Stage | Observer | None = None) -> None:
    """Run functions that let go of the interpreter, in as many threads as torch calculates with.

    What the first of them raises, in their order, is raised; those that have not begun by then never do.

    >>> found = []
    >>> in_threads({"one": lambda: found.append(1)})
    >>> found
    [1]
    """
    threads = max(min(torch.get_num_threads(), len(jobs)), 1)
    with stage("Decoding weights", len(jobs), inside=inside) as work, ThreadPoolExecutor(threads) as pool:
        pending = {name: pool.submit(job) for name, job in jobs.items()}
        try:
            for name in work.over(pending):
                pending[name].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def decode_weights(model: nn.Module, layers: Mapping[str, str], inside: Stage | Observer | None = None) -> None:
    """Decode the matrices of layers with payloads, and let go of those payloads that need not be kept.

    Parameters
    ----------
    layers : names in the model, with those that errors give
    inside : told of the progress
    """
    rooms: dict[Stack, torch.Tensor] = {}
    jobs = {}
    for name, shown in layers.items():
        layer, parent = model.get_submodule(name), model.get_submodule(name.rpartition(".")[0])
        if isinstance(parent, Stack):
            room = rooms.setdefault(parent, settled(parent.room))
            jobs[name] = _slice(parent, room, int(name.rpartition(".")[2]), shown)
        else:
            jobs[name] = _whole(layer, shown)
    in_threads(jobs, inside)
    for stack, room in rooms.items():
        stack.keep(room)


def _whole(layer: Any, shown: str) -> Callable[[], None]:
    def decode() -> None:
        with naming(shown):
            layer.require_parts()
            layer.fill()

    return decode


def _slice(stack: Any, room: torch.Tensor, index: int, shown: str) -> Callable[[], None]:
    def decode() -> None:
        layer = stack.get_submodule(str(index))
        with naming(shown):
            layer.require_parts()
            stack.write(room, index)
            layer.leave()

    return decode
