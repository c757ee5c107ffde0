"""What the unquantized model says of its layers: second moments of inputs, sensitivities of outputs."""

from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.measure.model import measure_model
from lattq.llm.measure.moments import InputMoments, forward_batches, reached
from lattq.llm.measure.sensitivity import output_sensitivities
from lattq.llm.measure.statistics import LayerStatistics, Statistics

__all__ = [
    "BlockStream",
    "InputMoments",
    "LayerStatistics",
    "Statistics",
    "forward_batches",
    "measure_model",
    "output_sensitivities",
    "reached",
]
