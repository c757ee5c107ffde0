"""Language models: quantize a directory, load it through `transformers`, measure it.

Importing this package teaches `transformers` the method "lattq"; without it, loading a quantized directory fails.
"""

from pathlib import Path

from lattq._options import among
from lattq.errors import InvalidInputError, shown
from lattq.llm.convert.files import stored_bytes
from lattq.llm.convert.quantize import quantize_model
from lattq.llm.convert.refined import refine_model
from lattq.llm.convert.report import Report
from lattq.llm.distill.record import Refining
from lattq.llm.evaluation.evaluate import evaluate
from lattq.llm.measure.model import measure_model
from lattq.llm.measure.statistics import Statistics
from lattq.llm.run.plugin import register
from lattq.llm.tune.soft_palette import SoftPalette, harden

__all__ = [
    "Refining",
    "Report",
    "SoftPalette",
    "Statistics",
    "embedded_model",
    "embedded_text",
    "evaluate",
    "harden",
    "measure_model",
    "quantize_model",
    "refine_model",
    "stored_bytes",
]

register()


def embedded_model() -> Path:
    """Directory of the small language model that ships with lattq.

    >>> (embedded_model() / "config.json").exists()
    True
    """
    return Path(__file__).parent / "embedded"


def embedded_text(name: str) -> str:
    """Text beside the embedded model: "calibration", from the novels it was trained on, or "evaluation", unseen.

    >>> len(embedded_text("evaluation")) > 100_000
    True
    """
    if not among(name, ("calibration", "evaluation")):
        msg = f'`name` is {shown(name)}; choose "calibration" or "evaluation"'
        raise InvalidInputError(msg)
    return (embedded_model() / f"{name}.txt").read_text(encoding="utf-8")
