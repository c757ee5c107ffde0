"""Trellis codes: sequences of integers with a second moment near that of a ball, found by the Viterbi algorithm."""

from lattq.trellis.coder import EntropyCodedTrellis
from lattq.trellis.codes import TrellisCode, segments
from lattq.trellis.viterbi import best_path

__all__ = ["EntropyCodedTrellis", "TrellisCode", "best_path", "segments"]
