"""Core ML packages: what is written is read, to the last bit, and decoded the same by Core ML Tools."""

import builtins
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.export import coreml
from lattq.export.coreml import LookupTable
from tests.damage import damaged_bytes, refusal_allowed
from tests.strategies import seeds

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("coremltools") is None,
    reason="coremltools is not installed",
)

SIZES = [2, 4, 8, 16, 64, 256]
SPEC = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def random_layer(
    rng: np.random.Generator, size: int, dimension: int = 1, axis: int = 1, groups: tuple[int, int] = (1, 1)
) -> LookupTable:
    """Any float16 entries, subnormal and negative zero among them; an odd number of indices in a group."""
    patterns = rng.integers(0, 1 << 16, (*groups, size, dimension), dtype=np.uint16)
    patterns = np.where(patterns & 0x7C00 == 0x7C00, patterns & 0x83FF, patterns)  # infinities and NaN to subnormals
    tables = patterns.astype(np.uint16).view(np.float16)
    return LookupTable(rng.integers(0, size, (3 * groups[0], 5 * groups[1])), tables, axis)


def decoded_slowly(layer: LookupTable) -> np.ndarray:
    """The weight, one index at a time."""
    groups, dimension = layer.tables.shape[:2], layer.tables.shape[3]
    rows, columns = layer.indices.shape
    weight = np.full((rows, columns * dimension) if layer.axis else (rows * dimension, columns), np.nan, np.float16)
    for i, j, k in product(range(rows), range(columns), range(dimension)):
        table = layer.tables[i * groups[0] // rows, j * groups[1] // columns]
        place = (i, j * dimension + k) if layer.axis else (i * dimension + k, j)
        weight[place] = table[layer.indices[i, j], k]
    return weight


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree in shape, type and every bit: -0 is not 0."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def same(a: LookupTable, b: LookupTable) -> bool:
    """Whether two layers hold the same indices, tables and axis."""
    return a.axis == b.axis and same_bits(a.indices, b.indices) and same_bits(a.tables, b.tables)


def all_layers(rng: np.random.Generator) -> dict[str, LookupTable]:
    """Every width, vectors of 1, 2 and 4 along both axes, and groups of rows, of columns and of both."""
    return {
        f"layer.{size}/{dimension} {axis}{groups}": random_layer(rng, size, dimension, axis, groups)
        for size, dimension, axis, groups in product(SIZES, [1, 2, 4], [0, 1], [(1, 1), (4, 1), (1, 3), (2, 3)])
    }


@pytest.fixture
def layer(rng: np.random.Generator) -> LookupTable:
    """A layer of several groups and vectors."""
    return random_layer(rng, 8, 2, 1, (2, 3))


@pytest.fixture
def package(tmp_path: Path, layer: LookupTable) -> Path:
    """A package with one layer."""
    coreml.write(tmp_path / "model.mlpackage", {"one": layer})
    return tmp_path / "model.mlpackage"


def specification(package: Path) -> Any:
    """The model of a package."""
    import coremltools

    return coremltools.utils.load_spec(str(package))


def program(package: Path) -> Any:
    """The main function of a package, loaded by Core ML Tools alone."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = specification(package)
    return load(spec, spec.specificationVersion, file_weights_dir=str((package / WEIGHTS).parent)).functions["main"]


def test_every_layout_comes_back_to_the_last_bit(tmp_path: Path, rng: np.random.Generator):
    layers = all_layers(rng)
    coreml.write(tmp_path / "model.mlpackage", layers)
    assert os.listdir(tmp_path) == ["model.mlpackage"]
    found = coreml.read(tmp_path / "model.mlpackage")
    assert list(found) == list(layers)
    assert all(same(found[name], layers[name]) for name in layers)


def test_every_layout_is_decoded_alike_by_core_ml_tools(tmp_path: Path, rng: np.random.Generator):
    layers = all_layers(rng)
    coreml.write(tmp_path / "model.mlpackage", layers)
    outputs = program(tmp_path / "model.mlpackage").outputs
    assert len(outputs) == len(layers)
    for output, layer in zip(outputs, layers.values(), strict=True):
        assert output.op.op_type == "linear"
        assert same_bits(output.op.weight.op.materialized_val_inference(), layer.dense())
        assert same_bits(layer.dense(), decoded_slowly(layer))
        assert output.op.x.shape == (1, layer.shape[1])
        assert output.shape == (1, layer.shape[0])
        assert not output.op.bias.val.any()


def test_the_program_is_what_the_converter_writes(tmp_path: Path, layer: LookupTable, monkeypatch: pytest.MonkeyPatch):
    import coremltools
    from coremltools.converters.mil.backend.mil import load as backend

    programs, direct = [], backend.load
    monkeypatch.setattr(
        backend, "load", lambda program, **options: programs.append(program) or direct(program, **options)
    )
    coreml.write(tmp_path / "model.mlpackage", {"one": layer})
    monkeypatch.undo()
    with pytest.warns(ResourceWarning):
        converted: Any = coremltools.convert(
            programs[0],
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS18,
            pass_pipeline=coremltools.PassPipeline(pass_names=[]),
            skip_model_load=True,
            package_dir=str(tmp_path / "converted.mlpackage"),
        )
    ours, theirs = specification(tmp_path / "model.mlpackage"), converted.get_spec()
    assert ours.specificationVersion == theirs.specificationVersion == coremltools.target.iOS18
    assert ours.mlProgram.functions == theirs.mlProgram.functions
    assert (tmp_path / "model.mlpackage" / WEIGHTS).read_bytes() == (
        tmp_path / "converted.mlpackage" / WEIGHTS
    ).read_bytes()


def test_indices_are_packed_at_their_width(tmp_path: Path, rng: np.random.Generator):
    """The file grows by the bits of the indices; LSB first, checked against a stream packed here."""
    for size in SIZES:
        width = size.bit_length() - 1
        layer = LookupTable(rng.integers(0, size, (16, 128)), rng.standard_normal((1, 1, size, 1)).astype(np.float16))
        coreml.write(tmp_path / f"{size}.mlpackage", {"one": layer})
        blob = (tmp_path / f"{size}.mlpackage" / WEIGHTS).read_bytes()
        bits = (layer.indices.reshape(-1, 1) >> np.arange(width)) & 1
        assert np.packbits(bits.astype(np.uint8), bitorder="little").tobytes() in blob
        # Indices, entries and a bias of zeros; heads and padding of at most 128 bytes each, and 64 of the file.
        stored = layer.bits * 2048 / 8 + 2 * 16
        assert stored <= len(blob) <= stored + 3 * 128 + 64


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=seeds,
    size=st.sampled_from(SIZES),
    dimension=st.integers(1, 9),
    axis=st.integers(0, 1),
    groups=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_round_trip(tmp_path: Path, seed: int, size: int, dimension: int, axis: int, groups: tuple[int, int]):
    layer = random_layer(np.random.default_rng(seed), size, dimension, axis, groups)
    coreml.write(tmp_path / "model.mlpackage", {"": layer}, overwrite=True)
    assert same(coreml.read(tmp_path / "model.mlpackage")[""], layer)
    assert same_bits(layer.dense(), decoded_slowly(layer))


def test_a_single_number_and_a_single_entry_of_each_kind(tmp_path: Path):
    """Constants this small stand in the program, not in the weight file."""
    layers = {
        str(size): LookupTable(np.array([[size - 1]]), np.arange(size * 1.0).reshape(1, 1, size, 1)) for size in SIZES
    }
    coreml.write(tmp_path / "model.mlpackage", layers)
    found = coreml.read(tmp_path / "model.mlpackage")
    assert all(same(found[name], layers[name]) for name in layers)
    coreml.write(tmp_path / "tiny.mlpackage", {"2": layers["2"]})
    assert same(coreml.read(tmp_path / "tiny.mlpackage")["2"], layers["2"])


def test_names_that_coincide_are_told_apart(tmp_path: Path, rng: np.random.Generator):
    names = [
        "a.b",
        "a_b",
        "a/b",
        "a_b_2",
        "0",
        "_0",
        "ä",
        "\ud800",
        "main",
        "a_b_input",
        "a_b_weight",
        "a_b_weight_indices_0",
    ]
    layers = {name: random_layer(rng, 4) for name in names}
    coreml.write(tmp_path / "model.mlpackage", layers)
    found = coreml.read(tmp_path / "model.mlpackage")
    assert list(found) == names
    assert all(same(found[name], layers[name]) for name in names)
    main = program(tmp_path / "model.mlpackage")
    assert len(main.inputs) == len({output.name for output in main.outputs}) == len(names)
    assert list(main.inputs)[:4] == ["a_b_input", "a_b_2_input", "a_b_3_input", "a_b_2_2_input"]


def test_what_is_written_does_not_depend_on_what_was_written_before(package: Path, layer: LookupTable):
    before = specification(package), (package / WEIGHTS).read_bytes()
    coreml.write(package, {"one": layer}, overwrite=True)
    assert (specification(package), (package / WEIGHTS).read_bytes()) == before
    coreml.write(package, {"other": layer}, overwrite=True)
    assert specification(package) != before[0]


def test_the_metadata_maps_names(package: Path):
    spec = specification(package)
    entry = json.loads(spec.description.metadata.userDefined["lattq"])["layers"][0]
    assert (entry["name"], entry["in_program"]) == ("one", "one")


# Negative controls.


def rewrite(package: Path, weights: bytes) -> None:
    """Put other weights into a package, and the hash of the file that goes with them."""
    before = coreml._file_hash(package / WEIGHTS)
    (package / WEIGHTS).write_bytes(weights)
    spec = specification(package)
    user = spec.description.metadata.userDefined
    user["lattq"] = user["lattq"].replace(before, coreml._file_hash(package / WEIGHTS))
    (package / SPEC).write_bytes(spec.SerializeToString())


def test_a_changed_index_or_entry_is_seen(package: Path, layer: LookupTable):
    blob = (package / WEIGHTS).read_bytes()
    rewrite(package, blob)
    assert same(coreml.read(package)["one"], layer)
    for constant in (program(package).outputs[0].op.weight.op.indices, program(package).outputs[0].op.weight.op.lut):
        raw = np.asarray(constant.val)
        if raw.dtype == np.float16:
            data = raw.tobytes()
        else:
            data = np.packbits((raw.reshape(-1, 1) >> np.arange(3)) & 1, bitorder="little").tobytes()
        place = blob.index(data)
        rewrite(package, blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :])
        with pytest.raises(DamagedFileError, match="the weight of 'one' has changed"):
            coreml.read(package)


def test_comparisons_can_fail(layer: LookupTable):
    swapped = layer.indices.copy()
    other = np.argwhere(swapped != swapped[0, 0])[0]
    swapped[0, 0], swapped[tuple(other)] = swapped[tuple(other)], swapped[0, 0]
    permuted = LookupTable(swapped, layer.tables)
    assert not same(permuted, layer)
    assert not same_bits(permuted.dense(), layer.dense())
    negative = LookupTable(layer.indices, -layer.tables)
    assert not same(negative, layer)
    assert not same_bits(negative.dense(), layer.dense())
    assert not same(LookupTable(layer.indices, layer.tables, 0), layer)
    assert not same_bits(np.zeros(1), -np.zeros(1))


# Damage.


@pytest.mark.parametrize("name", ["Manifest.json", SPEC, WEIGHTS])
def test_a_missing_or_cut_file_is_damage(package: Path, name: str):
    whole = (package / name).read_bytes()
    for rest in (whole[: len(whole) // 2], b""):
        (package / name).write_bytes(rest)
        with pytest.raises(DamagedFileError):
            coreml.read(package)
    (package / name).unlink()
    with pytest.raises(DamagedFileError):
        coreml.read(package)
    assert not (package / name).exists()  # reading repairs nothing


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_harmless(package: Path, layer: LookupTable, data: st.DataObject):
    name = data.draw(st.sampled_from(["Manifest.json", SPEC, WEIGHTS]))
    whole = (package / name).read_bytes()
    (package / name).write_bytes(data.draw(damaged_bytes(whole)))
    try:
        with refusal_allowed():
            assert same(coreml.read(package)["one"], layer)
            assert name != WEIGHTS
    finally:
        (package / name).write_bytes(whole)
    assert same(coreml.read(package)["one"], layer)


def test_a_package_of_another_origin_is_refused(package: Path):
    spec = specification(package)
    notes = spec.description.metadata.userDefined["lattq"]
    for other in [
        "",
        "{}",
        "[]",
        "1",
        notes.replace('"format": 1', '"format": 2'),
        notes.replace('"axis": 1', '"axis": 0'),
    ]:
        spec.description.metadata.userDefined["lattq"] = other
        (package / SPEC).write_bytes(spec.SerializeToString())
        with pytest.raises(DamagedFileError):
            coreml.read(package)


def test_a_package_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.mlpackage"):
        coreml.read(tmp_path / "none.mlpackage")
    (tmp_path / "file.mlpackage").write_bytes(b"text")
    with pytest.raises(DamagedFileError):
        coreml.read(tmp_path / "file.mlpackage")


# Writing.


def test_nothing_partial_remains(tmp_path: Path, layer: LookupTable, monkeypatch: pytest.MonkeyPatch):
    import coremltools

    coreml.write(tmp_path / "old.mlpackage", {"old": layer})

    def fails(*_args: Any, **_options: Any) -> None:
        msg = "no space left"
        raise OSError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(coremltools.utils, "save_spec", fails)
        for name in ("old", "new"):
            with pytest.raises(OSError, match="no space left"):
                coreml.write(tmp_path / f"{name}.mlpackage", {"new": layer}, overwrite=True)
    assert os.listdir(tmp_path) == ["old.mlpackage"]
    rename = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda self, to: fails() if self.name == "new.mlpackage" else rename(self, to))
        with pytest.raises(OSError, match="no space left"):
            coreml.write(tmp_path / "old.mlpackage", {"new": layer}, overwrite=True)
    assert os.listdir(tmp_path) == ["old.mlpackage"]
    assert list(coreml.read(tmp_path / "old.mlpackage")) == ["old"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_have_the_modes_of_the_umask(tmp_path: Path, layer: LookupTable, umask: int):
    before = os.umask(umask)
    try:
        coreml.write(tmp_path / "new.mlpackage", {"layer": layer})
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "new.mlpackage").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


def test_a_taken_path_is_refused(package: Path, layer: LookupTable):
    with pytest.raises(InvalidInputError, match="overwrite=True"):
        coreml.write(package, {"two": layer})
    assert list(coreml.read(package)) == ["one"]
    coreml.write(package, {"two": layer}, overwrite=True)
    assert list(coreml.read(package)) == ["two"]
    assert os.listdir(package.parent) == [package.name]


def test_something_else_is_never_overwritten(tmp_path: Path, package: Path, layer: LookupTable):
    (tmp_path / "folder.mlpackage").mkdir()
    (tmp_path / "file.mlpackage").write_bytes(b"text")
    (tmp_path / "link.mlpackage").symlink_to(package)
    for name in ("folder", "file", "link"):
        with pytest.raises(InvalidInputError, match="is no Core ML package"):
            coreml.write(tmp_path / f"{name}.mlpackage", {"one": layer}, overwrite=True)
    with pytest.raises(InvalidInputError, match=r"ends in \.mlpackage"):
        coreml.write(tmp_path / "model.mlmodel", {"one": layer})
    with pytest.raises(FileNotFoundError):
        coreml.write(tmp_path / "none" / "model.mlpackage", {"one": layer})


@pytest.mark.usefixtures("unchecked")
def test_bad_layers_are_refused(tmp_path: Path, layer: LookupTable):
    wrong: list[Any] = [{}, {"one": layer.dense()}, {1: layer}]
    for layers in wrong:
        with pytest.raises(InvalidInputError, match="`layers`"):
            coreml.write(tmp_path / "model.mlpackage", layers)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", ["coremltools", "coremltools.libmilstoragepython", "coremltools.libmodelpackage"])
def test_without_core_ml_tools_the_message_says_what_to_install(
    tmp_path: Path, package: Path, layer: LookupTable, monkeypatch: pytest.MonkeyPatch, part: str
):
    direct = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name == part:
            raise ModuleNotFoundError(name=name)
        return direct(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InvalidInputError, match=rf"need {part}: pip install lattq\[coreml\]"):
        coreml.write(tmp_path / "other.mlpackage", {"one": layer})
    with pytest.raises(InvalidInputError, match=rf"need {part}: pip install lattq\[coreml\]"):
        coreml.read(package)
    assert os.listdir(tmp_path) == [package.name]


def test_core_ml_tools_are_imported_when_needed():
    code = "import sys, lattq.export.coreml; sys.exit('coremltools' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_large_layers_are_not_decompressed(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    """Core ML Tools decompress a constant by repeating the table for every index: 512 bytes for one of 256 entries."""
    from coremltools.optimize import _utils

    def refuse(*_args: Any, **_options: Any) -> None:
        pytest.fail("a weight was decompressed")

    monkeypatch.setattr(_utils, "lut_to_dense", refuse)
    layer = random_layer(rng, 16, 2)
    coreml.write(tmp_path / "model.mlpackage", {"one": layer})
    assert same(coreml.read(tmp_path / "model.mlpackage")["one"], layer)
    with pytest.raises(pytest.fail.Exception):
        program(tmp_path / "model.mlpackage").outputs[0].op.weight.op.materialized_val_inference()


def test_a_package_may_be_moved(package: Path, layer: LookupTable):
    shutil.move(package, package.with_name("moved.mlpackage"))
    assert same(coreml.read(str(package.with_name("moved.mlpackage")))["one"], layer)
