"""Trellis codes, searched by the Viterbi algorithm: integers near a ball, and Gaussian numbers at a fixed rate."""

from lattq.trellis.coder import EntropyCodedTrellis
from lattq.trellis.codes import TrellisCode

__all__ = ["EntropyCodedTrellis", "TrellisCode"]
