"""Statistics are the moments they claim to be, block by block or not, and merge to the same bytes in any way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from lattq.errors import InvalidInputError
from lattq.llm import measure, source
from lattq.llm.measure.attention import Attention
from lattq.llm.measure.collectors import PROBES, Matched, Plain
from lattq.llm.measure.ledger import Ledger
from lattq.llm.measure.model import measure_windows
from lattq.llm.measure.origin import Origin
from lattq.llm.measure.score import Score, digest_of_window
from lattq.llm.measure.statistics import Statistics
from lattq.llm.measure.statistics_file import pieces
from tests.llm.conftest import TEXT
from tests.llm.decoders import decoder
from tests.llm.test_matrices import tiny_model
from tests.oracles.fisher import fisher_information

SCORE = Score(seed=3)
WINDOWS = torch.randint(2, 60, (5, 12), generator=torch.Generator().manual_seed(5))


def chosen(model: Any, windows: torch.Tensor = WINDOWS) -> dict[str, Any]:
    """Layers of a model, those that no window reaches too."""
    found = source.choose_modules(model)
    measure.reached(model, found, windows)
    return found


def origin_of(windows: torch.Tensor, score: Score = SCORE) -> Origin:
    """As `measure_model` makes it."""
    digests = tuple(sorted(digest_of_window(one, score.seed, score.draws) for one in windows))
    tokens = windows.numel()
    about = "model", "plain", ("text",), digests, (windows.shape[1],), (score.seed,)
    return Origin(*about, tokens, tokens * score.draws)


def statistics_of(model: Any, windows: torch.Tensor = WINDOWS, score: Score = SCORE, **options: Any) -> Statistics:
    """Of a model in memory."""
    layers = options.pop("layers", None) or chosen(model)
    return measure_windows(model, layers, windows, score, **options).statistics(origin_of(windows, score))


def content(found: Statistics) -> bytes:
    """The bytes of a file."""
    return b"".join(bytes(piece) for piece in pieces(found.layers, found.arrays, found.origin))


def blocks_of(matrix: np.ndarray, height: int) -> np.ndarray:
    """Blocks down the diagonal."""
    return np.stack([matrix[i : i + height, i : i + height] for i in range(0, len(matrix), height)])


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    """Equal up to a share of the largest entry."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1e-30))


# What statistics are.


def test_sums_are_those_of_gradients_of_single_scores():
    model = decoder("llama")
    layers, name = chosen(model), "model.layers.0.mlp.gate_proj"
    found = statistics_of(model, block=16).moments(name)
    inputs, outputs, energy, whole, noise = np.zeros((32, 32)), np.zeros((48, 48)), 0.0, 0.0, 0.0
    windows, tokens_alone = [], 0.0
    for window in WINDOWS[:, None]:
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = layers[name].module.register_forward_hook(lambda module, x, y, seen=seen: seen.append((x[0], y)))
        (score,) = SCORE(model(window), window)
        hook.remove()
        ((x, y),) = seen
        (gradient,) = torch.autograd.grad(score, y)
        a, g = (one.detach()[0].double().numpy() for one in (x, gradient))
        inputs, outputs = inputs + a.T @ a, outputs + g.T @ g
        energy += float(np.square(a).sum(1) @ np.square(g).sum(1))
        whole += float(np.square(g.T @ a).sum())
        noise += 2 / PROBES * float(np.square(a.T @ g @ g.T @ a).sum())  # of probes with random signs, at most
        windows.append(blocks_of(g.T @ g, 16))
        tokens_alone += float(np.square(np.square(g).reshape(len(g), 3, 16).sum(2)).sum())
    tokens = WINDOWS.numel()
    close(found.inputs, inputs / tokens, 1e-5)
    close(found.outputs, blocks_of(outputs / tokens, 16), 1e-4)
    assert found.outputs.shape == (3, 16, 16)
    assert found.input_count == tokens
    scatter = len(windows) ** 2 * np.var(windows, axis=0, ddof=1).sum() / len(windows)
    alone = tokens_alone - float(np.square(np.sum(windows, axis=0)).sum()) / tokens
    assert found.output_count == pytest.approx(tokens / max(1.0, scatter / alone), rel=1e-4)
    product = np.trace(inputs) * np.trace(outputs) / tokens
    assert abs(found.coherence * product - whole) < 5 * noise**0.5
    assert found.energy == pytest.approx(energy * tokens / np.trace(inputs) / np.trace(outputs), rel=1e-4)


