"""Quantized layers in the file formats of other systems."""

from lattq.export import coreml
from lattq.export.convert import lookup_table

__all__ = ["coreml", "lookup_table"]
