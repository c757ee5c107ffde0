"""Coordinates of a layer: found without a run of the loop, and held."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import lattq as lq
from lattq._coordinates import holding, require_below, transform_of
from lattq.errors import InvalidInputError
from lattq.transforms import WUSH, Hadamard, then
from lattq.transforms.affine import Affine
from lattq.transforms.chains import Chain, Folded, split_unit
from lattq.transforms.gain import Gain
from lattq.transforms.maps import Diagonal, Identity, Permutation
from tests.helpers import assert_close

SCHEMES = {
    "plain": lq.recipes.rtn(16, group=8),
    "feedback": lq.recipes.gptq(16, group=8),
    "rotated": dataclasses.replace(lq.recipes.rtn(16, group=8), transform=Hadamard(2)),
    "mapped": dataclasses.replace(lq.recipes.gptq(16, group=8), transform=then(WUSH(4), Hadamard(1))),
    "equalized": lq.recipes.watersic(0.1),
    "merged": lq.recipes.watersic_published(0.1),
}


def layer() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 16)) * np.geomspace(0.1, 10, 16)
    return rng.standard_normal((12, 16)), x.T @ x / 64


@pytest.mark.parametrize("name", SCHEMES)
def test_the_transform_is_that_of_the_quantized_layer(name: str):
    """Up to a power of two, and the gains that the published form merges into its scales."""
    weight, sigma = layer()
    found, quantized = transform_of(weight, sigma, SCHEMES[name]), lq.quantize(weight, sigma, SCHEMES[name])
    rest: Any = split_unit(quantized.transform)[0]
    assert_close(rest.on_inputs(np.eye(16)), found.on_inputs(np.eye(16)), rtol=0.1 if name == "merged" else 1e-12)


@pytest.mark.parametrize("name", ["plain", "feedback", "rotated", "mapped"])
def test_a_held_transform_gives_the_same_bytes(name: str):
    weight, sigma = layer()
    held = holding(SCHEMES[name], transform_of(weight, sigma, SCHEMES[name]))
    assert lq.quantize(weight, sigma, held).payload == lq.quantize(weight, sigma, SCHEMES[name]).payload
    other = holding(SCHEMES[name], Hadamard(9))
    assert lq.quantize(weight, sigma, other).payload != lq.quantize(weight, sigma, SCHEMES[name]).payload


def test_a_held_transform_stays_for_other_inputs():
    weight, sigma = layer()
    for scheme in SCHEMES.values():
        transform = transform_of(weight, sigma, scheme)
        quantized = lq.quantize(weight, sigma + np.eye(16), holding(scheme, transform))
        rest: Any = split_unit(quantized.transform)[0]
        assert_close(rest.on_inputs(np.eye(16)), transform.on_inputs(np.eye(16)))


def test_weights_beyond_the_dtype_are_named():
    require_below(1.0, 2.0, np.ones(1))
    with pytest.raises(InvalidInputError, match="reach 3, but float64 holds up to 2"):
        require_below(3.0, 2.0, np.ones(1))


@pytest.mark.parametrize(
    ("transform", "columns", "wanted"),
    [
        (Identity(), 8, 0),
        (Permutation(np.arange(8)[::-1].copy()), 8, 0),
        (Diagonal(np.full(8, 0.3)), 8, 8),
        (Gain(4.0), 8, 0),
        (Gain(3.0), 8, 8),
        (Hadamard(1), 8, 8 * 3),
        (Hadamard(1), 24, 24 * (11 + 1)),
        (Affine(np.eye(8)), 8, 64),
        (Affine(np.stack([np.eye(4)] * 2)), 8, 32),
        (Chain((Hadamard(1), Diagonal(np.full(8, 0.3)), Gain(2.0))), 8, 32),
        (Folded(Hadamard(1)), 8, 0),
    ],
    ids=str,
)
def test_operations_and_undone_inputs(xp, transform, columns: int, wanted: int):
    assert transform.operations(columns) == wanted
    x = xp.asarray(np.random.default_rng(0).standard_normal((3, columns)))
    assert_close(transform.inverse_on_inputs(transform.on_inputs(x)), x)