@pytest.mark.parametrize("biased", [False, True])
def test_drawn_labels_give_the_fisher_information_of_all_labels(biased: bool):
    """Means over draws lie within five standard errors of the exact one; those of the likeliest labels do not."""
    model, window = decoder("llama"), WINDOWS[:1]
    name = "model.layers.1.self_attn.v_proj"
    layers = {name: source.choose_modules(model)[name]}
    exact = fisher_information(model, layers[name].module, window) / window.numel()
    probes = np.random.default_rng(0).standard_normal((len(exact), 12))
    wanted = np.einsum("ip,ij,jp->p", probes, exact, probes)
    tried = []
    for seed in range(40):
        score = _Likeliest() if biased else Score(seed, draws=8)
        found = statistics_of(model, window, score, layers=layers).moments(name).outputs[0]
        tried.append(np.einsum("ip,ij,jp->p", probes, found, probes))
    error = np.std(tried, axis=0, ddof=1) / len(tried) ** 0.5 + 1e-12
    distance = np.abs(np.mean(tried, axis=0) - wanted) / error
    assert (distance.max() < 5) != biased


class _Likeliest(Score):
    """A score of labels that are not drawn."""

    def __init__(self) -> None:
        super().__init__(0, 8)

    def __call__(self, output: Any, window: Any) -> list[torch.Tensor]:
        return [torch.log_softmax(output.logits, -1).amax(-1).sum()] * 8


ONE_BY_ONE = ("GPT2LMHeadModel", "Gemma2ForCausalLM", "MixtralForCausalLM", "Llama4ForCausalLM", "DebertaV2ForMaskedLM")


@pytest.mark.parametrize("name", [*ONE_BY_ONE, "LlamaForSequenceClassification", "BertModel"])
def test_blocks_one_by_one_give_the_statistics_of_the_whole_model(name: str):
    model = tiny_model(name)
    layers = {key: one for key, one in chosen(model).items() if key.startswith(tuple(_blocks(model)))}
    score = Score(1, draws=2)
    whole = statistics_of(model, score=score, layers=layers, whole=True)
    found = statistics_of(model, score=score, layers=layers, whole=False)
    assert found.layers.keys() == whole.layers.keys()
    assert found.arrays.keys() == whole.arrays.keys()
    for layer in found.layers:
        assert found.layers[layer] == whole.layers[layer]
        mine, other = found.moments(layer), whole.moments(layer)
        close(mine.inputs, other.inputs, 1e-5)
        close(mine.outputs, other.outputs, 1e-4)
    assert all("forward" not in vars(module) for module in model.modules())
    assert not any(one.grad is not None for one in model.parameters())


def _blocks(model: Any) -> list[str]:
    return [f"{name}." for name, _ in source.find_blocks(model)]


def test_parameters_have_their_gradients_back():
    model = decoder("llama")
    model.lm_head.weight.requires_grad_(False)
    before = [one.requires_grad for one in model.parameters()]
    for whole in (False, True):
        statistics_of(model, whole=whole)
        assert [one.requires_grad for one in model.parameters()] == before


def test_blocks_in_pieces_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch):
    model = decoder("llama")
    wanted = content(statistics_of(model, whole=False))
    monkeypatch.setattr("lattq.llm.measure.gradients.KEPT", 1)
    assert content(statistics_of(model, whole=False)) == wanted


