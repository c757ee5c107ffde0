"""A random Llama small enough for every test, with the tokenizer of the embedded model."""

from pathlib import Path
from typing import Any

import transformers

from lattq import llm


def tiny_config(**changes: Any) -> transformers.LlamaConfig:
    """Grouped queries, 64 wide."""
    options = {
        "vocab_size": 2048,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    return transformers.LlamaConfig(**{**options, **changes})


def save_tokenizer(directory: Path) -> None:
    """Save the embedded model's tokenizer."""
    transformers.AutoTokenizer.from_pretrained(llm.embedded_model()).save_pretrained(directory)
