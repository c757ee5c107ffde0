"""Successive cancellation: one loop, and the rules that tell it what to feed back."""

from lattq.feedback.elementwise import ElementwiseCholesky
from lattq.feedback.loop import GAIN_GRID, Cancellation, successive_cancellation
from lattq.feedback.rules import MMSE, Cholesky, Feedback, NoisyInputs, OpenLoop, column_scale

__all__ = [
    "GAIN_GRID",
    "MMSE",
    "Cancellation",
    "Cholesky",
    "ElementwiseCholesky",
    "Feedback",
    "NoisyInputs",
    "OpenLoop",
    "column_scale",
    "successive_cancellation",
]
