"""Distillation with codes frozen: what a quantized model still can learn, and how it learns it from the dense one."""

from lattq.llm.distill.divergence import divergence, log_probabilities
from lattq.llm.distill.factors import FrozenCodes
from lattq.llm.distill.record import Distillation, Epoch, Refining
from lattq.llm.distill.student import Student
from lattq.llm.distill.training import distill

__all__ = [
    "Distillation",
    "Epoch",
    "FrozenCodes",
    "Refining",
    "Student",
    "distill",
    "divergence",
    "log_probabilities",
]
