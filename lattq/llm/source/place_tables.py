"""The places of each architecture, as tables. Read `lattq.llm.source.place` first: it says what a place is.

Names of modules are those below the base model, except `lm_head`; a star stands for a block.
"""

from typing import Any

from lattq.llm.source.place import Architecture, Location, Part, Place, Site

__all__ = ["ARCHITECTURES", "HEAD"]

HEAD = "lm_head"


def _gains(*modules: str) -> tuple[Site, ...]:
    return tuple(Site(module, Location.GAIN) for module in modules)


def _reads(*modules: str) -> tuple[Site, ...]:
    return tuple(Site(module, Location.WEIGHT_INPUT) for module in modules)


def _writes(*modules: str) -> tuple[Site, ...]:
    return tuple(Site(module, Location.WEIGHT_OUTPUT) for module in modules)


def _norm(name: str, gain: str, *readers: str, **more: Any) -> Place:
    """A place between a norm and its readers: diagonals are exact there."""
    return Place(name, ("diagonal",), forward=_gains(gain), inverse=_reads(*readers), online=Location.INPUT, **more)


def _with(table: tuple[Place, ...], *rows: Place) -> tuple[Place, ...]:
    """A table with some rows in place of those of the same names."""
    new = {row.name: row for row in rows}
    return tuple(new.get(row.name, row) for row in table)


_QKV = ("*.self_attn.q_proj", "*.self_attn.k_proj", "*.self_attn.v_proj")
_GATE_UP = ("*.mlp.gate_proj", "*.mlp.up_proj")

LLAMA = (
    _norm("*.attention_input", "*.input_layernorm", *_QKV, shift="undone"),
    Place(
        "*.keys",
        ("rotary",),
        forward=_writes("*.self_attn.k_proj"),
        inverse=_writes("*.self_attn.q_proj"),
        per_head=True,
        online=Location.K_CACHE,
    ),
    Place(
        "*.values",
        ("diagonal", "heads"),
        forward=_writes("*.self_attn.v_proj"),
        inverse=_reads("*.self_attn.o_proj"),
        per_head=True,
        shift="undone",
        online=Location.INPUT,
    ),
    _norm("*.mlp_input", "*.post_attention_layernorm", *_GATE_UP, shift="undone"),
    Place(
        "*.mlp_hidden",
        ("diagonal", "permutation"),
        forward=_writes("*.mlp.up_proj"),
        inverse=_reads("*.mlp.down_proj"),
        gates=_writes("*.mlp.gate_proj"),
        online=Location.INPUT,
    ),
    _norm("head_input", "norm", HEAD),
    Place(
        "residual",
        ("permutation", "rotation"),
        forward=_writes("embed_tokens", "*.self_attn.o_proj", "*.mlp.down_proj"),
        inverse=_reads(*_QKV, *_GATE_UP, HEAD),
        norms=_gains("*.input_layernorm", "*.post_attention_layernorm", "norm"),
    ),
)

QWEN3 = _with(
    LLAMA,
    Place(
        "*.keys",
        ("pairs",),
        forward=_gains("*.self_attn.k_norm"),
        inverse=_gains("*.self_attn.q_norm"),
        online=Location.K_CACHE,
    ),
)

_FUSED = {
    "*.self_attn.q_proj": ("*.self_attn.qkv_proj", Part("qkv", 0)),
    "*.self_attn.k_proj": ("*.self_attn.qkv_proj", Part("qkv", 1)),
    "*.self_attn.v_proj": ("*.self_attn.qkv_proj", Part("qkv", 2)),
    "*.mlp.gate_proj": ("*.mlp.gate_up_proj", Part("halves", 0)),
    "*.mlp.up_proj": ("*.mlp.gate_up_proj", Part("halves", 1)),
}


def _fused(site: Site) -> tuple[Site, ...]:
    """The site in a model that stacks layers with the same inputs: one layer reads for all of them."""
    if site.module not in _FUSED:
        return (site,)
    module, part = _FUSED[site.module]
    if site.location is Location.WEIGHT_OUTPUT:
        return (site._replace(module=module, part=part),)
    return (site._replace(module=module),) if part.index == 0 else ()


PHI3 = tuple(place.changed(_fused) for place in LLAMA)


def _one_plus(site: Site) -> tuple[Site, ...]:
    """Gains of Gemma are 1 + weight."""
    return (site._replace(plus=1.0) if site.location is Location.GAIN else site,)


# Norms behind attention and MLP write into the stream, with gains that no layer behind them could take.
_GEMMA2_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
GEMMA = tuple(place.changed(_one_plus) for place in LLAMA)
GEMMA2 = tuple(
    place.changed(_one_plus)
    for place in _with(
        LLAMA,
        _norm("*.mlp_input", "*.pre_feedforward_layernorm", *_GATE_UP, shift="undone"),
        Place(
            "residual",
            ("permutation",),
            forward=_writes("embed_tokens", "*.self_attn.o_proj", "*.mlp.down_proj"),
            inverse=_reads(*_QKV, *_GATE_UP, HEAD),
            norms=_gains(*(f"*.{name}" for name in _GEMMA2_NORMS), "norm"),
        ),
    )
)

_OPT_QKV = ("*.self_attn.k_proj", "*.self_attn.v_proj", "*.self_attn.q_proj")
_BEFORE = (("do_layer_norm_before", True),)
_LAST = (*_BEFORE, ("_remove_final_layer_norm", False))

OPT = (
    _norm("*.attention_input", "*.self_attn_layer_norm", *_OPT_QKV, shift="undone", requires=_BEFORE),
    Place(
        "*.keys",
        ("diagonal", "heads"),
        forward=_writes("*.self_attn.k_proj"),
        inverse=_writes("*.self_attn.q_proj"),
        per_head=True,
        shift="free",
        online=Location.K_CACHE,
    ),
    Place(
        "*.values",
        ("diagonal", "heads"),
        forward=_writes("*.self_attn.v_proj"),
        inverse=_reads("*.self_attn.out_proj"),
        per_head=True,
        shift="undone",
        online=Location.INPUT,
    ),
    _norm("*.mlp_input", "*.final_layer_norm", "*.fc1", shift="undone", requires=_BEFORE),
    Place(
        "*.mlp_hidden",
        ("positive", "permutation"),
        forward=_writes("*.fc1"),
        inverse=_reads("*.fc2"),
        online=Location.INPUT,
        requires=(("activation_function", "relu"),),
    ),
    Place(
        "*.mlp_hidden",
        ("permutation",),
        forward=_writes("*.fc1"),
        inverse=_reads("*.fc2"),
        online=Location.INPUT,
    ),
    _norm("head_input", "decoder.final_layer_norm", HEAD, requires=_LAST),
    Place(
        "residual",
        ("permutation", "centred_rotation"),
        forward=_writes("decoder.embed_tokens", "decoder.embed_positions", "*.self_attn.out_proj", "*.fc2"),
        inverse=_reads(*_OPT_QKV, "*.fc1", HEAD),
        norms=_gains("*.self_attn_layer_norm", "*.final_layer_norm", "decoder.final_layer_norm"),
        requires=_LAST,
    ),
)

ARCHITECTURES = {
    "gemma": Architecture("layers", GEMMA),
    "gemma2": Architecture("layers", GEMMA2),
    "llama": Architecture("layers", LLAMA),
    "mistral": Architecture("layers", LLAMA),
    "opt": Architecture("decoder.layers", OPT),
    "phi3": Architecture("layers", PHI3),
    "qwen2": Architecture("layers", LLAMA),
    "qwen3": Architecture("layers", QWEN3),
}
