"""Tiny random models of many classes: each is quantized, loaded again and compared with what it should be."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers.pre_tokenizers import Split

from lattq import llm, recipes
from lattq.errors import LattqError
from lattq.llm.source import matrices

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:!?'-\n"
SPECIAL = ("[PAD]", "[UNK]")
VOCABULARY = len(CHARACTERS) + len(SPECIAL)
WINDOW, SAMPLES, STEP, GAIN = 24, 6, 0.05, 6

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = GROUPED | {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DEEPSEEK = GROUPED | {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPT2 |= {"bos_token_id": None, "eos_token_id": None}
ROTARY = GPT2 | {"rotary_dim": 4}
ENCODER = TEXT | {"max_position_embeddings": 66, "pad_token_id": 1}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 32,
}
QWEN_VISION = {
    "depth": 3,
    "hidden_size": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "num_heads": 4,
    "patch_size": 8,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
SSM = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "pad_token_id": 0}
SSM |= {"bos_token_id": None, "eos_token_id": None}
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_n_groups": 1}
MAMBA |= {"mamba_chunk_size": 8, "mamba_d_conv": 4}

# Class: kind and options of its config.
ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "LlamaForCausalLM": ("decoder", GROUPED),
    "MistralForCausalLM": ("decoder", GROUPED | {"sliding_window": 8}),
    "Qwen2ForCausalLM": ("decoder", GROUPED),
    "Qwen3ForCausalLM": ("decoder", GROUPED),
    "GemmaForCausalLM": ("decoder", GROUPED),
    "Gemma2ForCausalLM": ("decoder", GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 8}),
    "Gemma3ForCausalLM": ("decoder", GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 8}),
    "PhiForCausalLM": ("decoder", TEXT | {"partial_rotary_factor": 0.5}),
    "Phi3ForCausalLM": ("decoder", GROUPED),
    "StableLmForCausalLM": ("decoder", GROUPED),
    "FalconForCausalLM": ("decoder", TEXT | {"new_decoder_architecture": False}),
    "GPTNeoXForCausalLM": ("decoder", TEXT),
    "GPTNeoForCausalLM": ("decoder", TEXT | {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]}),
    "GPT2LMHeadModel": ("decoder", GPT2),
    "GPTBigCodeForCausalLM": ("decoder", GPT2),
    "GPTJForCausalLM": ("decoder", ROTARY),
    "CodeGenForCausalLM": ("decoder", ROTARY),
    "MptForCausalLM": (
        "decoder",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
    ),
    "BloomForCausalLM": ("decoder", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "OPTForCausalLM": ("decoder", TEXT | {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    "BioGptForCausalLM": ("decoder", TEXT),
    "CohereForCausalLM": ("decoder", GROUPED),
    "Cohere2ForCausalLM": ("decoder", GROUPED | {"sliding_window": 8}),
    "OlmoForCausalLM": ("decoder", GROUPED),
    "Olmo2ForCausalLM": ("decoder", GROUPED),
    "GraniteForCausalLM": ("decoder", GROUPED),
    "Glm4ForCausalLM": ("decoder", GROUPED),
    "SmolLM3ForCausalLM": ("decoder", GROUPED),
    "BartForCausalLM": (
        "decoder",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            "is_encoder_decoder": False,
            "is_decoder": True,
            "pad_token_id": 0,
        },
    ),
    "LlamaForSequenceClassification": ("head", GROUPED | {"pad_token_id": None}),
    "BertForQuestionAnswering": ("head", TEXT),
    "RobertaForTokenClassification": ("head", ENCODER),
    "BertForMaskedLM": ("encoder", TEXT),
    "BertModel": ("encoder", TEXT),
    "RobertaForMaskedLM": ("encoder", ENCODER),
    "XLMRobertaModel": ("encoder", ENCODER),
    "MPNetForMaskedLM": ("encoder", ENCODER),
    "DistilBertModel": (
        "encoder",
        {
            "vocab_size": VOCABULARY,
            "dim": 32,
            "hidden_dim": 48,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    "AlbertForMaskedLM": ("encoder", TEXT | {"embedding_size": 16}),
    "ElectraForPreTraining": ("encoder", TEXT | {"embedding_size": 16}),
    "DebertaModel": ("encoder", TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "DebertaV2ForMaskedLM": ("encoder", TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "ModernBertForMaskedLM": ("encoder", TEXT | {"cls_token_id": 0, "sep_token_id": 0, "local_attention": 8}),
    "XLNetLMHeadModel": (
        "encoder",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    ),
    "MixtralForCausalLM": ("experts", EXPERTS),
    "Qwen2MoeForCausalLM": ("experts", EXPERTS | {"shared_expert_intermediate_size": 24}),
    "Qwen3MoeForCausalLM": ("experts", EXPERTS),
    "OlmoeForCausalLM": ("experts", EXPERTS),
    "DeepseekV2ForCausalLM": ("experts", DEEPSEEK),
    "DeepseekV3ForCausalLM": ("experts", DEEPSEEK),
    "GptOssForCausalLM": ("experts", EXPERTS),
    "PhimoeForCausalLM": ("experts", EXPERTS),
    "GraniteMoeForCausalLM": ("experts", EXPERTS),
    "Llama4ForCausalLM": ("experts", EXPERTS | {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 1}),
    "JetMoeForCausalLM": ("experts", EXPERTS | {"kv_channels": 8, "num_key_value_heads": 4}),
    "DbrxForCausalLM": (
        "experts",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 64,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
            "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
        },
    ),
    "MambaForCausalLM": ("state space", SSM),
    "Mamba2ForCausalLM": ("state space", SSM | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}),
    "FalconMambaForCausalLM": ("state space", SSM),
    "JambaForCausalLM": (
        "state space",
        EXPERTS
        | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
        | {"mamba_d_state": 8, "mamba_dt_rank": 8, "use_mamba_kernels": False},
    ),
    "BambaForCausalLM": ("state space", GROUPED | MAMBA | {"attn_layer_indices": [1]}),
    "FalconH1ForCausalLM": ("state space", GROUPED | MAMBA | {"mamba_d_ssm": 64}),
    "Zamba2ForCausalLM": (
        "state space",
        TEXT
        | {"layers_block_type": ["mamba", "hybrid", "hybrid"], "num_hidden_layers": 3, "n_mamba_heads": 4}
        | {"mamba_d_state": 8, "chunk_size": 8, "adapter_rank": 4},
    ),
    "GraniteMoeHybridForCausalLM": (
        "state space",
        EXPERTS | MAMBA | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 24},
    ),
    "LlavaForConditionalGeneration": (
        "vision",
        {
            "text_config": {"model_type": "llama", **GROUPED},
            "vision_config": {"model_type": "clip_vision_model", **CLIP},
            "image_token_index": 1,
        },
    ),
    "LlavaNextForConditionalGeneration": (
        "vision",
        {
            "text_config": {"model_type": "mistral", **GROUPED},
            "vision_config": {"model_type": "clip_vision_model", **CLIP},
            "image_token_index": 1,
        },
    ),
    "Qwen2VLForConditionalGeneration": (
        "vision",
        {"text_config": GROUPED | MROPE, "vision_config": QWEN_VISION | {"hidden_size": 32, "mlp_ratio": 2}},
    ),
    "Qwen3VLForConditionalGeneration": ("vision", {"text_config": GROUPED | MROPE, "vision_config": QWEN_VISION}),
    "Gemma3ForConditionalGeneration": (
        "vision",
        {
            "text_config": GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 8},
            "vision_config": {**CLIP, "num_hidden_layers": 2},
            "mm_tokens_per_image": 4,
        },
    ),
    "Idefics3ForConditionalGeneration": (
        "vision",
        {
            "text_config": {"model_type": "llama", **GROUPED},
            "vision_config": CLIP,
            "image_token_id": 1,
            "pad_token_id": 0,
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one class.

    Attributes
    ----------
    name, kind : of the class
    quantized_share : of the model's weights
    rate : bits per quantized weight as reported
    counted_rate : the same from the sizes of the files
    largest_difference : of any output from that of the dense model with the decoded weights, over its largest
    moved : largest difference of any output from that of the source, over its largest
    dense : share of the weight files by reason
    unlisted : bytes of the weight file that are neither in its header, nor payloads, nor of a tensor that is listed
    unreached : how many layers no calibration input reached
    seconds : of the conversion
    error : of lattq, if the class cannot be quantized
    """

    name: str
    kind: str
    quantized_share: float = 0.0
    rate: float = 0.0
    counted_rate: float = 0.0
    largest_difference: float = 0.0
    moved: float = 0.0
    dense: dict[str, float] = dataclasses.field(default_factory=dict)
    unlisted: int = 0
    unreached: int = 0
    seconds: float = 0.0
    error: str | None = None


