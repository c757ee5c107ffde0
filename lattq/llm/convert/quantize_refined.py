"""Quantized and refined in one call."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lattq._options import as_float
from lattq.errors import InvalidInputError, shown
from lattq.llm.convert.plans import is_fixed_rate
from lattq.llm.convert.refined import refine_model
from lattq.llm.convert.report import FILE, Report
from lattq.llm.convert.resumed import beside, converted, require_text, windows_of
from lattq.llm.convert.workspace import check_free
from lattq.llm.distill.record import Refining
from lattq.llm.source import checkpoint
from lattq.llm.source.architecture import choose
from lattq.progress import Observer, Stage, stage
from lattq.rate import TOLERANCE

__all__ = ["quantize_refined", "reserve"]

ROW_BITS = 4.5  # that a row gain takes: integers whose standard deviation is 5 or 6 (theory 17.3)


def quantize_refined(
    quantize: Callable[..., Report],
    refine: bool | Refining,
    *,
    source: str | Path,
    out: str | Path,
    rate: float | int | None,
    calibration_text: str | None,
    progress: Stage | Observer | None,
    **options: Any,
) -> Report:
    """Quantize into `OUT.plain`, refine that into `out`, and remove it; an interrupted call, repeated, continues.

    Raises
    ------
    InvalidInputError : for a `refine` that says not how, or an `OUT.plain` of a call with other settings
    """
    if not isinstance(refine, bool | Refining):
        msg = f"`refine` is {shown(refine)}; pass True, False, or a `Refining` of `lattq.llm`"
        raise InvalidInputError(msg)
    require_text(calibration_text, "`refine` trains on text, which statistics do not hold")
    rate = None if rate is None else as_float("rate", rate)
    check_free(Path(out))
    refining = Refining(seed=options["seed"]) if isinstance(refine, bool) else refine
    windows_of(source, str(calibration_text), options["window"], options["samples"], 2)
    plain = beside(out, "plain")
    with stage("quantize and refine", inside=progress) as work:
        lower = rate if rate is None or not refining.gains else rate - reserve(source, options)
        whole = {"source": source, "calibration_text": calibration_text, "rate": lower, "progress": work, **options}
        converted(quantize, plain, whole)
        shared = {key: options[key] for key in ("window", "samples", "threads", "max_shard_size")}
        most = None if rate is None else rate + TOLERANCE - 0.0005
        words = {"calibration_text": calibration_text, "refining": refining, "progress": work, "most_rate": most}
        refine_model(plain, out, source=source, **words, **shared)
    shutil.rmtree(plain)
    return Report.from_json((Path(out) / FILE).read_text(encoding="utf-8"))


def reserve(source: str | Path, options: Mapping[str, Any]) -> float:
    """Bits per weight that row gains will take, where rows have no steps of their own."""
    if is_fixed_rate(options["recipe"]):
        return 0.0
    names = {key: options[key] for key in ("include", "exclude")}
    shapes = [one.shape for one in choose(checkpoint.load_model(source), options["modules"], **names).matrices.values()]
    return ROW_BITS * sum(rows for rows, _ in shapes) / sum(rows * columns for rows, columns in shapes)
