"""How well a model predicts text, and how far it strays from the model it was made from."""

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lattq.errors import InvalidInputError
from lattq.llm.distill.divergence import divergence, log_probabilities
from lattq.llm.source import checkpoint
from lattq.llm.source.windows import batches_of, run, token_windows, window_of
from lattq.progress import Observer, Stage, stage

__all__ = ["Evaluation", "evaluate"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured; None where it does not apply.

    Attributes
    ----------
    tokens : predicted tokens, or embedded ones
    loss_nats : mean negative log-likelihood per token
    perplexity : exp(loss_nats)
    bits_per_byte : of the text's UTF-8 bytes
    kl_bits_per_token : mean KL(reference ‖ model) of the next token
    top1_agreement : how often both find the same token most likely
    mean_cosine : between the mean-pooled last hidden states of model and reference, over windows
    seconds : of the whole measurement

    Examples
    --------
    >>> Evaluation(tokens=3, loss_nats=0.0, perplexity=1.0).kl_bits_per_token is None
    True
    """

    tokens: int
    loss_nats: float | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None
    kl_bits_per_token: float | None = None
    top1_agreement: float | None = None
    mean_cosine: float | None = None
    seconds: float = 0.0


def evaluate(
    model: Any,
    text: str,
    *,
    reference: Any = None,
    tokenizer: Any = None,
    window: int | None = None,
    stride: int | None = None,
    samples: int | None = None,
    progress: Stage | Observer | None = None,
) -> Evaluation:
    """Measure a language model, or the hidden states of any other against a reference.

    Parameters
    ----------
    model, reference : a directory, loaded as float32, or a model
    text : to predict or embed
    tokenizer : needed if `model` is not a directory
    window : tokens per window; the model's longest, at most 2048, unless given
    stride : tokens between the starts of windows. Each token is predicted once, with what precedes it in its window;
        the first of all is not. `window` unless given: then no first token of a window is predicted
    samples : number of windows, for a quick look; all unless given
    progress : told of the batches, or the stage that this is part of: see `lattq.progress`

    Raises
    ------
    InvalidInputError : if the text is shorter than a window, a model that predicts no next token comes without a
        reference, the reference is of another kind or has another vocabulary, or a tokenizer has more tokens than its
        model

    Examples
    --------
    >>> from lattq.llm import embedded_model, embedded_text
    >>> found = evaluate(embedded_model(), embedded_text("evaluation")[:4000], reference=embedded_model(), window=64)
    >>> found.kl_bits_per_token, found.top1_agreement
    (0.0, 1.0)
    """
    start = time.perf_counter()
    if tokenizer is None:
        if not isinstance(model, str | Path):
            msg = "`tokenizer` is needed when `model` is not a directory"
            raise InvalidInputError(msg)
        tokenizer = checkpoint.load_tokenizer(model)
    candidate, original = _loaded(model), None if reference is None else _loaded(reference)
    if original is not None:
        _check_kinds(candidate, original)
    window = window_of(candidate, window)
    work = stage("evaluate", inside=progress)
    if not candidate.can_generate():
        windows = token_windows(tokenizer, text, window, samples)
        found = _compare_embeddings(candidate, original, windows, work)
    else:
        windows = token_windows(tokenizer, text, window, samples, stride=stride)
        found = _predict(candidate, original, windows, min(stride or window, window), work)
        per_byte = len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) / len(text.encode())
        loss = found.loss_nats or 0.0
        found = dataclasses.replace(found, bits_per_byte=loss / math.log(2) * per_byte)
    return dataclasses.replace(found, seconds=time.perf_counter() - start)


def _loaded(model: Any) -> Any:
    return checkpoint.load_model(model, torch.float32) if isinstance(model, str | Path) else model.eval()


def _check_kinds(model: Any, reference: Any) -> None:
    """Both predict the next token, or have hidden states of the same kind."""
    names = f"{type(reference).__name__} as `reference` of {type(model).__name__}"
    if model.can_generate():
        if not reference.can_generate():
            msg = f"{names}: it predicts no next token; give a model that does"
            raise InvalidInputError(msg)
    elif type(model.base_model) is not type(reference.base_model):
        msg = f"{names}: their hidden states have nothing in common; give a model of the same kind"
        raise InvalidInputError(msg)


@torch.no_grad()
def _predict(
    model: Any, reference: Any, windows: Int[Tensor, "windows window"], stride: int, work: Stage
) -> Evaluation:
    """Score the last `stride` tokens of each window, of the first window all but the first token."""
    loss = kl = agreement = 0.0
    tokens = 0
    for batch, scored in _scored(windows, stride, work):
        log_q = log_probabilities(model, batch)[scored]
        targets = batch[:, 1:][scored]
        loss -= float(log_q.gather(-1, targets[:, None]).double().sum())
        tokens += len(targets)
        if reference is not None:
            log_p = log_probabilities(reference, batch)[scored]
            if log_p.shape != log_q.shape:
                sizes = f"{log_q.shape[-1]} tokens, the reference {log_p.shape[-1]}"
                msg = f"the model predicts {sizes}; give a `reference` of the same vocabulary"
                raise InvalidInputError(msg)
            kl += float(divergence(log_p, log_q).double().sum())
            agreement += float((log_p.argmax(-1) == log_q.argmax(-1)).sum())
    mean = loss / tokens
    compared = reference is not None
    return Evaluation(
        tokens=tokens,
        loss_nats=mean,
        perplexity=math.exp(mean) if mean < 700 else math.inf,
        kl_bits_per_token=kl / tokens / math.log(2) if compared else None,
        top1_agreement=agreement / tokens if compared else None,
    )


def _scored(windows: Int[Tensor, "windows window"], stride: int, work: Stage) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches and the mask of the predictions that count."""
    first = True
    for batch in _counted(windows, work):
        scored = torch.zeros_like(batch[:, 1:], dtype=torch.bool)
        scored[:, -stride:] = True
        if first:
            scored[0] = True
        first = False
        yield batch, scored


def _counted(windows: Int[Tensor, "windows window"], work: Stage) -> Iterator[Tensor]:
    """Batches of windows, with progress."""
    batches = batches_of(windows)
    work.total = len(batches)
    with work:
        yield from work.over(batches)


def _compare_embeddings(model: Any, reference: Any, windows: Int[Tensor, "windows window"], work: Stage) -> Evaluation:
    if reference is None:
        msg = (
            f"{type(model).__name__} predicts no next token; give the unquantized model as `reference` to compare with"
        )
        raise InvalidInputError(msg)
    cosines = []
    for batch in _counted(windows, work):
        ours, theirs = (_embeddings(one, batch) for one in (model, reference))
        cosines.append(torch.nn.functional.cosine_similarity(ours, theirs, dim=-1))
    return Evaluation(tokens=windows.numel(), mean_cosine=float(torch.cat(cosines).mean()))


@torch.no_grad()
def _embeddings(model: Any, batch: Int[Tensor, "batch window"]) -> Float[Tensor, "batch hidden"]:
    output = run(model.base_model, batch)
    hidden = output.get("last_hidden_state")
    if hidden is None or hidden.ndim != 3:
        msg = f"{type(model.base_model).__name__} returns no hidden states of tokens; there is nothing to compare"
        raise InvalidInputError(msg)
    return hidden.double().mean(1)
