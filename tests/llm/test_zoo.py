"""A dozen classes: what is loaded computes with the decoded weights, and the report accounts for every byte."""

from pathlib import Path

import pytest

from benchmarks.architectures import Outcome, outcome
from benchmarks.classes import ZOO

QUICK = (
    "Gemma3ForCausalLM",
    "GPT2LMHeadModel",
    "MptForCausalLM",
    "LlamaForSequenceClassification",
    "RobertaForMaskedLM",
    "AlbertForMaskedLM",
    "T5EncoderModel",
    "RwkvForCausalLM",
    "MixtralForCausalLM",
    "GptOssForCausalLM",
    "Llama4ForCausalLM",
    "JetMoeForCausalLM",
    "JambaForCausalLM",
    "LlavaForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
)
EXPERTS = {"MixtralForCausalLM", "GptOssForCausalLM", "Llama4ForCausalLM", "JetMoeForCausalLM"}
# Products of the same numbers in another order, through a few blocks: GPT-2 multiplies its transposed weights.
ROUNDING = 1e-4


@pytest.fixture(scope="module", params=QUICK)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome(request.param, tmp_path_factory.mktemp(request.param))


def test_a_loaded_class_computes_with_its_decoded_weights(found: Outcome):
    assert found.error is None
    assert found.largest_difference < ROUNDING
    assert found.moved > 100 * ROUNDING  # the outputs would show it


def test_the_rate_of_a_class_is_that_of_its_files(found: Outcome):
    assert found.counted_rate == pytest.approx(found.rate, rel=1e-12)


def test_every_byte_is_a_payload_or_listed(found: Outcome):
    assert found.unlisted == 0


def test_experts_are_quantized(found: Outcome):
    if found.name in EXPERTS:  # a third at most is attention, norms and embeddings
        assert found.quantized_share > 2 / 3


def test_towers_without_inputs_stay_dense_and_are_listed(found: Outcome):
    assert (found.unreached > 0) == (ZOO[found.name][0] in ("vision", "state space"))


@pytest.mark.parametrize("name", ["MambaForCausalLM", "Mamba2ForCausalLM"])
def test_a_class_may_ask_a_quantized_head_for_its_dtype(name: str, tmp_path: Path):
    """These cast what they give to the head to the dtype of its weight."""
    found = outcome(name, tmp_path, ["lm_head", "*.0.mixer.in_proj"])
    assert found.error is None
    assert found.largest_difference < ROUNDING
    assert 100 * ROUNDING < found.moved < 1
