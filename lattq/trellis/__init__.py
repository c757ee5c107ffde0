"""Trellis codes, searched by the Viterbi algorithm: integers near a ball, and Gaussian numbers at a fixed rate."""

from lattq.trellis.bitshift import BitshiftCode
from lattq.trellis.coder import EntropyCodedTrellis
from lattq.trellis.codes import TrellisCode, segments
from lattq.trellis.viterbi import best_path

__all__ = ["BitshiftCode", "EntropyCodedTrellis", "TrellisCode", "best_path", "segments"]
