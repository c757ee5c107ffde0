"""Designs of maps for whole models: what they promise of each place, that no logit changes, and what they refuse."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from lattq.affine import gain
from lattq.affine.scales import range_order
from lattq.errors import InvalidInputError
from lattq.llm.source.design import Chain, MapDesign
from lattq.llm.source.place_tables import ARCHITECTURES
from lattq.llm.source.places import places
from lattq.llm.tune import AWQ, Balanced, Reorder, Rotate, Shift, SmoothQuant, chain, untie
from lattq.llm.tune.folding import Draft
from lattq.llm.tune.statistics import Reading, chosen, readings
from lattq.progress import Stage
from tests.llm.decoders import TIED, TOKENS, decoder, logits

KINDS = sorted(ARCHITECTURES)
CLOSE = 1e-4  # of logits of order 1, in float32

NORMS = ("*.attention_input", "*.mlp_input")
ORDERED = ("*.mlp_hidden", "residual")
DESIGNS: dict[str, MapDesign] = {
    "smoothquant": SmoothQuant(),
    "smoothquant everywhere": SmoothQuant(places=(*NORMS, "*.values", "*.mlp_hidden")),
    "awq": AWQ(levels=4, group=20, points=5),
    "balanced": Balanced(),
    "rotate": Rotate(),
    "reorder": Reorder(clusters=4, restarts=2, places=ORDERED),
    "several": chain(Rotate(), Balanced(share=0.75), AWQ(levels=8, group=None, points=3, places=NORMS)),
}
NO_ROTATION = ("rotate", "several")


def designed(design: MapDesign, model: Any, windows: torch.Tensor = TOKENS) -> Any:
    """Rows of a design folded into a model."""
    return design(model, windows, work=Stage("maps"), keep={})


def read(model: Any, *patterns: str, windows: torch.Tensor = TOKENS) -> list[Reading]:
    """What reaches some places of a model now."""
    groups = readings(model, chosen(model, patterns), windows, Stage("read"))
    return [reading for group in groups for reading in group]


def moved(old: Reading, new: Reading) -> np.ndarray:
    """The second moment of old inputs after the scales that weights show: shrinkage does not commute with scales."""
    scales = np.linalg.norm(new.weight, axis=0) / np.linalg.norm(old.weight, axis=0)
    return old.sigma / np.outer(scales, scales)


CASES = [(kind, name) for kind in KINDS for name in DESIGNS if not (kind == "gemma2" and name in NO_ROTATION)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_design_keeps_the_logits(kind: str, name: str):
    model, tied = decoder(kind), kind in TIED
    before, weights = logits(model), {key: value.clone() for key, value in model.state_dict().items()}
    rows = designed(DESIGNS[name], model)
    assert (logits(model) - before).abs().max() < CLOSE
    new = {key for key, value in model.state_dict().items() if not torch.equal(value, weights[key])}
    changed = [row.place for row in rows if row.structure not in ("diagonal", "positive") or row.condition > 1]
    sites = {site.module for place in changed for site in places(model)[place].forward}
    assert len(changed) > len(rows) / 2
    assert {f"{module}.weight" for module in sites} <= new
    assert sum(row.added for row in rows) == (64 * 32 if tied and name in NO_ROTATION else 0)
    assert model.config.tie_word_embeddings == (tied and name not in NO_ROTATION)
    assert all(1 <= row.condition < 1e4 and row.values == 0 and row.design for row in rows)


def test_scales_of_smoothquant_are_those_of_its_formula():
    model = decoder("qwen2")
    layer = model.model.layers[1]
    seen: list[torch.Tensor] = []
    handle = layer.mlp.gate_proj.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    logits(model)
    handle.remove()
    peaks = seen[0].abs().amax(dim=(0, 1))
    columns = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]).abs().amax(dim=0)
    wanted = layer.post_attention_layernorm.weight / (peaks**0.3 / columns**0.7)
    designed(SmoothQuant(strength=0.3), model)
    torch.testing.assert_close(layer.post_attention_layernorm.weight, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("pattern", AWQ(levels=4).places)
@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_awq_costs_no_more_than_no_scales(kind: str, pattern: str):
    """Rounded with the same ranges, at each place alone: maps behind it scale rows of what reads it; less at some."""
    design, model = AWQ(levels=4, group=20, places=(pattern,)), decoder(kind)

    def cost(weight: np.ndarray, sigma: np.ndarray) -> float:
        lost = design._rounded(weight) - weight
        return float(np.sum(lost @ sigma * lost))

    old = read(model, pattern)
    designed(design, model)
    new = read(model, pattern)
    before = np.array([cost(one.weight, one.sigma) for one in old])
    after = np.array([cost(now.weight, moved(was, now)) for was, now in zip(old, new, strict=True)])
    assert (after <= before * (1 + 1e-5)).all()
    assert after.sum() < before.sum()


def test_a_balanced_diagonal_makes_both_sides_alike_and_no_other_gains_more(rng: np.random.Generator):
    model = decoder("llama")
    places_of = ("*.attention_input", "*.mlp_hidden")
    before = read(model, *places_of)
    designed(Balanced(places=places_of), model)
    for old, new in zip(before, read(model, *places_of), strict=True):
        sigma = moved(old, new)
        ratio = np.diag(sigma) / np.sum(np.square(new.weight), axis=0)
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
        powers = [np.sum(np.square(one.weight)) * np.trace(moment) for one, moment in ((old, old.sigma), (new, sigma))]
        assert abs(10 * np.log10(powers[0] / powers[1]) - gain(old.weight, old.sigma, block=1)) < 1e-3
        assert gain(new.weight, sigma, np.diag(rng.uniform(0.5, 2, len(ratio)))) < 0


def test_balanced_heads_make_all_channels_alike_on_both_sides():
    model = decoder("qwen2")
    designed(Balanced(places=("*.values",)), model)
    for one in read(model, "*.values"):
        weights, inputs = np.sum(np.square(one.stacked()), axis=0), one.tied(np.diag(one.sigma), np.sum)
        for found in (weights, inputs):
            heads = found.reshape(one.place.heads, one.place.size)
            np.testing.assert_allclose(heads, heads.mean(axis=1, keepdims=True) + 0 * heads, rtol=0.1)


def test_a_share_moves_variances_from_inputs_to_weights():
    inputs = []
    for share in (0.0, 0.5, 1.0):
        model = decoder("llama")
        designed(Balanced(share=share, places=("*.mlp_input",)), model)
        (one, _) = read(model, "*.mlp_input")
        powers = np.diag(one.sigma), np.sum(np.square(one.weight), axis=0)
        inputs.append([power.max() / power.min() for power in powers])
    (white, most), (some, less), (all_of_it, none) = inputs
    assert white < 1.001 < some < all_of_it
    assert none < 1.001 < less < most


def test_a_rotation_spreads_an_outlier_of_the_stream():
    model = decoder("llama")
    model.model.embed_tokens.weight.data[:, 5] *= 100

    def crest() -> float:
        hidden = model.model(TOKENS, output_hidden_states=True).hidden_states[0]
        return float((hidden.abs().amax(dim=-1) / hidden.square().mean(dim=-1).sqrt()).median())

    with torch.no_grad():
        before = crest()
        designed(Rotate(), model)
        assert before > 5  # of at most √32
        assert crest() < 2


def spoilt(kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """A tied model that takes no rotation, as gains show, or only the last place when all others have been folded."""
    model = decoder(kind)
    if kind == "opt":
        model.model.decoder.layers[1].final_layer_norm.weight.data[3] = 0
        return model, "has gain 0 and a bias at channel 3"
    fold = Draft.fold

    message = "spoilt"

    def failing(self: Draft, place: Any, structure: str, values: Any) -> None:
        if place.name == "model.layers.1.values":
            raise InvalidInputError(message)
        fold(self, place, structure, values)

    monkeypatch.setattr(Draft, "fold", failing)
    return model, message


@pytest.mark.parametrize("kind", TIED)
def test_a_rotation_that_fails_leaves_the_model_as_it_was(kind: str, monkeypatch: pytest.MonkeyPatch):
    model, message = spoilt(kind, monkeypatch)
    require_untouched(model, Rotate(), message)


def test_an_order_of_the_stream_that_fails_leaves_the_head_tied():
    model = decoder("gemma")
    first, second = (layer.self_attn.o_proj for layer in model.model.layers)
    second.weight = first.weight
    require_untouched(model, Reorder(clusters=4, restarts=2, places=("residual",)), "share one weight")


def require_untouched(model: Any, design: MapDesign, message: str) -> None:
    """Assert that a design is refused, and that weights and what ties them are as before."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InvalidInputError, match=message):
        designed(design, model)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_order_puts_channels_of_like_range_side_by_side():
    model = decoder("mistral")
    layer = model.model.layers[0].mlp.up_proj
    layer.weight.data[::7] *= 30
    weight, (before, _) = layer.weight.clone(), read(model, "*.mlp_hidden")
    designed(Reorder(clusters=3, restarts=4), model)
    order = range_order(before.low, before.high, clusters=3, restarts=4)
    assert torch.equal(layer.weight, weight[order])
    (after, _) = read(model, "*.mlp_hidden")
    np.testing.assert_allclose(after.high - after.low, (before.high - before.low)[order], rtol=1e-4)
    first, last = np.split(after.high - after.low, [40])
    assert last.mean() > 3 * first.mean()


