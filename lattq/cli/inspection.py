"""`lattq inspect`: what a quantized directory or file really holds."""

import dataclasses
import importlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lattq.cli import figures
from lattq.cli.console import (
    AsJson,
    Debug,
    command,
    dense_words,
    inputs_words,
    models,
    number,
    print_json,
    print_table,
    read_text,
    replaced,
)
from lattq.cli.maps import summary_of
from lattq.cli.progress import observed
from lattq.errors import DamagedFileError
from lattq.files import load
from lattq.progress import Stage
from lattq.quantized import Quantized
from lattq.transforms.chains import split_unit

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

    Every tensor is checked and every payload decoded; its rate is that of its bytes.
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
        "transform": type(split_unit(quantized.transform)[0]).__name__,
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
    llm, source = models(), importlib.import_module("lattq.llm.source")
    stored = llm.stored_bytes(path)
    whole = _report(path)
    report = {} if whole is None else {row.name: dataclasses.asdict(row) for row in whole.layers}
    shapes, inputs = shapes_of(path), _block(path).inputs()
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
                    "input_bits": inputs[name].bits if name in inputs else None,
                    "input_clip": inputs[name].clip if name in inputs else None,
                    "operations": quantized.transform.operations(quantized.shape[1]) if name in inputs else 0,
                    **{key: row.get(key) for key in ("value", "distortion", "reference", "stats")},
                }
            )
    for row in layers:
        row["gap"] = None if row["reference"] is None else row["rate"] - row["reference"]
    weights, added = sum(row["shape"][0] * row["shape"][1] for row in layers), 0
    if whole is not None and whole.maps:  # some of the weights may be copies that they made
        weights, added = whole.weights, whole.added_bytes
    total = {
        "rate": 8 * (stored + added) / weights,
        "weights": weights,
        "stored_bytes": stored,
        "added_bytes": added,
        "operations": sum(row["operations"] for row in layers),
        "file_bytes": sum(file.stat().st_size for file in source.weight_files(path)),
        "reported": bool(report),
        "maps": [] if whole is None else [dataclasses.asdict(row) for row in whole.maps],
        "dense": [] if whole is None else [dataclasses.asdict(row) for row in whole.dense],
        "layers": layers,
    }
    if plot is not None:
        figures.conversion(layers, plot)
    if as_json:
        print_json(total)
        return
    _print_directory(path, total, "unquantized tensors included" if whole is None else dense_words(whole))


def _print_directory(path: Path, total: dict[str, Any], dense: str) -> None:
    rows = [
        (
            row["name"],
            "x".join(map(str, row["shape"])),
            f"{row['transform']} → {row['quantizer']} → {row['coder']}",
            f"{row['bytes']:,}",
            number(row["rate"]),
            number(row["distortion"], ".3e"),
            number(row["reference"]),
            number(row["gap"]),
        )
        for row in total["layers"]
    ]
    headings = ("layer", "shape", "parts", "bytes", "rate", "distortion", "Gaussian", "gap")
    source = (
        f"distortion and Gaussian reference: from {REPORT}"
        if total["reported"]
        else f"no {REPORT}: distortions are not known"
    )
    print_table(str(path), headings, rows, f"{source}; everything else: from the decoded payloads")
    if total["maps"]:
        headings = ("design", "place", "map", "places", "worst condition", "weights added")
        print_table("maps folded before", headings, summary_of(total["maps"]), f"from {REPORT}")
    counted = replaced(total["stored_bytes"], total["weights"], total["added_bytes"])
    typer.echo(inputs_words(total["layers"][0]["input_bits"], total["operations"]), nl=False)
    typer.echo(
        f"{total['rate']:.4f} bits per weight ({counted}); weight files of {total['file_bytes']:,} bytes, {dense}"
    )


def _report(path: Path) -> Any:
    """The report of the conversion that wrote a directory; None if there is none."""
    file = path / REPORT
    if not file.exists():
        return None
    report = importlib.import_module("lattq.llm").Report.from_json(read_text(file))
    if report.run != _block(path).run:
        msg = f"{file} is of another run than the model beside it; fetch the directory again, or remove the report"
        raise DamagedFileError(msg)
    return report


def _block(path: Path) -> Any:
    """The block of lattq in `config.json`."""
    models()
    run, source = (importlib.import_module(f"lattq.llm.{room}") for room in ("run", "source"))
    return run.block_of(source.read_config(path), path)


def shapes_of(path: Path) -> dict[str, tuple[int, int]]:
    """Quantized layers and their shapes, from `config.json`; raises `InvalidInputError` for a dense model."""
    return _block(path).shapes()


def payloads(path: Path, shapes: dict[str, tuple[int, int]], work: Stage) -> list[tuple[str, Quantized]]:
    """Check every tensor of a directory and decode the payloads; raises `DamagedFileError` for what is damaged."""
    run, source = (importlib.import_module(f"lattq.llm.{room}") for room in ("run", "source"))
    found, decoded = run.verified_payloads(_block(path), source.weight_files(path)), []
    for name, shape in shapes.items():
        decoded.append((name, _decoded(name, found[name], shape)))
        work.advance(name)
    return decoded


def _decoded(name: str, payload: bytes, shape: tuple[int, int]) -> Quantized:
    try:
        return Quantized.from_payload(payload, shape)
    except DamagedFileError as error:
        msg = f"layer {name}: {error}"
        raise DamagedFileError(msg) from None
