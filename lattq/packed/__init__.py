"""Products with a quantized matrix straight from its packed codes, on the host, in compiled code.

A product with one vector reads every weight once, so its time is that of the bytes: codes of four bits move an eighth
of what float32 moves. Codebooks of vectors move fewer still, but take one or two look-ups an index.
"""

from lattq.packed.matrix import PackedMatrix

__all__ = ["PackedMatrix"]
