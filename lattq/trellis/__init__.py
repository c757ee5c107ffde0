"""Trellis codes: sequences of integers with a second moment near that of a ball, found by the Viterbi algorithm."""

from lattq.trellis.codes import TrellisCode
from lattq.trellis.viterbi import best_path

__all__ = ["TrellisCode", "best_path"]
