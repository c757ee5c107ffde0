"""Windows of tokens, and one forward of a model over them."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lattq.errors import InvalidInputError

__all__ = ["batches_of", "fixed_threads", "run", "token_windows"]

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


@contextlib.contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute with so many threads of torch and one of NumPy: they decide the order of sums, and so the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def run(model: nn.Module, batch: Int[Tensor, "batch window"]) -> Any:
    """One forward without a key-value cache, with gradients if they are on."""
    known = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in known else {}
    return model(input_ids=batch, **options)


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
