"""Core ML packages of look-up-table weights: written with the indices as they are, and read back exactly.

Each layer becomes y = linear(x, weight) on a row x, the weight being a `constexpr_lut_to_dense` of the iOS 18 opset. No
k-means and no search for the nearest entry runs on the way, so what was quantized is what the package holds. Indices of
1, 2, 3, 4, 6 or 8 bits are packed by coremltools, which this module needs: `pip install lattq[coreml]`.

The user-defined metadata of the package has a key "lattq": a JSON value with the layers' own names, the names they have
in the program, and hashes. `read` checks them.
"""

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.export.tables import LookupTable
from lattq.files import plain_modes

__all__ = ["LookupTable", "read", "write"]

_KEY, _FORMAT = "lattq", 1
_WEIGHTS = "Data/com.apple.CoreML/weights"


def write(path: str | Path, layers: Mapping[str, LookupTable], *, overwrite: bool = False) -> None:
    """Write layers to a Core ML package, atomically: the package appears whole or not at all.

    Layer "a.b" has the input "a_b_input", (1, columns), and the output "a_b_output", (1, rows), both float16. All but
    ASCII letters and digits becomes "_", and names that then coincide are numbered.

    Parameters
    ----------
    path : package to make, its name ending in ".mlpackage"
    layers : weights by name
    overwrite : replace a package that is there

    Raises
    ------
    InvalidInputError : if `layers` is empty or holds something else, the path does not end in ".mlpackage" or is taken,
        or coremltools is missing.
    OSError : if the folder is missing or refuses.

    References
    ----------
    Core ML Tools, iOS 18 operations, `constexpr_lut_to_dense`.

    Examples
    --------
    >>> import tempfile
    >>> layer = LookupTable(np.array([[0, 1], [1, 1]]), np.array([[[[-0.5], [0.25]]]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/model.mlpackage", {"block.0.up": layer})
    ...     found = read(f"{folder}/model.mlpackage")
    >>> found["block.0.up"].dense()
    array([[-0.5 ,  0.25],
           [ 0.25,  0.25]], dtype=float16)
    """
    path = Path(path).absolute()
    _check_layers(layers)
    _check_free(path, overwrite)
    coremltools = _coremltools()
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        package, weights = partial / "new.mlpackage", partial / "weights"
        weights.mkdir()
        names = _names_in_program(layers)
        spec = _program(coremltools, layers, names, weights)
        notes = _notes(layers, names, _file_hash(weights / "weight.bin"))
        spec.description.metadata.userDefined[_KEY] = json.dumps(notes)
        coremltools.utils.save_spec(spec, str(package), weights_dir=str(weights))
        plain_modes(package)
        _put(package, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(path: str | Path) -> dict[str, LookupTable]:
    """Read what `write` wrote: the same names, indices, tables and axes.

    Raises
    ------
    DamagedFileError : if the package is incomplete, altered, or of another origin.
    InvalidInputError : if coremltools is missing.
    OSError : if there is no such package, or it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory(suffix=".mlpackage") as empty:
    ...     try:
    ...         read(empty)
    ...     except DamagedFileError as error:
    ...         print(str(error).split(": ")[-1])
    it has no Manifest.json
    """
    path = Path(path).absolute()
    if not path.exists():
        msg = f"there is no package {path}"
        raise FileNotFoundError(msg)
    coremltools = _coremltools()
    try:
        # Opening a folder without a manifest would make one.
        if not (path / "Manifest.json").is_file():
            msg = "it has no Manifest.json"
            raise DamagedFileError(msg)
        spec = coremltools.utils.load_spec(str(path))
        notes = json.loads(spec.description.metadata.userDefined[_KEY])
        if notes["format"] != _FORMAT or notes["weights"] != _file_hash(path / _WEIGHTS / "weight.bin"):
            msg = "its weights are not those that its metadata describes"
            raise DamagedFileError(msg)
        return _layers(spec, notes, path / _WEIGHTS)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # the parsers of protocol buffers, JSON, MIL and weights each have their own
        msg = f"{path} is not a package that lattq wrote: {error}"
        raise DamagedFileError(msg) from error


def _coremltools() -> Any:
    """Core ML Tools, imported without its remarks on converters that are not used here."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import coremltools
        import coremltools.libmilstoragepython
        import coremltools.libmodelpackage
    except ImportError as error:
        # Installed from source, coremltools lack the compiled parts, and say so late.
        msg = f"Core ML packages need {error.name}: pip install lattq[coreml] where coremltools has a wheel"
        raise InvalidInputError(msg) from error
    finally:
        logger.setLevel(level)
    return coremltools


def _check_layers(layers: Mapping[str, LookupTable]) -> None:
    if not layers:
        msg = "`layers` is empty; give at least one layer"
        raise InvalidInputError(msg)
    for name, layer in layers.items():
        if not isinstance(name, str) or not isinstance(layer, LookupTable):
            msg = f"`layers` maps {name!r} to {type(layer).__name__}; map names to LookupTable"
            raise InvalidInputError(msg)


def _check_free(path: Path, overwrite: bool) -> None:
    if path.suffix != ".mlpackage":
        msg = f"`path` is {path}; the name of a Core ML package ends in .mlpackage"
        raise InvalidInputError(msg)
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        msg = f"{path} exists; choose another `path`, or pass overwrite=True"
        raise InvalidInputError(msg)
    if path.is_symlink() or not (path / "Manifest.json").is_file():
        msg = f"{path} exists and is no Core ML package; choose another `path`"
        raise InvalidInputError(msg)


def _put(package: Path, path: Path) -> None:
    """Move the finished package to its place; what was there stays until then, and returns if that fails."""
    old = path.with_name(f"{path.name}.{uuid.uuid4().hex}.old") if path.exists() else None
    if old is None:
        package.rename(path)
        return
    path.rename(old)
    try:
        package.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _names_in_program(layers: Mapping[str, LookupTable]) -> dict[str, str]:
    """An identifier for each layer, all different."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in layers:
        plain = re.sub(r"[^A-Za-z0-9]", "_", name)
        plain = plain if plain[:1].isalpha() else f"_{plain}"
        unique, count = plain, 1
        while unique in taken:
            count += 1
            unique = f"{plain}_{count}"
        taken.add(unique)
        found[name] = unique
    return found


def _program(coremltools: Any, layers: Mapping[str, LookupTable], names: dict[str, str], weights: Path) -> Any:
    """The specification of the model; its large constants go to the folder `weights`.

    The program goes straight to the writer: there is nothing to optimize, and passes decompress constants.
    """
    from coremltools.converters.mil.backend.mil.load import load as specification
    from coremltools.converters.mil.mil import Builder, Function, Program, types

    build: Any = Builder  # its methods are made at run time
    target = coremltools.target.iOS18
    inputs = {
        f"{names[name]}_input": build.placeholder(shape=(1, layer.shape[1]), dtype=types.fp16)
        for name, layer in layers.items()
    }
    with Function(inputs, opset_version=target) as function:
        function.set_outputs([_linear(build, function, names[name], layer) for name, layer in layers.items()])
    program = Program()
    program.add_function("main", function)
    return specification(program, weights_dir=str(weights), specification_version=target)


def _linear(build: Any, function: Any, name: str, layer: LookupTable) -> Any:
    """The product with a layer. Every value gets a name: the builder's own count what it made before."""
    from coremltools.converters.mil.mil import types

    width = layer.tables.shape[2].bit_length() - 1
    indices = layer.indices.astype(types.nptype_from_builtin(types.string_to_builtin(f"uint{width}")))
    # Numbers have no direction: then the axis stands in the metadata alone.
    axis = {"vector_axis": np.int32(layer.axis)} if layer.tables.shape[3] > 1 else {}
    weight = build.constexpr_lut_to_dense(
        indices=build.const(val=indices, name=f"{name}_indices"),
        lut=build.const(val=layer.tables, name=f"{name}_tables"),
        name=f"{name}_weight",
        **axis,
    )
    bias = build.const(val=np.zeros(layer.shape[0], np.float16), name=f"{name}_bias")
    return build.linear(x=function.inputs[f"{name}_input"], weight=weight, bias=bias, name=f"{name}_output")


def _notes(layers: Mapping[str, LookupTable], names: dict[str, str], weights: str) -> dict[str, Any]:
    """What the metadata says, as a value for JSON."""
    entries = [
        {"name": name, "in_program": names[name], "axis": layer.axis, "hash": _hash(name, names[name], layer)}
        for name, layer in layers.items()
    ]
    return {"format": _FORMAT, "weights": weights, "layers": entries}


def _layers(spec: Any, notes: dict[str, Any], weights: Path) -> dict[str, LookupTable]:
    from coremltools.converters.mil.frontend.milproto.load import load as program

    function = program(spec, spec.specificationVersion, file_weights_dir=str(weights)).functions["main"]
    outputs = {output.name: output.op for output in function.outputs}
    found = {note["name"]: _layer(outputs.pop(f"{note['in_program']}_output"), note) for note in notes["layers"]}
    if outputs or not found:
        msg = f"its metadata does not describe the outputs {sorted(outputs)}"
        raise DamagedFileError(msg)
    return found


def _layer(linear: Any, note: dict[str, Any]) -> LookupTable:
    weight = linear.weight.op
    kinds = linear.op_type, linear.x.name, weight.op_type
    if kinds != ("linear", f"{note['in_program']}_input", "constexpr_lut_to_dense"):
        msg = f"{note['name']!r} is not a linear layer with a look-up table"
        raise DamagedFileError(msg)
    layer = LookupTable(weight.indices.val, weight.lut.val, note["axis"])
    axis_is_other = weight.vector_axis is not None and weight.vector_axis.val != layer.axis
    if axis_is_other or _hash(note["name"], note["in_program"], layer) != note["hash"]:
        msg = f"the weight of {note['name']!r} has changed"
        raise DamagedFileError(msg)
    return layer


def _hash(name: str, in_program: str, layer: LookupTable) -> str:
    head = json.dumps([name, in_program, layer.axis, layer.indices.shape, layer.tables.shape])
    state = hashlib.blake2b(head.encode(), digest_size=16)
    for part in (layer.indices, layer.tables.astype("<f2")):
        state.update(np.ascontiguousarray(part).data)
    return state.hexdigest()


def _file_hash(path: Path) -> str:
    """Hash of the weight file; of nothing, where the constants are so few that there is none."""
    if not path.exists():
        return hashlib.blake2b(digest_size=16).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
