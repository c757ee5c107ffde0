"""Quantized layers in the file formats of other systems."""

from lattq.export import coreml

__all__ = ["coreml"]
