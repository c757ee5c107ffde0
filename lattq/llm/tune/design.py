"""The interface of designs of maps for whole models: see `lattq.llm.source.design`, which conversions can import too."""

from lattq.llm.source.design import Chain, FoldedMap, Kept, MapDesign

__all__ = ["Chain", "FoldedMap", "Kept", "MapDesign"]
