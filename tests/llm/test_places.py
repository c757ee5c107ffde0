"""Every map that a table of places allows leaves the model's function as it was, and what it forbids does not."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lattq.errors import InvalidInputError
from lattq.llm.source.place import STRUCTURES, Architecture, Location, Place, Site
from lattq.llm.source.place_tables import ARCHITECTURES
from lattq.llm.source.places import places
from lattq.llm.tune.folding import fold, fold_gains, shift
from lattq.llm.tune.tying import untie
from tests.llm.decoders import TIED, TOKENS, decoder, logits, random_map, read_without_lattq

KINDS = sorted(ARCHITECTURES)
ROWS = [(kind, row.name, one) for kind in KINDS for row in ARCHITECTURES[kind].places for one in row.structures]
ROWS = list(dict.fromkeys(ROWS))
CLOSE = 1e-4  # of logits of order 1, in float32
FAR = 1e-2


def of_row(model: Any, name: str) -> list[Place]:
    """The places of a model that a row of the table stands for."""
    wanted = name.removeprefix("*.")
    return [place for place in places(model).values() if re.fullmatch(rf"(.*\d\.)?(model\.)?{wanted}", place.name)]


def prepared(kind: str, structure: str, name: str) -> Any:
    """A model as a map needs it: with a head of its own, and unit gains for rotations."""
    model = decoder(kind)
    if name in ("residual", "head_input"):
        untie(model)
    if name == "residual" and structure in ("rotation", "centred_rotation", "heads"):
        fold_gains(model)
    return model


def moved(model: Any, before: torch.Tensor) -> float:
    return float((logits(model) - before).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_of_order_one(kind: str):
    assert 0.5 < logits(decoder(kind)).std() < 2


@pytest.mark.parametrize(("kind", "name", "structure"), ROWS)
def test_a_map_of_the_table_keeps_the_logits(kind: str, name: str, structure: str, rng: np.random.Generator):
    model = prepared(kind, structure, name)
    before, weights = logits(model), {key: value.clone() for key, value in model.state_dict().items()}
    found = of_row(model, name)
    assert len(found) == (2 if name.startswith("*") else 1)
    for place in found:
        fold(model, place, structure, random_map(place, structure, rng))
        for site in place.forward + place.inverse:
            after = model.state_dict()[f"{site.module}.weight"]
            assert (after - weights[f"{site.module}.weight"]).abs().max() > FAR, f"{site.module} did not change"
    assert moved(model, before) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_gains_move_into_the_layers_behind_them(kind: str):
    model = decoder(kind)
    untie(model)
    before = logits(model)
    fold_gains(model)
    assert moved(model, before) < CLOSE
    for place in places(model).values():
        for site in place.forward:
            if site.location is Location.GAIN and place.readers:
                assert (model.get_submodule(site.module).weight + site.plus == 1).all()


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_shift_is_undone_where_biases_are(kind: str, rng: np.random.Generator):
    model = decoder(kind)
    before = logits(model)
    shifted = []
    for name, place in places(model).items():
        if place.shift is None:
            continue
        if all(getattr(model.get_submodule(site.module), "bias", None) is not None for site in place.sites):
            shift(model, name, rng.standard_normal(place.channels))
            shifted.append(name.rpartition(".")[2])
    assert moved(model, before) < CLOSE
    assert set(shifted) == {"opt": {"attention_input", "keys", "values", "mlp_input"}, "llama": {"values"}}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_a_cache_is_the_same(kind: str, rng: np.random.Generator):
    model = folded_everywhere(kind, rng)
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    options |= {"attention_mask": torch.ones_like(TOKENS), "use_cache": True, "eos_token_id": None}
    found, before = model.generate(TOKENS, **options), decoder(kind).generate(TOKENS, **options)
    assert torch.equal(found.sequences, before.sequences)
    for one, other in zip(found.logits, before.logits, strict=True):
        assert (one - other).abs().max() < CLOSE


def folded_everywhere(kind: str, rng: np.random.Generator) -> Any:
    """A model with a map of every structure at every place; rotations first, for they want unit gains."""
    model = decoder(kind)
    untie(model)
    fold_gains(model)
    found = places(model).values()
    for place in sorted(found, key=lambda place: "residual" not in place.name):
        for structure in reversed(place.structures):
            fold(model, place, structure, random_map(place, structure, rng))
    return model


def test_folded_models_load_without_lattq(rng: np.random.Generator, tmp_path: Path):
    for kind in KINDS:
        folded_everywhere(kind, rng).save_pretrained(tmp_path / kind)
    for kind, (name, found) in read_without_lattq(tmp_path).items():
        assert name == type(decoder(kind)).__name__
        assert (found - logits(decoder(kind))).abs().max() < CLOSE, kind


ROPE = [kind for kind in KINDS if kind != "opt"]
BROKEN = [(kind, "keys", "diagonal") for kind in ROPE] + [(kind, "keys", "heads") for kind in ROPE if kind != "qwen3"]
BROKEN += [("qwen3", "keys", "rotary"), ("opt", "mlp_hidden", "diagonal"), ("opt", "residual", "rotation")]
BROKEN += [("llama", "mlp_hidden", "rotation"), ("llama", "residual", "heads")]
BROKEN += [("llama", "attention_input", "permutation"), ("opt", "attention_input", "permutation")]


@pytest.mark.parametrize(("kind", "name", "structure"), BROKEN)
def test_a_map_outside_the_table_changes_the_logits(kind: str, name: str, structure: str, rng: np.random.Generator):
    model = prepared(kind, structure, name)
    before = logits(model)
    place = of_row(model, name)[-1]
    values = random_map(place, structure, rng)
    with pytest.raises(InvalidInputError, match=f"`structure` is '{structure}'"):
        fold(model, place, structure, values)
    fold(model, dataclasses.replace(place, structures=(structure,)), structure, values)
    assert moved(model, before) > FAR


def test_an_order_of_the_channels_of_a_head_changes_the_logits(rng: np.random.Generator):
    """A permutation of keys, and of the queries with them, moves channels to pairs that turn at another speed."""
    model = decoder("llama")
    before, place = logits(model), places(model)["model.layers.1.keys"]
    orders = np.stack([np.eye(place.size)[rng.permutation(place.size)] for _ in range(place.heads)])
    fold(model, dataclasses.replace(place, structures=("heads",)), "heads", orders)
    assert moved(model, before) > FAR


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_rotation_of_a_stream_with_gains_changes_the_logits(kind: str, rng: np.random.Generator):
    """Those of Gemma 2 behind its layers no other layer can take, so that its table has no rotation."""
    model = decoder(kind)
    before, place = logits(model), dataclasses.replace(places(model)["model.residual"], structures=("rotation",))
    values = random_map(place, "rotation", rng)
    with pytest.raises(InvalidInputError, match="call `fold_gains` first"):
        fold(model, place, "rotation", values)
    fold(model, dataclasses.replace(place, norms=()), "rotation", values)
    assert moved(model, before) > FAR


def test_a_layer_norm_that_loses_its_mean_before_lets_no_more_rotations_through(rng: np.random.Generator):
    """The mean subtracted in every layer that writes the stream: no norm notices, and rotations still break them."""
    model = prepared("opt", "rotation", "residual")
    before, place = logits(model), places(model)["model.residual"]
    mean = torch.eye(32) - 1 / 32
    for site in place.forward:
        layer = model.get_submodule(site.module)
        layer.weight.data = layer.weight.data @ mean if site.transposed else mean @ layer.weight.data
        if getattr(layer, "bias", None) is not None:
            layer.bias.data = mean @ layer.bias.data
    assert moved(model, before) < CLOSE
    values = random_map(place, "rotation", rng)
    fold(model, dataclasses.replace(place, structures=("rotation",)), "rotation", values)
    assert moved(model, before) > FAR


def test_gains_of_gemma_are_one_plus_the_weight(rng: np.random.Generator):
    model = decoder("gemma")
    before, place = logits(model), places(model)["model.layers.1.mlp_input"]
    wrong = place.changed(lambda site: [site._replace(plus=0.0)])
    fold(model, wrong, "diagonal", random_map(place, "diagonal", rng))
    assert moved(model, before) > FAR


def test_the_other_grouping_of_heads_changes_the_logits(rng: np.random.Generator):
    """The map of head h of the values belongs to the queries h·g, ..., h·g + g − 1, not to every second one."""
    for heads, right in ([0, 0, 1, 1], True), ([0, 1, 0, 1], False):
        model = decoder("qwen2")
        before, place = logits(model), places(model)["model.layers.1.values"]
        values = random_map(place, "heads", rng)
        fold(model, dataclasses.replace(place, inverse=()), "heads", values)
        output = model.get_submodule(place.readers[0]).weight
        inverse = torch.from_numpy(np.linalg.inv(values)[heads]).float()
        output.data = torch.einsum("rhi,hij->rhj", output.data.reshape(32, 4, 8), inverse).reshape(32, 32)
        assert (moved(model, before) < CLOSE) == right
        assert right or moved(model, before) > FAR


def test_places_follow_the_config():
    after = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            hidden_size=16, ffn_dim=24, num_attention_heads=2, num_hidden_layers=1, vocab_size=32,
            do_layer_norm_before=False, activation_function="gelu",
        )
    )  # fmt: skip
    found = places(after)
    assert [name.rpartition(".")[2] for name in found] == ["keys", "values", "mlp_hidden"]
    assert found["model.decoder.layers.0.mlp_hidden"].structures == ("permutation",)


def test_a_model_without_its_head_has_the_places_of_its_blocks():
    model = decoder("phi3")
    whole, bare = places(model), places(model.model)
    assert {f"model.{name}" for name in bare} == {name for name in whole if "layers" in name}


def test_an_unknown_type_names_the_known_ones():
    config = transformers.GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=32)
    with pytest.raises(InvalidInputError, match="'gpt2'; there are gemma, gemma2, llama, mistral, opt"):
        places(transformers.GPT2LMHeadModel(config))
    with pytest.raises(InvalidInputError, match="`model` is a Linear"):
        places(torch.nn.Linear(2, 2))


def test_a_table_of_ones_own_serves_another_type(rng: np.random.Generator):
    """Olmo 2 has norms behind its layers only; what its MLP multiplies is as in Llama."""
    options: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 64, "pad_token_id": 0}
    config = transformers.Olmo2Config(num_attention_heads=2, num_hidden_layers=1, **options)
    model = transformers.Olmo2ForCausalLM(config).eval()
    before = logits(model)
    row = next(row for row in ARCHITECTURES["llama"].places if row.name == "*.mlp_hidden")
    found = places(model, Architecture("layers", (row,)))["model.layers.0.mlp_hidden"]
    fold(model, found, "diagonal", random_map(found, "diagonal", rng))
    assert moved(model, before) < CLOSE


def test_a_table_that_names_missing_modules_is_refused():
    site = Site("*.mlp.no_such_layer", Location.WEIGHT_OUTPUT)
    with pytest.raises(InvalidInputError, match=r"has no module model\.layers\.0\.mlp\.no_such_layer"):
        places(decoder("llama"), Architecture("layers", (Place("*.x", ("diagonal",), (site,), ()),)))


def test_every_structure_is_explained_and_every_row_can_be_folded():
    rows = [row for kind in KINDS for row in ARCHITECTURES[kind].places]
    assert {structure for row in rows for structure in row.structures} == STRUCTURES.keys()
    assert not any(site.location.online for row in rows for site in row.sites)
    assert all(row.online is None or row.online.online for row in rows)


@pytest.mark.parametrize("kind", TIED)
def test_a_tied_head_says_what_its_own_weight_costs(kind: str, rng: np.random.Generator):
    model = decoder(kind)
    head = [place for place in places(model).values() if "lm_head" in place.readers]
    assert len(head) == 2
    for place in head:
        with pytest.raises(InvalidInputError, match=r"share one weight.*call `untie`, which adds 2048 weights"):
            fold(model, place, place.structures[0], random_map(place, place.structures[0], rng))
    before = logits(model)
    assert untie(model) == 2048
    assert torch.equal(logits(model), before)
