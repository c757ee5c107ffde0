"""Tiny random decoders of every architecture with a table of places, their directories, and random maps."""

import copy
import functools
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from lattq.llm.source.place import Place
from lattq.llm.tune.maps import centred

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2}
WIDE = GROUPED | {"head_dim": 16}
# What makes each architecture more than a Llama: biases, sliding windows, wide heads, some channels without rotation.
OWN: dict[str, dict[str, Any]] = {
    "gemma": WIDE,
    "gemma2": WIDE | {"query_pre_attn_scalar": 16, "sliding_window": 6},
    "llama": GROUPED | {"attention_bias": True, "mlp_bias": True},
    "mistral": GROUPED | {"sliding_window": 6},
    "opt": {"ffn_dim": 48, "dropout": 0.0},
    "phi3": GROUPED | {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5}},
    "qwen2": GROUPED,
    "qwen3": WIDE,
}
TIED = ("gemma", "opt")
TOKENS = torch.randint(2, 64, (2, 12), generator=torch.Generator().manual_seed(1))


@functools.cache
def _model(kind: str) -> Any:
    options: dict[str, Any] = SMALL | OWN[kind] | {"tie_word_embeddings": kind in TIED}
    config = transformers.CONFIG_MAPPING[kind](**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            # No gain is 1, no bias 0, attention is far from uniform, and logits are of order 1.
            scale = 0.3 if parameter.ndim == 1 else parameter.shape[1] ** -0.5
            parameter.data = scale * torch.randn_like(parameter)
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight") and "gemma" not in kind:
                parameter.data += 1
    return model.eval()


def decoder(kind: str) -> Any:
    """A model of an architecture, in float32; the same numbers each time."""
    return copy.deepcopy(_model(kind))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """For all tokens of two short texts."""
    return model(TOKENS).logits


def random_map(place: Place, structure: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers for a map, far from the identity and well-conditioned."""
    n = place.channels
    signs = rng.choice([-1.0, 1.0], n)
    orthogonal, _ = np.linalg.qr(rng.standard_normal((place.heads, place.size, place.size)))
    if structure in ("rotation", "centred_rotation"):
        return orthogonal[0] if structure == "rotation" else centred(orthogonal[0])
    found = {
        "diagonal": lambda: signs * rng.uniform(0.4, 2.5, n),
        "positive": lambda: rng.uniform(0.4, 2.5, n),
        "permutation": lambda: rng.permutation(n),
        "heads": lambda: orthogonal * rng.uniform(0.5, 2.0, (place.heads, 1, place.size)) @ orthogonal[::-1],
        "rotary": lambda: (
            rng.uniform(0.5, 2, (place.heads, place.pairs)) * np.exp(6j * rng.random((place.heads, place.pairs)))
        ),
        "pairs": lambda: signs[: place.pairs] * rng.uniform(0.5, 2, place.pairs),
    }
    return found[structure]()


def save_decoder(model: Any, directory: Path) -> None:
    """A directory with a tokenizer of 64 characters beside the model."""
    model.save_pretrained(directory)
    letters = {letter: index + 2 for index, letter in enumerate(string.ascii_letters + " .,;:'!?-")}
    whole = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters | {"<s>": 0, "</s>": 1}, unk_token="."))
    whole.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=whole).save_pretrained(directory)


def load_decoder(directory: Path) -> Any:
    """The model of a directory, in float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


READ = """
import sys, torch, transformers
from pathlib import Path
transformers.utils.logging.disable_progress_bar()
for path in Path(sys.argv[1]).iterdir():
    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        torch.save((type(model).__name__, model(torch.load(path / "tokens")).logits), path / "logits")
assert not any(name.startswith("lattq") for name in sys.modules)
"""


def read_without_lattq(folder: Path) -> dict[str, tuple[str, torch.Tensor]]:
    """Class and logits of each directory of a folder: one process reads them all, for it has to import transformers."""
    paths = list(folder.iterdir())
    for path in paths:
        torch.save(TOKENS, path / "tokens")
    subprocess.run([sys.executable, "-W", "ignore", "-c", READ, str(folder)], check=True, cwd=folder)
    return {path.name: torch.load(path / "logits") for path in paths}
