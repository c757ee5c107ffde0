"""What the unquantized model says of its layers: second moments of inputs, sensitivities of outputs."""

from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.measure.moments import InputMoments, forward_batches, reached
from lattq.llm.measure.sensitivity import output_sensitivities

__all__ = [
    "BlockStream",
    "InputMoments",
    "forward_batches",
    "output_sensitivities",
    "reached",
]
