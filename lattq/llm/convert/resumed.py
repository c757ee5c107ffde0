"""Conversions that are part of a longer call, which finds them again when it is repeated."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lattq.errors import InvalidInputError
from lattq.llm.convert.report import FILE, Report
from lattq.llm.source import checkpoint

__all__ = ["beside", "converted", "text_hash"]

CHECKED = ("rate", "step", "levels", "bits", "seed", "propagate", "drift", "allocation")


def beside(out: str | Path, name: str) -> Path:
    """`OUT.name`, where a part of a call puts its directory.

    >>> beside("/models/small", "plain").as_posix()
    '/models/small.plain'
    """
    return Path(out).absolute().with_name(f"{Path(out).name}.{name}")


def converted(quantize: Callable[..., Report], out: Path, wanted: Mapping[str, Any]) -> Report:
    """Quantize into `out`, unless an interrupted call with these settings has done that.

    Raises
    ------
    InvalidInputError : if one with other settings has
    """
    if not (out / FILE).is_file():
        return quantize(out=out, **wanted)
    report = Report.from_json((out / FILE).read_text(encoding="utf-8"))
    own = {"calibration": text_hash(wanted["calibration_text"]), "source": checkpoint.source_hash(wanted["source"])}
    own |= {key: wanted[key] for key in CHECKED if wanted[key] is not None}
    changed = sorted(key for key, value in own.items() if report.settings.get(key) != value)
    if changed:
        msg = f"{out} is of a call with other settings ({', '.join(changed)} differ); repeat that, or delete the folder"
        raise InvalidInputError(msg)
    return report


def text_hash(text: str) -> str:
    """What a report says of a calibration text.

    >>> text_hash("")
    'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
