"""Contract suites: the laws that every quantizer, transform and coder obeys.

A concrete test class inherits a suite and supplies instances; the laws come with it::

    class TestUniform(QuantizerContract):
        def quantizer(self, xp):
            return UniformQuantizer(step=xp.asarray([[0.5]]))

`check_quantizer` and its like run the same suites on one part, without pytest.
"""

from lattq.testing.coder_laws import CoderContract
from lattq.testing.quantizer_laws import QuantizerContract
from lattq.testing.strategies import law
from lattq.testing.streams import stream_bits
from lattq.testing.transform_laws import TransformContract

__all__ = ["CoderContract", "QuantizerContract", "TransformContract", "law", "stream_bits"]