def test_layers_outside_the_blocks_are_measured_in_the_whole_model():
    model = decoder("llama")
    names = ["lm_head", "model.layers.0.mlp.up_proj"]
    layers = source.choose_modules(model, names)
    found = statistics_of(model, layers=layers)
    assert found.moments("lm_head").outputs.shape == (1, 64, 64)
    p = torch.softmax(model(WINDOWS).logits, -1).detach().double().flatten(0, 1)
    exact = torch.diag(p.mean(0)) - p.T @ p / len(p)
    many = statistics_of(model, score=Score(0, draws=50), layers=layers).moments("lm_head").outputs[0]
    assert np.abs(many - exact.numpy()).max() < 5 * (0.25 / (50 * WINDOWS.numel())) ** 0.5


def test_layers_that_read_one_tensor_share_their_inputs():
    found = statistics_of(decoder("llama"))
    kept = {key.removesuffix(".inputs.outer") for key in found.arrays if key.endswith(".inputs.outer")}
    assert len(kept) == 2 * 4
    name = "model.layers.0.self_attn"
    assert {found.layers[f"{name}.{one}_proj"].leader for one in "qkv"} == {f"{name}.q_proj"}
    np.testing.assert_array_equal(found.sigma(f"{name}.v_proj"), found.sigma(f"{name}.q_proj"))


def test_sensitivities_are_those_of_one_backward_pass():
    model = decoder("llama")
    layers = chosen(model)
    found = statistics_of(model, score=Score(0, draws=20))
    wanted = [measure.output_sensitivities(model, layers, [WINDOWS], seed) for seed in range(20)]
    for name in layers:
        tried = [one[name] for one in wanted]
        plain = found.sensitivity(name) / found.moments(name).coherence
        assert abs(plain - np.mean(tried)) < 5 * np.std(tried) * (2 / 20) ** 0.5


def test_encoders_are_scored_by_their_normalised_embeddings():
    """E[J_tᵀ J_t] of the embedding by the outputs of the last layer, whose noise is white."""
    model = tiny_model("BertModel")
    name = f"{source.find_blocks(model)[-1][0]}.output.dense"
    layers = {name: source.choose_modules(model)[name]}
    window, seen = WINDOWS[:1], []
    hook = layers[name].module.register_forward_hook(lambda module, x, y: seen.append(y))
    state = model(window).last_hidden_state
    hook.remove()
    embedding = torch.nn.functional.normalize(state.mean(1), dim=-1)[0]
    exact = np.zeros((state.shape[-1],) * 2)
    for one in embedding:
        g = torch.autograd.grad(one, seen[0], retain_graph=True)[0][0].double().numpy()
        exact += g.T @ g / window.numel()
    found = statistics_of(model, window, Score(0, 1000, pooling="mean"), layers=layers).moments(name).outputs[0]
    close(found, exact, 5 * (2 / 1000) ** 0.5)


def test_tokens_that_are_pooled_count_together():
    """Behind the last layer all tokens of a window have one gradient: it is the sum of their inputs that counts."""
    model = tiny_model("BertModel")
    name = f"{source.find_blocks(model)[-1][0]}.output.dense"
    layers = {name: source.choose_modules(model)[name]}
    windows = torch.randint(2, 60, (40, 12), generator=torch.Generator().manual_seed(6))
    pooled, apart = (
        statistics_of(model, windows, Score(0, 4, pooling=pooling), layers=layers).moments(name)
        for pooling in ("mean", None)
    )
    assert pooled.coherence > 3 > 1.5 > apart.coherence  # of 12 tokens
    assert pooled.output_count < 2 * 4 * len(windows) < 4 * windows.numel() / 2 < apart.output_count


# Merging.


def _experts() -> tuple[Any, torch.Tensor]:
    model = tiny_model("MixtralForCausalLM")
    return model, WINDOWS[:, :5]  # few tokens: some experts are reached in some windows only


def _large() -> tuple[Any, torch.Tensor]:
    """Inputs whose sums have more bits than a float."""
    model = decoder("llama")
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "norm" in name:
                one.mul_(100)
    return model, WINDOWS


MODELS: dict[str, Callable[[], tuple[Any, torch.Tensor]]] = {
    "llama": lambda: (decoder("llama"), WINDOWS),
    "large": _large,
    "experts": _experts,
}


