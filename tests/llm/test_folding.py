"""Laws of folded maps, and what is refused without a trace."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.llm.run.layers import LattqLinear
from lattq.llm.source.place import Place
from lattq.llm.source.places import places
from lattq.llm.tune.folding import fold, fold_gains, shift
from lattq.llm.tune.maps import Blocks, Diagonal, Map, Order, centred, map_of
from lattq.llm.tune.tying import untie
from tests.llm.decoders import decoder, logits, random_map

CLOSE = 1e-4


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def product(structure: str, second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The map `second` after `first`."""
    if structure == "permutation":
        return first[second]
    return second @ first if second.ndim == 3 or "rotation" in structure else second * first


def inverse(structure: str, values: np.ndarray) -> np.ndarray:
    if structure == "permutation":
        return np.argsort(values)
    return np.linalg.inv(values) if values.ndim == 3 or "rotation" in structure else 1 / values


LAWS = [("llama", "layers.1.mlp_input", "diagonal"), ("llama", "layers.1.keys", "rotary")]
LAWS += [("llama", "layers.1.values", "heads"), ("llama", "layers.1.mlp_hidden", "permutation")]
LAWS += [("llama", "residual", "rotation"), ("phi3", "layers.0.keys", "rotary"), ("gemma", "head_input", "diagonal")]
LAWS += [
    ("qwen3", "layers.0.keys", "pairs"),
    ("opt", "residual", "centred_rotation"),
    ("opt", "residual", "permutation"),
]
LAWS += [("opt", "decoder.layers.0.keys", "heads"), ("opt", "decoder.layers.0.mlp_hidden", "positive")]


@pytest.mark.parametrize(("kind", "name", "structure"), LAWS)
def test_maps_compose_and_their_inverses_restore_the_weights(
    kind: str, name: str, structure: str, rng: np.random.Generator
):
    model = decoder(kind).double()
    untie(model)
    fold_gains(model)
    place = places(model)[f"model.{name}"]
    first, second = (random_map(place, structure, rng) for _ in range(2))
    given, at_once = state(model), copy.deepcopy(model)
    fold(model, place, structure, first)
    once = state(model)
    fold(model, place, structure, second)
    fold(at_once, place, structure, product(structure, second, first))
    assert_equal_states(state(model), state(at_once))
    fold(model, place, structure, inverse(structure, second))
    assert_equal_states(state(model), once)
    fold(model, place, structure, inverse(structure, first))
    assert_equal_states(state(model), given)
    assert max(float((once[key] - given[key]).abs().max()) for key in given) > 0.1


