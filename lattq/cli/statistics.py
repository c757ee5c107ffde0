"""`lattq measure` and `lattq statistics`: what calibration text says of a model, in a file."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from lattq.cli.console import AsJson, Debug, Log, command, models, number, print_json, print_table, read_text
from lattq.cli.models import EMBEDDED, source_of
from lattq.cli.progress import observed
from lattq.errors import InvalidInputError

__all__ = ["measure", "statistics"]

statistics = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Merge and show files of `lattq measure`.")


@command
def measure(
    model: Annotated[str, typer.Argument(help="Model directory, or `embedded` for the one that ships with lattq.")],
    out: Annotated[Path, typer.Option(help="File to write, safetensors.")],
    calibration: Annotated[Path | None, typer.Option(help="UTF-8 text; `embedded` has its own.")] = None,
    window: Annotated[int | None, typer.Option(help="Tokens per window.")] = None,
    samples: Annotated[int | None, typer.Option(help="Windows; all unless given.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw of windows.")] = 0,
    label_seed: Annotated[int, typer.Option(help="Seed of the labels that are drawn from the predictions.")] = 0,
    draws: Annotated[int, typer.Option(help="Labels for each token.")] = 1,
    block: Annotated[int, typer.Option(help="Outputs whose gradients are multiplied with each other, at most.")] = 512,
    matched: Annotated[
        Path | None, typer.Option(help="Statistics of the same model that weigh the tokens: one round of matching.")
    ] = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Weigh inputs of queries, keys and values by attention received.")
    ] = False,
    guides: Annotated[int, typer.Option(help="Groups of outputs that also weigh the inputs, at most.")] = 0,
    include: Annotated[list[str] | None, typer.Option(help="Pattern of layers to measure; may repeat.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Pattern of layers to leave out; may repeat.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch; other numbers, other last bits.")] = 1,
    log: Log = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure what every rate and recipe starts from, once.

    Second moments of the inputs of all layers, and of the gradients of the model's score at their outputs.
    """
    own = None if calibration is None else read_text(calibration)
    if own is None and model != EMBEDDED:
        msg = f"{model} needs `--calibration FILE`, a text that resembles what the model will read"
        raise InvalidInputError(msg)
    with observed("lattq measure", as_json=as_json, log=log) as work:
        with work.stage("load the libraries"):
            llm = models()
            measuring = importlib.import_module("lattq.llm.measure")
        found = measuring.measure_model(
            source_of(model, llm),
            calibration_text=llm.embedded_text("calibration") if own is None else own,
            out=out,
            window=window,
            samples=samples,
            seed=seed,
            label_seed=label_seed,
            draws=draws,
            block=block,
            matched=None if matched is None else measuring.Statistics.load(matched),
            attention=attention,
            guides=guides,
            include=include or None,
            exclude=exclude or (),
            threads=threads,
            progress=work,
        )
    _tell(found, out, as_json)


@statistics.command("merge")
@command
def merge(
    files: Annotated[list[Path], typer.Argument(help="Files of one model, measured on different windows.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Merge statistics exactly: the same bytes in any order and grouping."""
    models()
    kind = importlib.import_module("lattq.llm.measure").Statistics
    first, *others = [kind.load(path) for path in files]
    if not others:
        msg = f"there is nothing to merge with {files[0]}; give two files or more"
        raise InvalidInputError(msg)
    for other in others:
        first = first.merge(other)
    first.save(out)
    _tell(kind.load(out), out, as_json)


@statistics.command("show")
@command
def show(
    file: Annotated[Path, typer.Argument(help="File of `lattq measure`.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what a file of statistics holds."""
    models()
    found = importlib.import_module("lattq.llm.measure").Statistics.load(file)
    _tell(found, file, as_json, layers=True)


def _tell(found: Any, path: Path, as_json: bool, *, layers: bool = False) -> None:
    """Print what statistics are of, and what they say of each layer."""
    about = _about(found, path)
    rows = [_row(found, name) for name in found.layers] if layers else []
    if as_json:
        print_json(about | ({"layers": rows} if layers else {}))
        return
    if layers:
        headings = ("layer", "shape", "blocks", "tokens", "input power", "sensitivity")
        caption = "input power: mean square of an input; sensitivity: nats of KL per token and squared error, twice"
        print_table(f"{path}", headings, [_cells(row) for row in rows], caption)
    typer.echo(
        f"{path}: {about['bytes']:,} bytes, {about['method']}, {len(found.layers)} layers of the model "
        f"{about['model']}, {about['windows']} windows of {len(about['texts'])} text(s), {about['tokens']:,} tokens"
    )
    if about["repeated"]:
        typer.echo(f"warning: {about['repeated']} windows count more than once", err=True)
    if about["silent"]:
        typer.echo(f"warning: no gradient reaches {', '.join(about['silent'])}", err=True)


def _about(found: Any, path: Path) -> dict[str, Any]:
    origin = found.origin
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "model": origin.model,
        "method": origin.method,
        "texts": list(origin.texts),
        "windows": len(origin.windows),
        "repeated": origin.repeated,
        "window_lengths": list(origin.lengths),
        "tokens": origin.tokens,
        "scored": origin.scored,
        "exact": origin.exact,
        "silent": list(found.silent),
    }


def _row(found: Any, name: str) -> dict[str, Any]:
    moments = found.moments(name)
    return {
        "name": name,
        "shape": list(found.layers[name].shape),
        "blocks": found.layers[name].groups,
        "tokens": 0 if found.borrowed(name) else round(moments.input_count),
        "input_power": float(moments.inputs.trace()) / len(moments.inputs),
        "sensitivity": found.sensitivity(name),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    rows, columns = row["shape"]
    told = (number(row["input_power"], ".3e"), number(row["sensitivity"], ".3e"))
    return row["name"], f"{rows}x{columns}", str(row["blocks"]), str(row["tokens"]), *told
