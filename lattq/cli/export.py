"""`lattq export`: quantized layers in the file formats of other systems."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from lattq.cli.console import AsJson, Debug, command, number, print_json, print_table
from lattq.cli.inspection import payloads, shapes_of
from lattq.cli.progress import observed
from lattq.errors import InvalidInputError
from lattq.export import coreml
from lattq.export.lookup import lookup_table
from lattq.export.tables import LookupTable
from lattq.files import load
from lattq.quantized import Quantized

__all__ = ["export"]


class Target(enum.StrEnum):
    """Formats by name."""

    coreml = "coreml"


@command
def export(
    path: Annotated[Path, typer.Argument(help="Directory written by `lattq quantize`, or file by `lattq.save`.")],
    out: Annotated[Path, typer.Option(help="Package to create: NAME.mlpackage.")],
    to: Annotated[Target, typer.Option(help="Format.")] = Target.coreml,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a package that is there.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write look-up-table layers for another system: Core ML's `constexpr_lut_to_dense`.

    For layers quantized with palettize, pq or gptvq; the weights are the same, element for element.
    """
    tables: dict[str, LookupTable] = {}
    with observed("lattq export", as_json=as_json) as work:
        found = payloads(path, shapes_of(path), work) if path.is_dir() else [(path.stem, load(path))]
        for name, quantized in found:
            tables[name] = _converted(name, quantized)
        with work.stage("write"):
            coreml.write(out, tables, overwrite=overwrite)
    weights = sum(table.shape[0] * table.shape[1] for table in tables.values())
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    total = {"out": str(out), "format": to.value, "layers": len(tables), "weights": weights, "bytes": size}
    if as_json:
        print_json(total | {"rate": 8 * size / weights})
        return
    rows = [(name, "x".join(map(str, t.shape)), str(t.tables.shape[2]), number(t.bits)) for name, t in tables.items()]
    note = f"{size:,} bytes in the package, {8 * size / weights:.4f} bits per weight"
    print_table(str(out), ("layer", "shape", "entries", "bits per weight"), rows, note)


def _converted(name: str, quantized: Quantized) -> LookupTable:
    try:
        return lookup_table(quantized)
    except InvalidInputError as error:
        msg = f"layer {name}: {error}"
        raise InvalidInputError(msg) from None
