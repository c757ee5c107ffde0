"""Rounded inputs: errors, grids, units and tokens of `InputRounding`, and what it does with what no range fits."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run import InputRounding
from lattq.llm.run.inputs import input_block, read_input_block

EPS = float(np.finfo(np.float64).eps)
clips = st.sampled_from([0.25, 0.6, 0.975, 1.0])
roundings = st.fixed_dictionaries({"bits": st.integers(2, 8), "symmetric": st.booleans(), "clip": clips})
seeds = st.integers(0, 2**32 - 1)


def tokens(seed: int, columns: int = 7) -> torch.Tensor:
    """Five tokens of different units and signs, one of zeros."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5, columns)) * np.exp(3 * rng.standard_normal((5, 1)))
    x[1], x[2], x[3] = np.abs(x[1]), -np.abs(x[2]), 0.0
    return torch.from_numpy(x)


def ends(x: np.ndarray, how: InputRounding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of the range of every token, and its step, as NumPy finds them."""
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    steps = 2**how.bits - 1
    if how.symmetric:
        high = np.maximum(high, -low)
        low, steps = -high, 2**how.bits - 2
    return how.clip * low, how.clip * high, how.clip * (high - low) / steps


@given(seed=seeds, options=roundings)
def test_errors_inside_the_range_are_half_a_step(seed: int, options: dict):
    how, x = InputRounding(**options), tokens(seed)
    found, (low, high, step) = how(x).numpy(), ends(x.numpy(), how)
    room = 16 * EPS * np.abs(x.numpy()).max(-1, keepdims=True)
    error = np.abs(found - np.clip(x.numpy(), low, high))
    assert (error <= step / 2 + room).all()
    truncated = np.floor(np.divide(x.numpy(), step, where=step > 0, out=np.zeros_like(found))) * step
    assert (np.abs(truncated - x.numpy()) > step / 2 + room).any()  # a rounding that only truncates is found


@given(seed=seeds, options=roundings)
def test_tokens_lie_on_a_grid_through_zero_of_as_many_integers_as_there_are(seed: int, options: dict):
    how, x = InputRounding(**options), tokens(seed)
    x[:, 0] = 0.0
    found, (_, _, step) = how(x).numpy(), ends(x.numpy(), how)
    codes = np.divide(found, step, where=step > 0, out=np.zeros_like(found))
    assert np.abs(codes - np.rint(codes)).max() < 64 * 2**how.bits * EPS
    assert (np.ptp(np.rint(codes), axis=-1) < 2**how.bits).all()
    assert (found[:, 0] == 0).all()
    assert (found[3] == 0).all()


@given(seed=seeds, options=roundings, power=st.integers(-300, 300))
def test_a_power_of_two_changes_the_unit_alone(seed: int, options: dict, power: int):
    how, x = InputRounding(**options), tokens(seed)
    assert torch.equal(how(x * 2.0**power), how(x) * 2.0**power)


@given(seed=seeds, options=roundings)
def test_no_token_depends_on_another(seed: int, options: dict):
    how, x = InputRounding(**options), tokens(seed)
    alone = torch.stack([how(one) for one in x])
    assert torch.equal(how(x), alone)
    assert torch.equal(how(x[[3, 0, 4]].reshape(3, 1, -1)), alone[[3, 0, 4]].reshape(3, 1, -1))
    whole = how(x.reshape(1, -1)).reshape(x.shape)
    assert not torch.equal(whole, alone)  # one range for all of them is another rounding


@given(seed=seeds, bits=st.integers(2, 8), symmetric=st.booleans())
def test_rounding_again_changes_nothing(seed: int, bits: int, symmetric: bool):
    """Where no end of a range lies between two integers, and nothing is clipped."""
    how, x = InputRounding(bits, symmetric), tokens(seed)
    _, high, step = ends(x.numpy(), how)
    turn = np.divide(high, step, where=step > 0, out=np.zeros_like(high)) % 1
    assume((np.abs(turn - 0.5) > 1e-6).all())
    once = how(x)
    room = 64 * EPS * x.abs().amax(-1, keepdim=True)
    assert ((how(once) - once).abs() <= room).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_dtype_at_its_ends(dtype: torch.dtype, symmetric: bool):
    """Huge and tiny tokens keep half a step; narrow types are those of float32, rounded."""
    how, info = InputRounding(4, symmetric), torch.finfo(dtype)
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (3, 9))).to(dtype)
    x[0] *= info.max / (4 if dtype == torch.float64 else 1)  # NumPy's range of it is in float64, too
    x[1] *= info.smallest_normal
    found = how(x)
    assert found.dtype == dtype
    _, _, step = ends(x.double().numpy(), how)
    error = (found.double() - x.double()).abs().numpy()
    room = info.eps * np.abs(x.double().numpy()) + 2 * info.smallest_normal * info.eps
    assert (error <= step * (0.5 + 16 * info.eps) + room).all()
    if dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(found, how(x.float()).clamp(info.min, info.max).to(dtype))


def test_tokens_without_numbers_stay_without():
    x = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0], [1.0, -float("inf")], [1.0, 2.0]])
    for how in (InputRounding(), InputRounding(symmetric=True)):
        found = how(x)
        assert found[:3].isnan().all()
        assert found[3].isfinite().all()
    assert InputRounding()(torch.empty(0, 3)).shape == (0, 3)
    assert InputRounding()(torch.empty(2, 0, 3)).shape == (2, 0, 3)


def test_the_smallest_example_is_as_published():
    """(max - min) / 15, zero point 5: 16 integers from -5 to 10."""
    x = torch.tensor([[-1.0, 2.0, 0.29, 0.31, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, 2.0, 0.2, 0.4, 0.0]], dtype=torch.float64)
    assert torch.allclose(InputRounding(4)(x), expected, atol=1e-15)
    assert torch.allclose(InputRounding(4, clip=0.5)(x)[0, :2], expected[0, :2] / 2, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "`bits` is 1"),
        ({"bits": 9}, "`bits` is 9"),
        ({"clip": 0.0}, "`clip` is 0"),
        ({"clip": 1.5}, "`clip` is 1.5"),
        ({"clip": float("nan")}, "`clip` is nan"),
    ],
)
def test_unusable_options_raise(options: dict[str, Any], message: str):
    with pytest.raises(InvalidInputError, match=message):
        InputRounding(**options)


@pytest.mark.parametrize("x", [torch.tensor(1.0), torch.arange(3), torch.ones(2, dtype=torch.complex64)])
def test_what_is_no_token_raises(x: torch.Tensor):
    with pytest.raises(InvalidInputError, match="tokens of floating-point numbers"):
        InputRounding()(x)


BLOCK = {"num_bits": 4, "symmetric": False, "strategy": "token", "dynamic": True, "clip": {"a": 0.5, "b": 1.0}}


def test_a_block_says_what_it_was_made_of():
    inputs = {"a": InputRounding(4, clip=0.5), "b": InputRounding(4)}
    assert input_block(inputs) == BLOCK
    assert read_input_block(BLOCK, ["b", "a"]) == inputs
    assert input_block({}) is None
    assert read_input_block(None, ["a"]) == {}
    with pytest.raises(InvalidInputError, match="2 ways"):
        input_block({"a": InputRounding(4), "b": InputRounding(8)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_bits": 9}, "`num_bits` is 9"),
        ({"num_bits": True}, "`num_bits` is True"),
        ({"symmetric": 0}, "`symmetric` is 0"),
        ({"strategy": "tensor"}, "`strategy` is 'tensor'"),
        ({"dynamic": 1}, "`dynamic` is 1"),
        ({"clip": {"a": 0.5}}, "each quantized layer"),
        ({"clip": {"a": 0.5, "b": 1.0, "c": 1.0}}, "each quantized layer"),
        ({"clip": [0.5, 1.0]}, "each quantized layer"),
        ({"clip": {"a": 0.5, "b": 1}}, "clip of b"),
        ({"clip": {"a": 0.0, "b": 1.0}}, "clip of a"),
        ({"clip": {"a": 0.5, "b": float("nan")}}, "clip of b"),
        ({"group_size": 4}, "input_activations"),
    ],
)
def test_a_damaged_block_raises(change: dict[str, Any], message: str):
    with pytest.raises(DamagedFileError, match=message):
        read_input_block(BLOCK | change, ["a", "b"])
    with pytest.raises(DamagedFileError, match="input_activations"):
        read_input_block("int4", ["a", "b"])