def assert_equal_states(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Up to sums of 48 products of float64 numbers of order 1 and maps of condition 40."""
    for name in wanted:
        assert (found[name] - wanted[name]).abs().max() < 48 * 40 * 2**-52, name


def dense(transform: Map, copies: int) -> np.ndarray:
    """The matrix of a map on a layer with so many copies of each head."""
    if isinstance(transform, Order):
        return np.eye(len(transform.order))[transform.order.numpy()]
    blocks = [np.diag(one) if one.ndim == 1 else one for one in transform[0].numpy()]
    return np.asarray(scipy.linalg.block_diag(*[block for block in blocks for _ in range(copies)]))


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["diagonal", "heads", "permutation"]))
def test_actions_are_products_with_the_matrix_and_its_inverse_transposed(
    heads: int, size: int, copies: int, structure: str
):
    rng = np.random.default_rng(heads + 10 * size + 100 * copies)
    place = Place("x", (structure,), (), (), heads=heads, size=size)
    copies = 1 if structure == "permutation" else copies
    transform = map_of(place, structure, random_map(place, structure, rng))
    matrix, x = dense(transform, copies), rng.standard_normal((heads * copies * size, 3))
    np.testing.assert_allclose(transform.left(torch.from_numpy(x)), matrix @ x, rtol=0, atol=1e-13)
    wanted = np.linalg.solve(matrix.T, x)
    np.testing.assert_allclose(transform.dual.left(torch.from_numpy(x)), wanted, rtol=0, atol=1e-13)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_centred_rotations_keep_the_vector_of_ones(n: int, seed: int):
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    found = centred(rotation)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-13)
    np.testing.assert_allclose(found @ found.T, np.eye(n), atol=1e-13)
    np.testing.assert_allclose(centred(np.eye(n)), np.eye(n), atol=1e-15)


def test_a_rotary_map_commutes_with_every_rotation_of_its_pairs(rng: np.random.Generator):
    place = Place("keys", ("rotary",), (), (), per_head=True, heads=2, size=10, pairs=4)
    transform = map_of(place, "rotary", random_map(place, "rotary", rng))
    assert isinstance(transform, Blocks)
    turns = Place("keys", ("rotary",), (), (), per_head=True, heads=1, size=10, pairs=4)
    turn = map_of(turns, "rotary", np.exp(1j * rng.standard_normal((1, 4))))
    for one in (*transform.matrix, *transform.inverse):
        torch.testing.assert_close(one @ turn[0][0], turn[0][0] @ one, rtol=0, atol=1e-14)
    assert torch.equal(transform.matrix[:, 8:, 8:], torch.eye(2, dtype=torch.float64).expand(2, 2, 2))


def test_weights_are_rounded_once_in_their_own_type(rng: np.random.Generator):
    """Powers of two and orders move bfloat16 numbers exactly; other numbers as float64 says."""
    model = decoder("qwen2").to(torch.bfloat16)
    given = state(model)
    powers = 2.0 ** rng.integers(-2, 3, 32)
    fold(model, "model.layers.0.attention_input", "diagonal", powers)
    fold(model, "model.layers.0.mlp_hidden", "permutation", rng.permutation(48))
    fold(model, "model.layers.0.attention_input", "diagonal", 1 / powers)
    key = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(state(model)[key], given[key])
    rows = {tuple(row) for row in state(model)["model.layers.0.mlp.up_proj.weight"].tolist()}
    assert rows == {tuple(row) for row in given["model.layers.0.mlp.up_proj.weight"].tolist()}
    scale = rng.uniform(1, 2, 32)
    fold(model, "model.layers.0.attention_input", "diagonal", scale)
    exact = given[key].double() / torch.from_numpy(scale)
    assert torch.equal(state(model)[key], exact.to(torch.bfloat16))


def test_gains_of_zero_fold_where_no_bias_stays(rng: np.random.Generator):
    model = decoder("llama")
    model.model.layers[0].input_layernorm.weight.data[3] = 0
    before = logits(model)
    fold_gains(model)
    assert (logits(model) - before).abs().max() < CLOSE
    fold(model, "model.residual", "rotation", random_map(places(model)["model.residual"], "rotation", rng))
    assert (logits(model) - before).abs().max() < CLOSE


def refused(model: Any, message: str, act: Any) -> None:
    """Assert that an act is refused, and that no weight has changed."""
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(InvalidInputError, match=message):
        act()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters() if not value.is_meta)


ONES = np.ones(32)
BAD: list[tuple[str, str, str, Any, str]] = [
    ("llama", "mlp_input", "diagonal", ONES[:-1], r"`diagonal` has shape \(31,\); this place takes \(32,\)"),
    ("llama", "mlp_input", "diagonal", np.where(np.arange(32) == 7, 0.0, 1.0), r"`diagonal` holds 0.0 at index \(7,\)"),
    ("llama", "mlp_input", "diagonal", np.where(np.arange(32) == 7, np.nan, 1.0), r"`diagonal` holds nan at index"),
    ("llama", "mlp_input", "diagonal", ONES + 0j, r"`diagonal` has dtype complex128"),
    ("llama", "mlp_input", "diagonal", list(ONES), r"`diagonal` is .*no array"),
    ("llama", "mlp_input", "diagonal", 5e-324 * ONES, r"`diagonal` holds 5e-324 .* must be invertible"),
    ("llama", "mlp_input", "heads", np.eye(32)[None], r"`structure` is 'heads' .*; exact at .* are diagonal"),
    ("llama", "mlp_input", "shear", ONES, r"`structure` is 'shear' \(unknown\)"),
    ("llama", "values", "heads", np.zeros((2, 8, 8)), r"`heads` is singular at head 0"),
    ("llama", "values", "heads", np.ones((2, 8, 8)), r"`heads` is singular at head 0"),
    ("llama", "values", "heads", np.ones((4, 8, 8)), r"`heads` has shape \(4, 8, 8\); this place takes \(2, 8, 8\)"),
    ("llama", "keys", "rotary", np.zeros((2, 4), complex), r"`rotary` holds 0j at index \(0, 0\)"),
    ("llama", "keys", "rotary", np.full((2, 4), complex(0, np.inf)), r"`rotary` holds inf"),
    ("llama", "keys", "rotary", np.ones((4, 4)), r"`rotary` has shape \(4, 4\); this place takes \(2, 4\)"),
    ("llama", "mlp_hidden", "permutation", np.zeros(48, int), r"is no order of 0, ..., 47: it holds 1 numbers"),
    ("llama", "mlp_hidden", "permutation", np.arange(48.0), r"`permutation` holds numbers of float64"),
    ("opt", "mlp_hidden", "positive", -np.ones(48), r"`positive` holds -1"),
]


@pytest.mark.parametrize(("kind", "name", "structure", "values", "message"), BAD)
def test_what_is_no_map_of_the_place_is_refused(
    kind: str, name: str, structure: str, values: Any, message: str, unchecked: None
):
    model = decoder(kind)
    place = next(place for place in places(model) if place.endswith(name))
    refused(model, message, lambda: fold(model, place, structure, values))


def test_what_is_no_rotation_is_refused(rng: np.random.Generator):
    model = decoder("opt")
    untie(model)
    fold_gains(model)
    rotation = random_map(places(model)["model.residual"], "rotation", rng)
    for values, message in (
        (1.001 * rotation, r"`centred_rotation` is not orthogonal: R Rᵀ differs from the identity by 0\.002"),
        (rotation, "maps the vector of ones to another .*LayerNorm"),
        (rotation[:, :-1], r"has shape \(32, 31\)"),
    ):
        refused(model, message, lambda values=values: fold(model, "model.residual", "centred_rotation", values))


def test_shifts_are_refused_where_no_bias_takes_them():
    llama, qwen, opt = (decoder(kind) for kind in ("llama", "qwen2", "opt"))
    for model, name, values, message in (
        (llama, "model.layers.0.mlp_input", ONES, r"post_attention_layernorm has no bias to take a shift"),
        (qwen, "model.layers.0.values", ONES[:16], r"o_proj has no bias to take a shift"),
        (llama, "model.layers.0.keys", ONES[:16], r"a shift at .*keys is not exact"),
        (opt, "model.decoder.layers.0.mlp_hidden", np.ones(48), r"a shift at .*mlp_hidden is not exact"),
        (opt, "model.decoder.layers.0.keys", ONES[:-1], r"`delta` has shape \(31,\)"),
        (opt, "model.decoder.layers.0.keys", ONES * np.inf, r"`delta` holds inf"),
    ):
        refused(model, message, lambda model=model, name=name, values=values: shift(model, name, values))


def test_a_place_that_the_model_lacks_is_named_with_those_that_it_has():
    with pytest.raises(InvalidInputError, match=r"`place` is 'values'; .* has model\.layers\.0\.attention_input"):
        fold(decoder("llama"), "values", "diagonal", ONES)


def test_gains_of_zero_beside_a_bias_are_refused():
    model = decoder("opt")
    untie(model)
    model.model.decoder.layers[1].final_layer_norm.weight.data[3] = 0
    refused(model, "has gain 0 and a bias at channel 3", lambda: fold_gains(model))


def test_weights_that_would_leave_their_type_are_refused(rng: np.random.Generator):
    model = decoder("llama").to(torch.float16)
    refused(
        model,
        r"q_proj\.weight leaves the range of torch\.float16",
        lambda: fold(model, "model.layers.0.attention_input", "diagonal", 1e-6 * ONES),
    )


def test_quantized_weights_and_those_not_in_memory_are_refused():
    model = decoder("llama")
    model.model.layers[0].mlp.down_proj = LattqLinear(32, 48, bias=True, payload=b"some bytes")
    message = r"down_proj \(LattqLinear\) holds no dense weight to fold into; fold before quantizing"
    refused(model, message, lambda: fold(model, "model.layers.0.mlp_hidden", "diagonal", np.ones(48)))
    refused(
        model.to("meta"),
        "is on the meta device",
        lambda: fold(model, "model.layers.1.mlp_hidden", "diagonal", np.ones(48)),
    )


def test_norms_without_gains_are_refused():
    model = decoder("opt")
    model.model.decoder.layers[0].final_layer_norm = torch.nn.LayerNorm(32, elementwise_affine=False)
    message = r"final_layer_norm \(LayerNorm\) holds no dense weight"
    refused(model, message, lambda: fold(model, "model.decoder.layers.0.mlp_input", "diagonal", ONES))


def test_a_table_of_another_width_is_refused():
    model = decoder("llama")
    place = dataclasses.replace(places(model)["model.layers.0.mlp_hidden"], size=24)
    message = "has 48 channels where model.layers.0.mlp_hidden has 24"
    refused(model, message, lambda: fold(model, place, "diagonal", np.ones(24)))


def test_an_order_across_heads_is_refused():
    model = decoder("llama")
    place = dataclasses.replace(places(model)["model.layers.0.keys"], structures=("permutation",))
    refused(model, "would leave its heads", lambda: fold(model, place, "permutation", np.arange(16)))


def test_a_place_of_another_model_is_refused():
    place = places(decoder("opt"))["model.decoder.layers.0.mlp_input"]
    model = decoder("llama")
    refused(model, "LlamaForCausalLM has no module model.decoder", lambda: fold(model, place, "diagonal", ONES))
    refused(model, "LlamaForCausalLM has no module model.decoder", lambda: shift(model, place, ONES))


def test_what_is_no_model_is_refused():
    for act in (untie, fold_gains):
        with pytest.raises(InvalidInputError, match="`model` is a Linear; pass a model of transformers"):
            act(torch.nn.Linear(2, 2))


def test_untie_changes_nothing_where_nothing_is_tied():
    assert untie(decoder("llama")) == 0
    assert untie(decoder("llama").model) == 0


def test_maps_know_their_inverse():
    assert Diagonal(torch.tensor([[4.0]])).dual.scale == 0.25
