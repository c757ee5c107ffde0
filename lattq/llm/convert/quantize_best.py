"""Both allocations of bits to layers, and the better one by text that neither was calibrated on."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lattq.llm.convert.report import Report
from lattq.llm.convert.resumed import beside, converted, require_text, text_hash, windows_of
from lattq.llm.convert.stages import is_fixed_rate
from lattq.llm.convert.workspace import check_free
from lattq.llm.distill.divergence import mean_distance
from lattq.llm.source import checkpoint
from lattq.llm.source.windows import fixed_threads
from lattq.progress import Observer, Stage, stage

__all__ = ["quantize_best"]

TRIED = ("loss", "rate")
HELD_OUT = 8  # the last of so many parts of the text judges


def quantize_best(
    quantize: Callable[..., Report],
    *,
    source: str | Path,
    out: str | Path,
    calibration_text: str | None,
    window: int | None,
    samples: int | None,
    threads: int,
    progress: Stage | Observer | None,
    **options: Any,
) -> Report:
    """Quantize into `OUT.loss` and `OUT.rate`, and keep the one that diverges less from the dense model.

    The report's settings say which was `chosen`, and the divergences of both, `held_out`, in nats; they are compared at
    the same bytes, by 4^(difference of the rates). An interrupted call, repeated, continues.

    Raises
    ------
    InvalidInputError : without a text, or for a folder of a call with other settings
    """
    require_text(calibration_text, '`allocation` is "best", which is judged on text')
    text = str(calibration_text)
    check_free(Path(out))
    cut = len(text) * (HELD_OUT - 1) // HELD_OUT
    parts, most = (text[:cut], text[cut:]), None if samples is None else -(-samples // (HELD_OUT - 1))
    _, judged = (windows_of(source, *one) for one in ((parts[0], window, samples), (parts[1], window, most)))
    tried = TRIED[:1] if is_fixed_rate(options["recipe"]) else TRIED  # which change no fixed rate
    folders = {name: beside(out, name) for name in tried}
    given = {"source": source, "calibration_text": parts[0], "window": window, "samples": samples} | options
    with stage("quantize for the better allocation", inside=progress) as work:
        given |= {"threads": threads, "progress": work}
        reports = {name: converted(quantize, folder, given | {"allocation": name}) for name, folder in folders.items()}
        with work.stage("judge") as judging, fixed_threads(threads):
            dense, found = checkpoint.load_model(source, torch.float32), {}
            for name, folder in folders.items():
                found[name] = mean_distance(dense, checkpoint.load_model(folder, torch.float32), judged)
                judging.advance(f"{name}: {found[name]:.4g}")
    rate = reports[tried[0]].rate
    scores = {name: found[name] * 4.0 ** (reports[name].rate - rate) for name in tried}  # at the same bytes
    best = min(tried, key=scores.__getitem__)  # the first of equals
    settings = reports[best].settings | {"allocation": "best", "chosen": best, "held_out": found}
    told = dataclasses.replace(reports[best], settings=settings | {"calibration": text_hash(text)})
    for name in tried:
        if name != best:
            shutil.rmtree(folders[name])
    folders[best].replace(out)
    told.save(Path(out))
    return told
