"""How well a model predicts, and how far it strays from another."""

from lattq.llm.evaluation.evaluate import Evaluation, evaluate

__all__ = [
    "Evaluation",
    "evaluate",
]
