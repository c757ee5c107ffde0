"""Classes of models of which tiny random ones are made: the options of their configs."""

from typing import Any

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:!?'-\n"
SPECIAL = ("[PAD]", "[UNK]")
VOCABULARY = len(CHARACTERS) + len(SPECIAL)

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
SSM |= {"bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
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
    "T5EncoderModel": (
        "encoder",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
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
    "RwkvForCausalLM": (
        "recurrent",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 48}
        | {"num_hidden_layers": 4, "rescale_every": 2, "context_length": 64},
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
