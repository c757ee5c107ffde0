"""Statistics of a model directory, measured on text."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from lattq._options import as_count, as_seed
from lattq.errors import InvalidInputError
from lattq.llm.measure.attention import Attention
from lattq.llm.measure.collectors import Guided, Matched, Plain
from lattq.llm.measure.gradients import differentiate
from lattq.llm.measure.ledger import Arena, Ledger
from lattq.llm.measure.moments import UNREACHED, reached
from lattq.llm.measure.origin import Origin
from lattq.llm.measure.score import Score, digest_of_window, pooling_of
from lattq.llm.measure.statistics import Statistics
from lattq.llm.source import checkpoint
from lattq.llm.source.architecture import choose
from lattq.llm.source.matrices import Matrix
from lattq.llm.source.windows import fixed_threads, token_windows, window_of
from lattq.progress import Observer, Stage, stage

__all__ = ["measure_model", "measure_windows"]

BLOCK = 512


def measure_model(
    source: str | Path,
    *,
    calibration_text: str,
    out: str | Path | None = None,
    window: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    label_seed: int = 0,
    draws: int = 1,
    block: int = BLOCK,
    matched: Statistics | None = None,
    attention: bool = False,
    guides: int = 0,
    modules: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    threads: int = 1,
    progress: Stage | Observer | None = None,
) -> Statistics:
    """Measure second moments of the inputs of a model's layers, and of its score at their outputs.

    The score is the log-likelihood of labels drawn from the model's own predictions (or see `Score`), so that an error
    E of a weight costs about ``½ tr(G E Σ Eᵀ)`` nats of KL per token, as far as G ⊗ Σ is the Fisher information.

    Parameters
    ----------
    source : directory with `config.json`, safetensors and a tokenizer
    calibration_text : what to measure on
    out : file to write; sums then lie on the disk while they are made, and the statistics stay there
    window, samples : tokens per window (the model's longest, at most 2048), and how many windows (all)
    seed : of the draw of windows
    label_seed : of the labels. Those of a window depend on it and on the window alone
    draws : of labels for each window
    block : outputs of a layer whose gradients are multiplied with each other, at most: a layer with more has the
        largest blocks that divide it; 1 for the diagonal, the width of a head for blocks of heads
    matched : statistics of the same model and layers whose Σ and G weigh the tokens, one round towards the Kronecker
        product of largest likelihood, see `Matched`
    attention : weigh the inputs of queries, keys and values by the attention that their tokens receive, see `Attention`
    guides : groups of the outputs of a layer that also weigh its inputs, at most, see `Guided`; 0 for none
    modules, include, exclude : layers, as in `quantize_model`
    threads : of torch. What is measured depends on this number in the last bits
    progress : told of the windows, or the stage that this is part of: see `lattq.progress`

    Raises
    ------
    InvalidInputError : for an unusable argument, directory or text, or numbers that are not finite

    Examples
    --------
    >>> from lattq.llm import embedded_model, embedded_text
    >>> text, name = embedded_text("calibration"), "model.layers.0.mlp.up_proj"
    >>> found = measure_model(embedded_model(), calibration_text=text, samples=2, window=64, modules=[name])
    >>> found.moments(name).outputs.shape
    (2, 288, 288)
    """
    label_seed, draws, block = as_seed(label_seed), as_count("draws", draws), as_count("block", block)
    threads, guides = as_count("threads", threads), as_count("guides", guides, 0)
    if bool(attention) + bool(guides) + (matched is not None) > 1:
        msg = "`attention`, `guides` and `matched` weigh the tokens in several ways; give one of them"
        raise InvalidInputError(msg)
    with fixed_threads(threads), stage("measure the model", inside=progress) as work:
        with work.stage("load the model"):
            hashed = checkpoint.source_hash(source)
            tokenizer, model = checkpoint.load_tokenizer(source), checkpoint.load_model(source).float()
        window = window_of(model, window)
        windows = token_windows(tokenizer, calibration_text, window, samples, seed)
        layers = _layers(model, windows, modules, include, exclude)
        if matched is not None:
            _check_base(matched, hashed, layers)
        seen = Attention(model, layers, windows[:1]) if attention else None
        room = Arena(Path(out).absolute().parent, layers, block, guides) if out is not None else np.zeros
        score = Score(label_seed, draws, pooling_of(source))
        with work.stage("measure statistics", len(windows)) as told:
            options = {"block": block, "matched": matched, "attention": seen, "guides": guides}
            found = measure_windows(model, layers, windows, score, **options, room=room, told=told)
        text = hashlib.blake2b(calibration_text.encode(), digest_size=16).hexdigest()
        origin = Origin(
            hashed,
            _method(matched, guides, attention=attention),
            (text,),
            tuple(sorted(digest_of_window(one, label_seed, draws) for one in windows)),
            (window,),
            (label_seed,),
            windows.numel(),
            windows.numel() * draws,
        )
        statistics = found.statistics(origin)
        if out is None:
            return statistics
        with work.stage("write"):
            statistics.save(out)
        return Statistics.load(out)


def measure_windows(
    model: Any,
    layers: Mapping[str, Matrix],
    windows: Int[Tensor, "windows window"],
    score: Score,
    *,
    block: int = BLOCK,
    matched: Statistics | None = None,
    attention: Attention | None = None,
    guides: int = 0,
    room: Any = np.zeros,
    told: Stage | None = None,
    whole: bool | None = None,
) -> Ledger:
    """Sums over windows, of layers of a model in memory.

    Parameters
    ----------
    room : makes the zeros in which sums lie
    told : of each window
    whole : as in `differentiate`
    """
    ledger = Ledger(layers, block, room, guides)
    collector: Plain | Guided | Matched
    if matched is not None:
        collector = Matched(ledger, matched, score.draws)
    else:
        collector = Guided(ledger) if guides else Plain(ledger, attention)
    advance = (lambda name: None) if told is None else told.advance
    with collector.watching():
        differentiate(model, layers, windows.split(1), score, collector, collector.begin, advance, whole)
    return ledger


def _layers(
    model: Any,
    windows: Tensor,
    modules: Iterable[str] | None,
    include: Iterable[str] | None,
    exclude: Iterable[str],
) -> dict[str, Matrix]:
    """Layers that are products in the first window, or not in it."""
    found = choose(model, modules, include=include, exclude=exclude).matrices
    used = reached(model, found, windows[:1])
    return {name: one for name, one in found.items() if used.reasons.get(name, UNREACHED) == UNREACHED}


def _method(matched: Statistics | None, guides: int, *, attention: bool) -> str:
    """In words; statistics of one method can be merged."""
    if matched is not None:
        return f"matched to {matched.digest()}"
    if guides:
        return f"plain, guided by {guides} groups"
    return "weighed by attention" if attention else "plain"


def _check_base(base: Statistics, model: str, layers: Mapping[str, Matrix]) -> None:
    if base.origin.model != model:
        msg = f"`matched` are statistics of the model {base.origin.model}, and this is {model}; measure this one"
        raise InvalidInputError(msg)
    for name in layers:
        if name not in base.layers:
            msg = f"`matched` holds nothing of `{name}`; measure the same layers"
            raise InvalidInputError(msg)
