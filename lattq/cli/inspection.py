"""`lattq inspect`: what a quantized directory or file really holds."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from safetensors import safe_open

from lattq.cli import figures
from lattq.cli.console import AsJson, Debug, command, models, number, print_json, print_table
from lattq.cli.progress import observed
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.files import load
from lattq.progress import Stage
from lattq.quantized import Quantized

__all__ = ["inspect", "payloads", "shapes_of"]

REPORT = "lattq_report.json"


@command
def inspect(
    path: Annotated[Path, typer.Argument(help="Directory written by `lattq quantize`, or file by `lattq.save`.")],
    plot: Annotated[Path | None, typer.Option(help="Figure to write: .png, .pdf or .svg.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what a quantized model or file holds.

    Every payload is decoded and checked; its rate is that of its bytes.
    """
    if plot is not None:
        figures.check(plot)
    if path.is_dir():
        _inspect_directory(path, plot, as_json=as_json)
    else:
        _inspect_file(path, plot, as_json=as_json)
    if plot is not None and not as_json:
        typer.echo(f"figure: {plot}")


def _inspect_file(path: Path, plot: Path | None, *, as_json: bool) -> None:
    quantized = load(path)
    entropies = np.array([entropy(column) for column in quantized.codes.T])
    found = {
        **parts(quantized),
        "rate": quantized.rate,
        "bytes": quantized.nbytes,
        "codes": [int(quantized.codes.min()), int(quantized.codes.max())],
        "mean_column_entropy": float(entropies.mean()),
    }
    if plot is not None:
        figures.codes(quantized.codes, entropies, plot)
    if as_json:
        print_json(found)
        return
    rows = [
        ("shape", f"{quantized.shape[0]}x{quantized.shape[1]}"),
        ("rate, bits per weight", number(found["rate"])),
        ("bytes", f"{found['bytes']:,}"),
        ("transform", found["transform"]),
        ("quantizer", found["quantizer"]),
        ("coder", found["coder"]),
        ("codes", "{} ... {}".format(*found["codes"])),
        ("entropy of a column's codes, mean", number(found["mean_column_entropy"])),
        ("gains of rows, columns; centroids", "{row_gains}, {column_gains}; {centroids}".format(**found)),
    ]
    print_table(str(path), ("", "value"), rows, "the gap needs the weights and their sigma: see `lattq inspect DIR`")


def parts(quantized: Quantized) -> dict[str, Any]:
    """What decodes a matrix."""
    return {
        "shape": list(quantized.shape),
        "transform": type(quantized.transform).__name__,
        "quantizer": type(quantized.quantizer).__name__,
        "coder": type(quantized.coder).__name__,
        "row_gains": quantized.row_gains is not None,
        "column_gains": quantized.column_gains is not None,
        "centroids": quantized.centroids is not None,
    }


def entropy(codes: np.ndarray) -> float:
    """Entropy of the histogram of some integers, in bits.

    >>> entropy(np.array([1, 1, 2, 2]))
    1.0
    """
    frequencies = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-np.sum(frequencies * np.log2(frequencies))) + 0.0


def _inspect_directory(path: Path, plot: Path | None, *, as_json: bool) -> None:
    llm = models()
    stored = llm.stored_bytes(path)
    report = _report_rows(path)
    shapes = shapes_of(path)
    shapes = {name: shapes[name] for name in [*report, *shapes] if name in shapes}  # in the order of the model
    layers = []
    with observed("lattq inspect", as_json=as_json, total=len(shapes)) as work:
        for name, quantized in payloads(path, shapes, work):
            row = report.get(name, {})
            layers.append(
                {
                    "name": name,
                    **parts(quantized),
                    "rate": 8 * len(quantized.payload) / quantized.codes.size,
                    "bytes": len(quantized.payload),
                    **{key: row.get(key) for key in ("value", "distortion", "bound", "stats")},
                }
            )
    for row in layers:
        row["gap"] = None if row["bound"] is None else row["rate"] - row["bound"]
    weights = sum(row["shape"][0] * row["shape"][1] for row in layers)
    total = {
        "rate": 8 * stored / weights,
        "weights": weights,
        "stored_bytes": stored,
        "file_bytes": sum(file.stat().st_size for file in path.glob("*.safetensors")),
        "reported": bool(report),
        "layers": layers,
    }
    if plot is not None:
        figures.conversion(layers, plot)
    if as_json:
        print_json(total)
        return
    _print_directory(path, total)


def _print_directory(path: Path, total: dict[str, Any]) -> None:
    rows = [
        (
            row["name"],
            "x".join(map(str, row["shape"])),
            f"{row['transform']} → {row['quantizer']} → {row['coder']}",
            f"{row['bytes']:,}",
            number(row["rate"]),
            number(row["distortion"], ".3e"),
            number(row["bound"]),
            number(row["gap"]),
        )
        for row in total["layers"]
    ]
    headings = ("layer", "shape", "parts", "bytes", "rate", "distortion", "bound", "gap")
    source = f"distortion and bound: from {REPORT}" if total["reported"] else f"no {REPORT}: distortions are not known"
    print_table(str(path), headings, rows, f"{source}; everything else: from the decoded payloads")
    typer.echo(
        f"{total['rate']:.4f} bits per weight ({total['stored_bytes']:,} bytes replace {total['weights']:,} weights); "
        f"weight files of {total['file_bytes']:,} bytes, unquantized tensors included"
    )


def _report_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of the report by layer; none if there is no report."""
    file = path / REPORT
    if not file.exists():
        return {}
    report = importlib.import_module("lattq.llm").Report.from_json(file.read_text(encoding="utf-8"))
    return {row.name: dataclasses.asdict(row) for row in report.layers}


def shapes_of(path: Path) -> dict[str, tuple[int, int]]:
    """Quantized layers and their shapes, from `config.json`; raises `InvalidInputError` for a dense model."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    block = config.get("quantization_config") if isinstance(config, dict) else None
    if block is None or block.get("quant_method") != "lattq":
        msg = f"{path} holds no layers of lattq; quantize a model first, with `lattq quantize`"
        raise InvalidInputError(msg)
    return importlib.import_module("lattq.llm").LattqConfig(**block).shapes()


def payloads(path: Path, shapes: dict[str, tuple[int, int]], work: Stage) -> list[tuple[str, Quantized]]:
    """Decode the payload of every layer; raises `DamagedFileError` for one that is missing or damaged."""
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (not a mapping)
                name = key.removesuffix(".weight")
                if name in shapes:
                    found[name] = _decoded(name, tensors.get_tensor(key).tobytes(), shapes[name])
                    work.advance(name)
    missing = [name for name in shapes if name not in found]
    if missing:
        msg = f"{path} holds no payload of {missing[0]}; a weight file is missing or damaged"
        raise DamagedFileError(msg)
    return [(name, found[name]) for name in shapes]


def _decoded(name: str, payload: bytes, shape: tuple[int, int]) -> Quantized:
    try:
        quantized = Quantized.from_payload(payload)
    except DamagedFileError as error:
        msg = f"layer {name}: {error}"
        raise DamagedFileError(msg) from None
    if quantized.shape != shape:
        msg = f"layer {name}: config.json gives the shape {shape}, the payload {quantized.shape}; one is damaged"
        raise InvalidInputError(msg)
    return quantized
