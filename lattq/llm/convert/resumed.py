"""Conversions that are part of a longer call, which finds them again when it is repeated."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from lattq.errors import InvalidInputError, shown
from lattq.llm.convert.plans import scheme_of
from lattq.llm.convert.report import FILE, Report
from lattq.llm.source import checkpoint
from lattq.llm.source.windows import token_windows, window_of
from lattq.rate import searched

__all__ = ["beside", "converted", "require_text", "text_hash", "windows_of"]

CALL = "call"  # among the settings of a part: hash of what it was called with
ELSEWHERE = ("progress", "jobs")  # change no byte


def beside(out: str | Path, name: str) -> Path:
    """`OUT.name`, where a part of a call puts its directory.

    >>> beside("/models/small", "plain").as_posix()
    '/models/small.plain'
    """
    return Path(out).absolute().with_name(f"{Path(out).name}.{name}")


def converted(quantize: Callable[..., Report], out: Path, wanted: Mapping[str, Any]) -> Report:
    """Quantize into `out`, unless an interrupted call with these arguments has done that.

    Raises
    ------
    InvalidInputError : if one with others has
    """
    own = _hash_of(wanted)
    if not (out / FILE).is_file():
        report = quantize(out=out, **wanted)
        report = dataclasses.replace(report, settings=report.settings | {CALL: own})
        report.save(out)
        return report
    report = Report.from_json((out / FILE).read_text(encoding="utf-8"))
    if report.settings.get(CALL) != own:
        msg = f"{out} is of a call with other settings; repeat that, or delete the folder"
        raise InvalidInputError(msg)
    return report


def require_text(text: Any, why: str) -> None:
    """Raise `InvalidInputError` unless there is a calibration text.

    >>> require_text("once", "")
    """
    if not isinstance(text, str):
        msg = f"{why}; give `calibration_text`, a text, and not {shown(text)}"
        raise InvalidInputError(msg)


def windows_of(
    source: str | Path, text: str, window: int | None, samples: int | None, least: int = 1
) -> Int[Tensor, "windows window"]:
    """Windows of a text for a model directory; `InvalidInputError` for too few, before anything takes hours."""
    tokenizer, model = checkpoint.load_tokenizer(source), checkpoint.load_model(source)
    found = token_windows(tokenizer, text, window_of(model, window), samples)
    if len(found) < least:
        msg = f"{len(found)} windows of calibration text, and {least} are needed; give a longer text, or more `samples`"
        raise InvalidInputError(msg)
    return found


def text_hash(text: str) -> str:
    """What a report says of a calibration text.

    >>> text_hash("")
    'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _hash_of(wanted: Mapping[str, Any]) -> str:
    """Of all that decides about the bytes."""
    said = {key: value for key, value in wanted.items() if key not in ELSEWHERE}
    said |= {"source": checkpoint.source_hash(wanted["source"]), "recipe": _recipe(wanted)}
    return text_hash(repr(sorted((key, _plain(value)) for key, value in said.items())))


def _recipe(wanted: Mapping[str, Any]) -> str:
    """The scheme at the setting that is given, or at some."""
    recipe = wanted["recipe"]
    setting = wanted.get(searched(recipe)[0])
    return repr(scheme_of(recipe, setting))


def _plain(value: Any) -> Any:
    """Paths and iterables as texts."""
    if isinstance(value, str | int | float | bool | None):
        return repr(value)
    if isinstance(value, set | frozenset):  # whose order differs from process to process
        value = sorted(value)
    return repr(list(value)) if isinstance(value, list | tuple) else str(value)