def save_source(name: str, directory: Path) -> None:
    """A random model of a class, and a tokenizer of single characters."""
    kind: Any = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**ZOO[name][1])).eval()
    for matrix in matrices(model).values():
        matrix.write(GAIN * matrix.weight)  # outputs that mind an error
    model.save_pretrained(directory)
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split("", "isolated")  # type: ignore[assignment]
    options: dict[str, Any] = {"tokenizer_object": tokenizer, "pad_token": "[PAD]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(**options).save_pretrained(directory)


def outcome(name: str, folder: Path) -> Outcome:
    """Quantize a class, load the result, compare."""
    kind: Any = getattr(transformers, name)
    with _quiet():
        save_source(name, folder / "source")
        try:
            report = llm.quantize_model(
                folder / "source",
                folder / "out",
                calibration_text=llm.embedded_text("calibration")[:20_000],
                recipe=recipes.huffman_gptq,
                step=STEP,
                samples=SAMPLES,
                window=WINDOW,
            )
        except LattqError as error:
            return Outcome(name, ZOO[name][0], error=str(error))
        source, dense, quantized = (
            kind.from_pretrained(folder / path, dtype=torch.float32).eval() for path in ("source", "source", "out")
        )
    write_decoded(dense, quantized)
    tokens = torch.arange(VOCABULARY)[len(SPECIAL) :][:WINDOW].repeat(2, 1)
    first, wanted, found = (_outputs(model, tokens) for model in (source, dense, quantized))
    total = sum(parameter.numel() for parameter in source.parameters())
    return Outcome(
        name,
        ZOO[name][0],
        quantized_share=report.weights / total,
        rate=report.rate,
        counted_rate=8 * counted_bytes(folder / "out") / report.weights,
        largest_difference=_distance(found, wanted),
        moved=_distance(found, first),
        dense=report.dense_shares(),
        unlisted=unlisted_bytes(folder / "out", report),
        unreached=sum(row.why == "no calibration input reached it" for row in report.dense),
        seconds=report.seconds,
    )


def write_decoded(dense: Any, quantized: Any) -> None:
    """Put the decoded weights of a quantized model into a dense one."""
    found, texts = matrices(dense), quantized.config.quantization_config.modules
    for name, module in quantized.named_modules():
        if isinstance(module, llm.LattqLinear):
            if found[name].routed:
                found[name].transposed = texts[name].endswith("T")
            found[name].write(module.dequantize())


def counted_bytes(directory: Path) -> int:
    """What the files hold less what they would hold without the quantized tensors and the block in the config."""
    blob = (directory / "model.safetensors").read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size].rstrip())
    kept = {key: entry for key, entry in header.items() if entry.get("dtype") != "U8"}
    data = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for key, entry in kept.items() if key[0] != "_")
    weights = len(blob[8 + size :]) + len(blob[8 : 8 + size].rstrip()) - data
    weights -= len(json.dumps(kept, separators=(",", ":")))
    config = json.loads((directory / "config.json").read_text())
    whole = len(json.dumps(config, indent=2))
    config.pop("quantization_config")
    return weights + whole - len(json.dumps(config, indent=2))


def unlisted_bytes(directory: Path, report: llm.Report) -> int:
    """Bytes of tensors in the weight file that are neither payloads nor listed as dense."""
    blob = (directory / "model.safetensors").read_bytes()
    size = int.from_bytes(blob[:8], "little")
    spans = [entry["data_offsets"] for entry in json.loads(blob[8 : 8 + size]).values() if entry.get("dtype") == "U8"]
    listed = round(sum(row.share for row in report.dense) * report.file_bytes)
    return len(blob) - 8 - size - sum(end - start for start, end in spans) - listed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@torch.no_grad()
def _outputs(model: Any, tokens: torch.Tensor) -> list[torch.Tensor]:
    model.config.pad_token_id = 0  # classifiers look for it
    output = model(input_ids=tokens)
    values = [output[key] for key in output]
    return [value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()]


def _distance(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))
