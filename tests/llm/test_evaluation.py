"""Perplexity, divergence and strides against plain formulas."""

import math
from pathlib import Path

import pytest
import torch
import transformers

from benchmarks.architectures import save_source
from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.source import load_model, load_tokenizer
from tests.llm.conftest import TEXT
from tests.tiny import save_tokenizer

SHORT = TEXT[:3000]


@pytest.fixture(scope="module")
def models(tiny: Path, quantized: Path):
    """Both models, the tokenizer and the tokens of a short text."""
    tokenizer = load_tokenizer(tiny)
    tokens = tokenizer(SHORT)["input_ids"]
    return *(load_model(path, torch.float32) for path in (tiny, quantized)), tokenizer, tokens


@torch.no_grad()
def logs(model, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token after each of `tokens`, in float64."""
    return torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)


def test_disjoint_windows(models, tiny: Path, quantized: Path):
    dense, ours, _, tokens = models
    found = llm.evaluate(quantized, SHORT, reference=tiny, window=40)
    loss = divergence = agreement = count = 0
    for start in range(0, len(tokens) - 39, 40):
        part = tokens[start : start + 40]
        q, p = logs(ours, part)[:-1], logs(dense, part)[:-1]
        loss -= sum(float(row[token]) for row, token in zip(q, part[1:], strict=True))
        divergence += float((p.exp() * (p - q)).sum())
        agreement += int((p.argmax(-1) == q.argmax(-1)).sum())
        count += 39
    assert found.tokens == count
    assert found.loss_nats == pytest.approx(loss / count, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(loss / count), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(
        loss / count / math.log(2) * len(tokens) / len(SHORT.encode()), rel=1e-5
    )
    # Log-probabilities near -8 carry 5e-7 of float32 rounding; the mean over tokens and predictions shrinks it.
    assert found.kl_bits_per_token == pytest.approx(divergence / count / math.log(2), rel=1e-3, abs=2e-7)
    assert found.kl_bits_per_token is not None
    assert found.kl_bits_per_token > 0
    assert found.top1_agreement == agreement / count
    assert found.mean_cosine is None


def test_a_stride_predicts_each_token_once_with_more_context(models):
    _, ours, tokenizer, tokens = models
    found = llm.evaluate(ours, SHORT, tokenizer=tokenizer, window=40, stride=15)
    loss = count = done = 0
    for start in range(0, len(tokens) - 39, 15):
        part = logs(ours, tokens[start : start + 40])
        first = max(done, 1)
        for position in range(first, start + 40):
            loss -= float(part[position - start - 1][tokens[position]])
            count += 1
        done = start + 40
    assert found.tokens == count == done - 1
    assert found.loss_nats == pytest.approx(loss / count, rel=1e-5)
    assert found.kl_bits_per_token is None


def test_a_model_does_not_diverge_from_itself(models):
    dense, _, tokenizer, _ = models
    found = llm.evaluate(dense, SHORT, reference=dense, tokenizer=tokenizer)
    assert (found.kl_bits_per_token, found.top1_agreement) == (0.0, 1.0)


def test_more_bits_diverge_less(models, tiny: Path, quantized: Path, tmp_path: Path):
    options = {"recipe": recipes.huffman_gptq, "samples": 4, "calibration_text": TEXT}
    llm.quantize_model(tiny, tmp_path / "rough", step=0.08, **options)
    rough, fine = (llm.evaluate(path, SHORT, reference=tiny) for path in (tmp_path / "rough", quantized))
    assert rough.kl_bits_per_token is not None
    assert fine.kl_bits_per_token is not None
    assert rough.kl_bits_per_token > 4 * fine.kl_bits_per_token > 0


def test_unusable_arguments_raise(models, tiny: Path):
    dense, _, tokenizer, _ = models
    with pytest.raises(InvalidInputError, match="`tokenizer` is needed"):
        llm.evaluate(dense, SHORT)
    with pytest.raises(InvalidInputError, match="empty"):
        llm.evaluate(tiny, "")
    with pytest.raises(InvalidInputError, match="one window takes 64"):
        llm.evaluate(tiny, "short")
    with pytest.raises(InvalidInputError, match="`stride` is 0"):
        llm.evaluate(tiny, SHORT, stride=0)
    with pytest.raises(InvalidInputError, match="`reference`"):
        llm.evaluate(dense.model, SHORT, tokenizer=tokenizer)
    with pytest.raises(InvalidInputError, match="choose"):
        llm.embedded_text("training")


@pytest.mark.parametrize(
    "name",
    ["LlamaForSequenceClassification", "BertForQuestionAnswering", "BertForMaskedLM", "DistilBertModel"],
)
def test_models_that_predict_no_next_token_are_compared_by_hidden_states(name: str, tmp_path: Path):
    save_source(name, tmp_path)
    found = llm.evaluate(tmp_path, SHORT, reference=tmp_path, window=24)
    assert found.perplexity is None
    assert found.mean_cosine == pytest.approx(1, abs=1e-12)
    with pytest.raises(InvalidInputError, match="predicts no next token; give"):
        llm.evaluate(tmp_path, SHORT, window=24)


def test_a_reference_of_another_vocabulary_raises(models, tmp_path: Path):
    save_source("GPT2LMHeadModel", tmp_path)
    wider = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    wider.resize_token_embeddings(80, mean_resizing=False)
    with pytest.raises(InvalidInputError, match=r"predicts 64 tokens, the reference 80"):
        llm.evaluate(tmp_path, SHORT, reference=wider, window=24)
    narrow = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    dense, _, tokenizer, _ = models
    with pytest.raises(
        InvalidInputError, match=r"token \d+, and GPT2LMHeadModel has a vocabulary of 64; use the token"
    ):
        llm.evaluate(dense, SHORT, reference=narrow, tokenizer=tokenizer, window=24)


def test_a_tokenizer_with_more_tokens_than_its_model_raises(tmp_path: Path):
    save_source("GPT2LMHeadModel", tmp_path / "source")
    save_tokenizer(tmp_path / "source")
    with pytest.raises(InvalidInputError, match=r"GPT2.* has a vocabulary of 64; use the tokenizer of this model"):
        llm.quantize_model(tmp_path / "source", tmp_path / "out", calibration_text=TEXT, step=0.1, window=24, samples=2)


def test_a_reference_of_another_kind_raises(models, tmp_path: Path):
    dense, _, tokenizer, _ = models
    answers, hidden = tmp_path / "answers", tmp_path / "hidden"
    save_source("BertForQuestionAnswering", answers)
    save_source("XLMRobertaModel", hidden)
    with pytest.raises(
        InvalidInputError, match="BertForQuestionAnswering as `reference` of LlamaForCausalLM: it predic"
    ):
        llm.evaluate(dense, SHORT, reference=answers, tokenizer=tokenizer, window=24)
    for other in (dense, hidden):
        with pytest.raises(InvalidInputError, match=r"of BertForQuestionAnswering: .* nothing in common"):
            llm.evaluate(answers, SHORT, reference=other, window=24)
    base = load_model(answers).base_model
    assert llm.evaluate(answers, SHORT, reference=base, window=24).mean_cosine == pytest.approx(1, abs=1e-12)
