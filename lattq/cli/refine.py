"""`lattq refine`: what scales the codes of a quantized model, trained towards the dense one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lattq.cli.console import AsJson, Debug, Log, command, models, print_json, print_table, read_text
from lattq.cli.models import EMBEDDED, source_of
from lattq.cli.progress import observed
from lattq.errors import InvalidInputError

__all__ = ["refine"]


@command
def refine(
    model: Annotated[str, typer.Argument(help="Directory of a model quantized by lattq.")],
    out: Annotated[Path, typer.Option(help="Directory to create; missing or empty.")],
    source: Annotated[str, typer.Option(help="Dense model it was made from, or `embedded`.")] = EMBEDDED,
    calibration: Annotated[Path | None, typer.Option(help="UTF-8 text; `embedded` has its own.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the windows, at most. [default: 10]")] = None,
    reach: Annotated[
        float | None, typer.Option(help="Share of its size by which a number moves at a step. [default: 0.0025]")
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings/--no-embeddings", help="Train dense embeddings too; their bytes stay.")
    ] = True,
    gains: Annotated[
        bool, typer.Option("--gains/--no-gains", help="Train gains of rows too, which add bytes to the codes.")
    ] = False,
    most_rate: Annotated[
        float | None, typer.Option(help="Bits per quantized weight that the files must not exceed.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens per calibration window.")] = None,
    samples: Annotated[int | None, typer.Option(help="Calibration windows; all unless given.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of windows.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of torch; other numbers, other last bits.")] = 1,
    log: Log = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train steps, norms, biases and embeddings of a quantized model by the KL from its dense one.

    Its codes stay as they are. An interrupted run, repeated, continues in OUT.partial.
    """
    if calibration is None and source != EMBEDDED:
        msg = f"{model} needs `--calibration FILE`, a text that resembles what the model will read"
        raise InvalidInputError(msg)
    own = None if calibration is None else read_text(calibration)
    with observed("lattq refine", as_json=as_json, log=log) as work:
        with work.stage("load the libraries"):
            llm = models()
        given = {key: value for key, value in {"epochs": epochs, "reach": reach}.items() if value is not None}
        found = llm.refine_model(
            source_of(model, llm),
            out,
            source=source_of(source, llm),
            calibration_text=llm.embedded_text("calibration") if own is None else own,
            refining=llm.Refining(embeddings=embeddings, gains=gains, seed=seed, **given),
            window=window,
            samples=samples,
            most_rate=most_rate,
            threads=threads,
            progress=work,
        )
    if as_json:
        print_json({"out": str(out), **json.loads(found.to_json())})
        return
    _print(found, out)


def _print(found: Any, out: Path) -> None:
    told = found.distillation
    rows = [
        (str(index), f"{one.divergence:.5g}", f"{one.payload_bytes:,}", "yes" if index == told.best_epoch else "")
        for index, one in enumerate((told.start, *told.epochs))
    ]
    caption = f"divergence: nats, on {told.judging} held-out windows; {told.training} train"
    print_table(f"refined {out}", ("epoch", "divergence", "payload bytes", "kept"), rows, caption)
    typer.echo(
        f"{found.plain_rate:.4f} to {found.rate:.4f} bits per weight; divergence x {told.ratio:.3f} at equal bytes, "
        f"in {found.seconds:.1f} s"
    )
