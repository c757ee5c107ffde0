"""Parts of another package: found by entry point, in the loop, in files, in products; named when they are missing."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import lattq as lq
from lattq.errors import DamagedFileError, InvalidInputError, MissingPartError
from lattq.export.lookup import lookup_table
from lattq.parts.registry import find, kind_of
from lattq.testing import check_coder, check_quantizer, check_transform
from lattq.transforms.maps import Identity
from tests.plugin import NAME, forget, install
from tests.strategies import gaussian_layer

KINDS = {"quantizer": "powers", "transform": "reflection", "coder": "deflate"}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield install(tmp_path, monkeypatch)
    sys.modules.pop(NAME, None)


def scheme(package: ModuleType, group: int | None = None) -> lq.Scheme:
    return lq.Scheme(transform=package.Reflect(), quantizer=package.Powers(group=group), coder=package.Deflate())


def test_a_package_is_found_when_a_file_needs_it(installed: ModuleType, monkeypatch: pytest.MonkeyPatch):
    weight, sigma = gaussian_layer(24, 8)
    layer = lq.quantize(weight, sigma, scheme(installed))
    assert layer.distortion(weight, sigma) < 0.05 * np.trace(sigma) / 8
    blob = layer.to_bytes()
    forget(monkeypatch)
    again = lq.Quantized.from_bytes(blob)
    assert type(again.quantizer) is not type(layer.quantizer)  # the module was imported anew
    np.testing.assert_array_equal(again.dequantize(np.float64), layer.dequantize(np.float64))
    assert again.to_bytes() == blob


def test_a_missing_package_is_named(installed: ModuleType, monkeypatch: pytest.MonkeyPatch):
    blob = lq.quantize(*gaussian_layer(24, 8), scheme(installed)).to_bytes()
    forget(monkeypatch)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not list(Path(p).glob(f"{NAME}*"))])
    with pytest.raises(MissingPartError, match=r"needs the .* 'lattq-example/.*'; pip install lattq-example") as caught:
        lq.Quantized.from_bytes(blob)
    assert caught.value.kind == f"lattq-example/{KINDS[caught.value.role]}"


def test_an_entry_point_of_any_name_is_found_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch, {"parts": NAME})
    forget(monkeypatch)
    assert find("coder", "lattq-example/deflate").__name__ == "Deflate"
    sys.modules.pop(NAME)


def test_an_installed_package_without_an_entry_point_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch, {})
    forget(monkeypatch)
    message = r"lattq-example 1.0 is installed, but has no entry point in the group 'lattq.parts'"
    with pytest.raises(MissingPartError, match=message):
        find("coder", "lattq-example/deflate")


def test_an_installed_package_without_the_part_is_named(installed: ModuleType):
    with pytest.raises(MissingPartError, match="lattq-example is installed, but registers no coder"):
        find("coder", "lattq-example/other")
    with pytest.raises(DamagedFileError, match="no coder 'other'"):
        find("coder", "other")


def test_a_package_that_does_not_load_is_named(installed: ModuleType, monkeypatch: pytest.MonkeyPatch):
    forget(monkeypatch)
    monkeypatch.setitem(sys.modules, NAME, None)  # importing it fails
    with pytest.raises(MissingPartError, match="does not load"):
        find("coder", "lattq-example/deflate")


@pytest.mark.parametrize("group", [None, 3])
def test_groups_that_no_one_joins_are_kept_side_by_side(installed: ModuleType, group: int | None):
    weight, sigma = gaussian_layer(24, 8)
    plain = dataclasses.replace(scheme(installed, group), coder=None, transform=Identity())
    layer = lq.quantize(weight, sigma, plain)
    assert kind_of("quantizer", layer.quantizer) == ("groups" if group else "lattq-example/powers")
    again = lq.Quantized.from_bytes(layer.to_bytes())
    np.testing.assert_array_equal(again.dequantize(np.float64), layer.dequantize(np.float64))
    assert again.to_bytes() == layer.to_bytes()


def test_packed_products_take_the_form_of_the_part(installed: ModuleType):
    weight, sigma = gaussian_layer(24, 8)
    layer = lq.quantize(weight, sigma, scheme(installed))
    x = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    expected = layer.dequantize(np.float64) @ x
    found = lq.packed.PackedMatrix.from_quantized(layer).matvec(x)
    size = np.abs(layer.dequantize()).max() * np.abs(x).max()
    np.testing.assert_allclose(found, expected, atol=16 * 8 * size * np.finfo(np.float32).eps)


def test_a_form_that_a_part_lacks_is_named(installed: ModuleType):
    layer = lq.quantize(*gaussian_layer(24, 8), scheme(installed))
    with pytest.raises(InvalidInputError, match=r"has no tables.*write `table_form` in PowersQuantizer"):
        lookup_table(layer)
    grouped = lq.quantize(*gaussian_layer(24, 8), scheme(installed, 4))
    with pytest.raises(InvalidInputError, match="write `packed_form` in"):
        lq.packed.PackedMatrix.from_quantized(grouped)


def test_refits_leave_tables_that_a_part_does_not_have(installed: ModuleType):
    weight, sigma = gaussian_layer(24, 8)
    layer = lq.quantize(weight, sigma, scheme(installed))
    better = lq.refit(layer, weight, sigma)
    assert better.distortion(weight, sigma) <= layer.distortion(weight, sigma)
    assert better.centroids is None


def test_the_parts_keep_the_contracts(installed: ModuleType):
    check_quantizer(installed.PowersQuantizer(16.0, 7), columns=3, code_range=(-7, 7))
    check_transform(installed.Reflect())
    check_coder(installed.Deflate())


def test_a_broken_part_breaks_a_contract(installed: ModuleType):
    class Odd(installed.PowersQuantizer):
        def encode(self, x: np.ndarray) -> np.ndarray:
            return super().encode(np.where(np.isfinite(x), np.floor(x), x))

    lq.register("quantizer", "lattq-example/odd")(Odd)
    with pytest.raises(AssertionError) as caught:
        check_quantizer(Odd(16.0, 7))
    assert any("the law that is broken: " in note for note in caught.value.__notes__)
