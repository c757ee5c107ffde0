"""Windows of tokens, and one forward of a model over them."""

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from transformers import PreTrainedConfig

from lattq._options import as_count, as_seed
from lattq.errors import InvalidInputError, LattqError, shown

__all__ = [
    "RAW",
    "all_configs",
    "batches_of",
    "calibrating",
    "fixed_threads",
    "longest_window",
    "run",
    "token_windows",
    "window_of",
]

TOKENS_PER_BATCH = 4096
LONGEST_WINDOW = 2048
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
# What a model raises that is called in a way it does not know.
RAW = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError, NotImplementedError)
# How a model runs while it is measured: nothing is kept from call to call, experts run one by one, and no token pads.
CALIBRATING: dict[str, Any] = {
    "use_cache": False,
    "_experts_implementation_internal": "eager",
    "return_dict": True,
}


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
    window, seed = as_count("window", window), as_seed(seed)
    for name, value in (("samples", samples), ("stride", stride)):
        if value is not None:
            as_count(name, value)
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
    rows = np.lib.stride_tricks.sliding_window_view(tokens, body)[:: min(stride or body, body)]
    count = len(rows)
    if samples is not None and samples < count:
        rows = rows[np.sort(np.random.default_rng(seed).permutation(count)[:samples])]
    ends = [np.tile(np.asarray(ids, dtype=np.int64), (len(rows), 1)) for ids in (prefix, suffix)]
    return torch.from_numpy(np.concatenate([ends[0], rows, ends[1]], axis=1))


def batches_of(windows: Int[Tensor, "windows window"], size: int | None = None) -> list[Int[Tensor, "_ window"]]:
    """Split windows into batches of so many, or of about 4096 tokens.

    Raises
    ------
    InvalidInputError : for what is no table of tokens, or an empty one

    Examples
    --------
    >>> [len(batch) for batch in batches_of(torch.zeros(5, 2048, dtype=torch.int64))]
    [2, 2, 1]
    """
    if not isinstance(windows, Tensor) or windows.ndim != 2 or 0 in windows.shape:
        msg = f"`windows` is {shown(windows)}; pass a tensor of tokens with a row for each window, at least one"
        raise InvalidInputError(msg)
    return list(windows.split(size or max(1, TOKENS_PER_BATCH // windows.shape[1])))


@contextlib.contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute with so many threads of torch and one of NumPy: they decide the order of sums, and so the last bits."""
    count = as_count("threads", count)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def window_of(model: nn.Module, window: int | None) -> int:
    """Tokens per window: those asked for, or `longest_window`; raises `InvalidInputError` for what is no number."""
    return longest_window(model) if window is None else as_count("window", window)


def longest_window(model: nn.Module) -> int:
    """Tokens that a model takes at once by its config and its table of positions, at most 2048.

    Positions of some classes start behind the number of the padding token, so their table holds that many fewer.
    """
    config: Any = model.config
    configs = [config.get_text_config(), config]
    found = [LONGEST_WINDOW]
    for name in LENGTHS:
        lengths = [value for value in (getattr(one, name, None) for one in configs) if isinstance(value, int)]
        found += [value for value in lengths[:1] if value > 0]
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if "position" in name and isinstance(module, nn.Embedding) and padding is not None:
            found.append(module.num_embeddings - padding - 1)
    return min(found)


def run(model: nn.Module, batch: Int[Tensor, "batch window"]) -> Any:
    """One forward without a key-value cache, with gradients if they are on.

    Raises
    ------
    InvalidInputError : if the model does not know a token, cannot run on tokens alone, or not on so many
    """
    _check_tokens(model, batch)
    known = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in known else {}
    try:
        with calibrating(model):
            return model(input_ids=batch, **options)
    except LattqError:
        raise
    except RAW as error:
        msg = (
            f"{type(model).__name__} fails on {batch.shape[1]} tokens and nothing else "
            f"({type(error).__name__}: {error}); choose a smaller `window`, or a model that takes tokens alone"
        )
        raise InvalidInputError(msg) from error


def _check_tokens(model: Any, batch: Int[Tensor, "batch window"]) -> None:
    """Some models cannot tell their embedding; then this asks nothing."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return
    largest = int(batch.max())
    if isinstance(table, nn.Embedding) and largest >= table.num_embeddings:
        msg = (
            f"the tokenizer gives the token {largest}, and {type(model).__name__} has a vocabulary of "
            f"{table.num_embeddings}; use the tokenizer of this model"
        )
        raise InvalidInputError(msg)


@contextlib.contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """Set the configs of a model and its parts as `CALIBRATING` says, and back."""
    before = []
    for config in all_configs(model):
        wanted = CALIBRATING | ({} if getattr(config, "pad_token_id", 0) is not None else {"pad_token_id": -1})
        for key, value in wanted.items():
            if getattr(config, key, value) != value:
                before.append((config, key, getattr(config, key)))
                setattr(config, key, value)
    try:
        yield
    finally:
        for config, key, value in before:
            setattr(config, key, value)


def all_configs(model: nn.Module) -> Iterable[Any]:
    """The configurations of a model, of its modules and of their parts, once each."""
    found = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    configs = [config for config in found.values() if isinstance(config, PreTrainedConfig)]
    parts = [getattr(config, name, None) for config in configs for name in config.sub_configs]
    return {id(config): config for config in [*configs, *parts] if config is not None}.values()


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