@pytest.fixture(scope="module", params=MODELS)
def parts(request: pytest.FixtureRequest) -> tuple[bytes, list[Statistics], Any, torch.Tensor]:
    """Bytes of all windows together, and statistics of each."""
    model, windows = MODELS[request.param]()
    layers = chosen(model, windows[:1])
    single = [statistics_of(model, one, layers=layers) for one in windows.split(1)]
    together = statistics_of(model, windows, layers=layers)
    if request.param == "experts":
        reached = [sum(one.leader is not None for one in each.layers.values()) for each in [*single, together]]
        assert min(reached[:-1]) < reached[-1] == max(reached)
    return content(together), single, model, windows


def _tree(random: Any, some: Sequence[Statistics]) -> Statistics:
    """Merge in a random order and grouping."""
    some = list(some)
    random.shuffle(some)
    while len(some) > 1:
        a, b = some.pop(random.randrange(len(some))), some.pop(random.randrange(len(some)))
        some.append(a.merge(b))
    return some[0]


@given(random=st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_any_grouping_and_order_of_windows_gives_the_same_bytes(parts: Any, random: Any):
    whole, single, _, _ = parts
    assert content(_tree(random, single)) == whole


@given(random=st.randoms(use_true_random=False))
@settings(max_examples=3)
def test_any_order_of_measuring_gives_the_same_bytes(parts: Any, random: Any):
    whole, _, model, windows = parts
    order = list(range(len(windows)))
    random.shuffle(order)
    split = random.randrange(1, len(order))
    layers = chosen(model, windows[:1])
    one, other = (statistics_of(model, windows[some], layers=layers) for some in (order[:split], order[split:]))
    assert content(other.merge(one)) == whole


def test_parts_measured_block_by_block_merge_to_the_same_bytes():
    model = decoder("llama")
    whole = content(statistics_of(model, whole=False))
    parts = [statistics_of(model, one, whole=False) for one in WINDOWS[[3, 1, 4, 0, 2]].split(3)]
    assert content(parts[1].merge(parts[0])) == whole


def test_sums_in_floats_would_mind_the_order(parts: Any, request: pytest.FixtureRequest):
    """What floats lose is kept beside them."""
    _, single, _, _ = parts
    key = next(key for key in single[0].arrays if key.endswith("inputs.outer"))
    arrays = [np.asarray(one.arrays[key]) for one in single if key in one.arrays]
    lost = np.any(np.cumsum(arrays, 0)[-1] != np.cumsum(arrays[::-1], 0)[-1])
    rest = np.any(single[0].merge(single[1]).merge(single[2]).arrays[f"{key}.rest"])
    assert lost == rest == ("large" in request.node.name)


def test_merged_files_are_the_file_of_both_texts(tiny: Path, tmp_path: Path):
    options: dict[str, Any] = {"window": 32, "modules": ["model.layers.0.mlp.down_proj"]}
    both, first = (tmp_path / name for name in ("both", "first"))
    tokens = source.load_tokenizer(tiny)(TEXT[:4000])["input_ids"]
    assert len(tokens) > 64
    measure.measure_model(tiny, calibration_text=TEXT[:4000], out=first, **options)
    again = measure.measure_model(tiny, calibration_text=TEXT[:4000], **options)
    again.save(both)
    assert both.read_bytes() == first.read_bytes()
    one = measure.Statistics.load(first)
    assert one.digest() == again.digest()
    other = measure.measure_model(tiny, calibration_text=TEXT[4000:9000], **options)
    merged = one.merge(other)
    merged.save(both)
    loaded = measure.Statistics.load(both)
    assert content(loaded) == content(other.merge(again))
    assert loaded.origin.tokens == one.origin.tokens + other.origin.tokens
    assert len(loaded.origin.texts) == 2
    assert loaded.origin.repeated == 0
    assert loaded.merge(other).origin.repeated == len(other.origin.windows)


# Factors that match.


def test_matched_sums_weigh_each_token_by_the_other_side():
    model = decoder("llama")
    base = statistics_of(model)
    name = "model.layers.1.self_attn.k_proj"
    layers = {name: chosen(model)[name]}
    found = statistics_of(model, layers=layers, matched=base).moments(name)
    sigma, information = base.sigma(name), base.information(name)[0]
    sigma = sigma + 0.01 * np.trace(sigma) / 32 * np.eye(32)
    information = information + 0.3 * np.trace(information) / 16 * np.eye(16)
    inputs, outputs, pairs = np.zeros((32, 32)), np.zeros((16, 16)), 0.0
    for window in WINDOWS[:, None]:
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = layers[name].module.register_forward_hook(lambda module, x, y, seen=seen: seen.append((x[0], y)))
        (score,) = SCORE(model(window), window)
        hook.remove()
        (gradient,) = torch.autograd.grad(score, seen[0][1])
        for x, g in zip(seen[0][0][0].detach().double().numpy(), gradient[0].double().numpy(), strict=True):
            v, w = x @ np.linalg.solve(sigma, x) / 32, g @ np.linalg.solve(information, g) / 16
            inputs, outputs, pairs = inputs + w * np.outer(x, x), outputs + v * np.outer(g, g), pairs + v * w
    close(found.inputs, inputs / WINDOWS.numel(), 1e-4)
    close(found.outputs[0], outputs / pairs, 1e-4)


def test_rounds_of_matching_find_the_factors_of_what_depends_on_lengths(rng: np.random.Generator):
    """Tokens whose inputs and gradients are scaled by one heavy-tailed number; the plain moments see the tail alone."""
    tokens, columns, rows = 4000, 4, 3
    roots = [rng.standard_normal((n, n)) for n in (columns, rows)]
    common = np.exp(0.9 * rng.standard_normal((tokens, 1)))
    x = common * rng.standard_normal((tokens, columns)) @ roots[0].T
    g = rng.standard_normal((tokens, rows)) @ roots[1].T / common
    layers = {"one": source.matrices(torch.nn.ModuleDict({"one": torch.nn.Linear(columns, rows)}))["one"]}

    def collected(collector: Callable[[Ledger], Any]) -> Statistics:
        ledger = Ledger(layers, rows)
        y = torch.zeros(tokens, rows, requires_grad=True).double() + 0
        act = collector(ledger)
        act.begin(0, torch.tensor([[0]]))
        act("one", torch.from_numpy(x), y)
        (y * torch.from_numpy(g)).sum().backward()
        return ledger.statistics(Origin("", "", (), (), (), (), tokens, tokens))

    def distance(found: np.ndarray, root: np.ndarray) -> float:
        ratio = np.linalg.eigvals(np.linalg.solve(root @ root.T, found)).real
        return float(np.log(ratio.mean()) - np.log(ratio).mean())

    plain = collected(Plain)
    base = plain
    for _ in range(3):
        base = collected(lambda ledger, base=base: Matched(ledger, base, damping=(0.0, 0.0)))
    for side, root in (("inputs", roots[0]), ("outputs", roots[1])):
        found, before = (np.squeeze(getattr(one.moments("one"), side)) for one in (base, plain))
        assert distance(found, root) < 0.5 * distance(before, root)
    final = base.moments("one")
    product = np.einsum("ti,ij,tj->t", x, np.linalg.inv(final.inputs), x)
    product *= np.einsum("ti,ij,tj->t", g, np.linalg.inv(final.outputs[0]), g)
    assert product.mean() / (rows * columns) == pytest.approx(1, rel=0.01)  # the scale that the likelihood asks for


def test_layers_without_gradient_are_not_weighed():
    """By zero weights nothing would be left of their inputs; nor if a layer that no score depends on waited for one."""
    model, dead = decoder("llama"), "model.layers.0.self_attn.v_proj"
    layers = chosen(model)
    layers[dead.replace("v_proj", "o_proj")].parameter.data.zero_()
    base = statistics_of(model, layers=layers)
    assert dead in base.silent
    matched = statistics_of(model, layers=layers, matched=base)
    close(matched.sigma(dead), base.sigma(dead), 1e-12)
    assert matched.tokens(dead) == base.tokens(dead)
    alive = "model.layers.1.mlp.up_proj"
    assert not np.allclose(matched.sigma(alive), base.sigma(alive), rtol=1e-3)


def test_rounds_on_parts_merge_too():
    model = decoder("llama")
    layers, base = chosen(model), statistics_of(model)
    whole = measure_windows(model, layers, WINDOWS, SCORE, matched=base).statistics(origin_of(WINDOWS))
    parts = [
        measure_windows(model, layers, one, SCORE, matched=base).statistics(origin_of(one)) for one in WINDOWS.split(2)
    ]
    assert content(parts[2].merge(parts[0]).merge(parts[1])) == content(whole)


# Little to measure on.


def test_one_token_is_enough_for_positive_moments():
    model = decoder("llama")
    found = statistics_of(model, WINDOWS[:1, :1])
    assert f"{_blocks(model)[0]}self_attn.q_proj" in found.silent  # it attends to itself alone
    for name in found.layers:
        assert np.linalg.eigvalsh(found.sigma(name)).min() > 0
        assert np.linalg.eigvalsh(found.information(name)).min() > 0
        assert found.tokens(name) == 1


def test_layers_without_gradient_are_named_and_harmless():
    model = decoder("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
    found = statistics_of(model)
    assert found.silent == ("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj")
    assert not found.moments("model.layers.1.mlp.up_proj").outputs.any()
    assert np.linalg.eigvalsh(found.information("model.layers.1.mlp.up_proj")).min() > 0


def test_an_expert_that_nothing_reached_has_the_moments_of_its_siblings(parts: Any):
    _, single, _, _ = parts
    for one in single:
        for name in one.layers:
            if one.borrowed(name):
                reached = [other for other in one.layers[name].siblings if not one.borrowed(other)]
                counts = [one.moments(other).input_count for other in reached]
                mean = np.average([one.moments(other).inputs for other in reached], axis=0, weights=counts)
                close(one.moments(name).inputs, mean, 1e-12)
                total = np.sum([one.moments(other).outputs for other in reached], axis=0)
                close(one.moments(name).outputs, total / len(one.layers[name].siblings), 1e-12)
                assert np.linalg.eigvalsh(one.information(name)).min() > 0


def test_a_layer_that_was_not_measured_is_named():
    found = statistics_of(decoder("llama"))
    with pytest.raises(InvalidInputError, match="hold nothing of `lm_head`"):
        found.sigma("lm_head")


# Weighed by attention.


def _attended(model: Any, window: torch.Tensor) -> np.ndarray:
    """Mean attention that the tokens of a window receive in the first block, by loops."""
    model.config._attn_implementation = "eager"
    seen: list[torch.Tensor] = []
    block = model.get_submodule("model.layers.0.self_attn")
    hook = block.register_forward_hook(lambda module, x, y: seen.append(y[1].detach()))
    model(window)
    hook.remove()
    model.config._attn_implementation = "sdpa"
    heads, tokens = seen[0].shape[1:3]
    total = np.zeros(tokens)
    for head in range(heads):
        for query in range(tokens):
            for key in range(query + 1):
                total[key] += float(seen[0][0, head, query, key]) / (heads * (tokens - key))
    return total


def test_inputs_of_queries_keys_and_values_are_weighed_by_attention():
    model = decoder("llama")
    layers, name = chosen(model), "model.layers.0.self_attn"
    attention = Attention(model, layers, WINDOWS[:1])
    assert attention.modules == {"model.layers.0.self_attn", "model.layers.1.self_attn"}
    found, plain = statistics_of(model, attention=attention), statistics_of(model)
    assert model.config._attn_implementation == "sdpa"
    wanted, squares = np.zeros((32, 32)), 0.0
    for window in WINDOWS[:, None]:
        seen: list[torch.Tensor] = []
        hook = layers[f"{name}.q_proj"].module.register_forward_hook(lambda module, x, y, seen=seen: seen.append(x[0]))
        model(window)
        hook.remove()
        x, p = seen[0][0].detach().double().numpy(), _attended(model, window)
        weights = 0.99 * p / p.mean() + 0.01
        wanted, squares = wanted + (x * weights[:, None]).T @ x, squares + np.square(weights).sum()
    for one in "qkv":
        close(found.moments(f"{name}.{one}_proj").inputs, wanted / WINDOWS.numel(), 1e-4)
    assert found.moments(f"{name}.q_proj").input_count == pytest.approx(WINDOWS.numel() ** 2 / squares, rel=1e-4)
    for one in ("self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        close(found.moments(f"model.layers.0.{one}").inputs, plain.moments(f"model.layers.0.{one}").inputs, 1e-4)
    for one in found.layers:
        close(found.moments(one).outputs, plain.moments(one).outputs, 1e-3)


def test_a_layer_beside_attention_that_reads_the_same_tensor_is_not_weighed():
    """In GPT-NeoX with one norm for both, and in Phi, attention and what follows read what one norm gives."""
    model = tiny_model("PhiForCausalLM")
    layers = chosen(model)
    found = statistics_of(model, attention=Attention(model, layers, WINDOWS[:1]))
    plain = statistics_of(model)
    query, beside = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.fc1"
    assert plain.layers[beside].leader == query
    assert found.layers[beside].leader == beside
    close(found.moments(beside).inputs, plain.moments(beside).inputs, 1e-4)
    assert np.abs(found.moments(query).inputs - plain.moments(query).inputs).max() > 0.01


def test_a_model_without_attention_cannot_be_weighed_by_it(tiny: Path):
    model = tiny_model("MambaForCausalLM")
    with pytest.raises(InvalidInputError, match="returns attention around the layers"):
        Attention(model, chosen(model), WINDOWS[:1])
    base = measure.measure_model(tiny, calibration_text=TEXT[:3000], samples=1, window=16, attention=True)
    assert base.origin.method == "weighed by attention"
    with pytest.raises(InvalidInputError, match="in several ways"):
        measure.measure_model(tiny, calibration_text=TEXT, attention=True, matched=base)


def test_groups_of_outputs_weigh_the_inputs_by_their_squared_gradients():
    model = decoder("llama")
    name = "model.layers.1.self_attn.q_proj"
    layers = {name: chosen(model)[name]}
    statistics = statistics_of(model, layers=layers, guides=3)
    assert statistics.layers[name].guides == 2  # the largest divisor of 32
    wanted = np.zeros((2, 32, 32))
    for window in WINDOWS[:, None]:
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = layers[name].module.register_forward_hook(lambda module, x, y, seen=seen: seen.append((x[0], y)))
        (score,) = SCORE(model(window), window)
        hook.remove()
        (gradient,) = torch.autograd.grad(score, seen[0][1])
        for x, g in zip(seen[0][0][0].detach().double().numpy(), gradient[0].double().numpy(), strict=True):
            for group in range(2):
                wanted[group] += np.square(g[16 * group : 16 * group + 16]).mean() * np.outer(x, x) / WINDOWS.numel()
    found = statistics.guided(name)
    for group in range(2):
        lower = statistics.arrays[f"{name}.guided.outer"][group] / WINDOWS.numel()
        close(lower, wanted[group][np.tril_indices(32)], 1e-4)
        scale = statistics.moments(name).coherence
        assert np.trace(found[group]) == pytest.approx(np.trace(wanted[group]) * scale, rel=1e-4)
        assert np.linalg.eigvalsh(found[group]).min() > 0
    plain = statistics_of(model, layers=layers)
    close(statistics.sigma(name), plain.sigma(name), 1e-12)
    with pytest.raises(InvalidInputError, match="measure with `guides`"):
        plain.guided(name)
    parts = [statistics_of(model, one, layers=layers, guides=3) for one in WINDOWS.split(2)]
    assert content(parts[1].merge(parts[2]).merge(parts[0])) == content(statistics)
