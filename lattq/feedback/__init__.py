"""Successive cancellation: one loop, and the rules that tell it what to feed back."""

from lattq.feedback.loop import successive_cancellation
from lattq.feedback.rules import MMSE, Cholesky, OpenLoop

__all__ = ["MMSE", "Cholesky", "OpenLoop", "successive_cancellation"]
