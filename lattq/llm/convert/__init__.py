"""From a model directory to a quantized one: search, passes, workspace, files, report."""

from lattq.llm.convert.files import stored_bytes
from lattq.llm.convert.quantize import quantize_model
from lattq.llm.convert.report import LayerRow, Report

__all__ = [
    "LayerRow",
    "Report",
    "quantize_model",
    "stored_bytes",
]
