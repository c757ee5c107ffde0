"""The interface of designs of maps for whole models, of `lattq.llm.source.design`, which conversions import too."""

from lattq.llm.source.design import Chain, FoldedMap, Kept, MapDesign

__all__ = ["Chain", "FoldedMap", "Kept", "MapDesign"]