def test_a_shift_centres_the_inputs_where_biases_undo_it():
    model = decoder("opt")
    before = logits(model)
    rows = designed(Shift(), model)
    assert [row.structure for row in rows] == ["shift"] * 6
    for one in read(model, *NORMS, "*.values"):
        assert np.abs(one.low + one.high).max() < 1e-5
    assert (logits(model) - before).abs().max() < CLOSE
    with pytest.raises(InvalidInputError, match="has no bias to take a shift"):
        designed(Shift(), decoder("llama"))


@pytest.mark.parametrize("name", ["smoothquant everywhere", "awq", "balanced", "rotate", "reorder"])
@pytest.mark.parametrize("windows", [TOKENS, TOKENS[:1, :2]], ids=["many", "few"])
def test_channels_without_inputs_or_weights_take_finite_maps(name: str, windows: torch.Tensor):
    """A norm with gain 0, columns of zeros, a head of values that are all 0, and two tokens."""
    model = decoder("llama")
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.input_layernorm.weight[3] = 0
        layer.post_attention_layernorm.weight.zero_()
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            linear.weight[:, 5] = 0
        layer.self_attn.v_proj.weight[:8] = 0
        layer.self_attn.v_proj.bias[:8] = 0
        layer.mlp.up_proj.weight[10:] = 0
        layer.mlp.up_proj.bias[10:] = 0
        model.model.layers[1].self_attn.o_proj.weight.zero_()
    before = logits(model)
    rows = designed(DESIGNS[name], model, windows)
    assert all(np.isfinite(row.condition) for row in rows)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert (logits(model) - before).abs().max() < CLOSE


