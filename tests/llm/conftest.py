"""A tiny language model with a tokenizer, made on the fly, and its quantized directory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lattq import llm, recipes
from lattq.llm.run.digests import digest_of_config
from tests.llm.decoders import OWN, decoder, save_decoder
from tests.tiny import save_tokenizer, tiny_config

TEXT = llm.embedded_text("calibration")[:40_000]
SHORT: dict[str, Any] = {"calibration_text": TEXT[:4000], "window": 32, "samples": 16}


def change_config(directory: Path, change: Callable[[dict[str, Any]], Any], *, forged: bool = False) -> None:
    """Change `config.json` of a quantized directory; a forger writes the digest that fits."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    if forged:
        config["quantization_config"]["config_digest"] = digest_of_config(config)
    path.write_text(json.dumps(config))


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    transformers.utils.logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random Llama: two blocks, grouped queries, biases, bfloat16, an untied head."""
    torch.manual_seed(0)
    config = tiny_config(num_hidden_layers=2, attention_bias=True, tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5)
    model.lm_head.weight.data *= 20  # else all tokens are equally likely whatever the blocks do
    directory = tmp_path_factory.mktemp("models") / "tiny"
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of each architecture with a table of places."""
    folder = tmp_path_factory.mktemp("decoders")
    for kind in OWN:
        save_decoder(decoder(kind), folder / kind)
    return folder


@pytest.fixture(scope="session")
def quantized(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model at a fixed step."""
    out = tmp_path_factory.mktemp("quantized") / "out"
    options = {"recipe": recipes.huffman_gptq, "step": 0.02, "samples": 4, "calibration_text": TEXT}
    llm.quantize_model(tiny, out, **options)
    return out
