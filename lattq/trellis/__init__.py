"""Trellis codes, searched by the Viterbi algorithm: integers near a ball, and Gaussian numbers at a fixed rate."""

from lattq.trellis.bitshift import BitshiftCode
from lattq.trellis.codes import TrellisCode
from lattq.trellis.viterbi import best_path

__all__ = ["BitshiftCode", "TrellisCode", "best_path"]