def test_designs_in_a_chain_keep_apart_what_they_keep():
    kept: dict[str, Any] = {}

    @dataclasses.dataclass(frozen=True)
    class Remembering:
        number: int

        def __call__(self, model: Any, windows: Any, *, work: Stage, keep: Any) -> tuple[()]:
            assert list(keep) == []
            keep["block"] = {"number": np.array(self.number)}
            assert (list(keep), len(keep)) == (["block"], 1)
            assert keep["block"]["number"] == self.number
            return ()

    designed = chain(Remembering(1), Remembering(2), Remembering(3))
    assert designed == Chain((Remembering(1), Remembering(2), Remembering(3)))
    assert isinstance(designed, MapDesign)
    designed(None, TOKENS, work=Stage("maps"), keep=kept)
    assert {key: int(value["number"]) for key, value in kept.items()} == {"0 block": 1, "1 block": 2, "2 block": 3}


def test_a_head_of_its_own_takes_scales():
    model = decoder("gemma")
    before = logits(model)
    design = SmoothQuant(places=("head_input",))
    with pytest.raises(InvalidInputError, match=r"share one weight.*call `untie`"):
        designed(design, model)
    untie(model)
    (row,) = designed(design, model)
    assert (row.place, row.structure) == ("model.head_input", "diagonal")
    assert (logits(model) - before).abs().max() < CLOSE
