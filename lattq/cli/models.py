"""`lattq quantize` and `lattq eval`: from a model directory to a quantized one, and what that did to the model."""

import dataclasses
import importlib
import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from lattq.cli.choices import Allocation, Fit, Order, RecipeName, recipe_of, takers
from lattq.cli.console import (
    AsJson,
    Debug,
    Log,
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
from lattq.cli.maps import MAPS, maps_of
from lattq.cli.progress import observed
from lattq.errors import FewTokensWarning, InvalidInputError
from lattq.quantizers.by_name import by_name
from lattq.rate import MAX_RATE, searched

__all__ = ["evaluate", "quantize"]

EMBEDDED = "embedded"
DEFAULT_RATE = 3.0


@command
def quantize(
    model: Annotated[str, typer.Argument(help="Model directory, or `embedded` for the one that ships with lattq.")],
    out: Annotated[Path, typer.Option(help="Directory to create; missing or empty.")],
    rate: Annotated[float | None, typer.Option(help="Bits per quantized weight, from file sizes. [default: 3]")] = None,
    recipe: Annotated[RecipeName, typer.Option(help="Method.")] = RecipeName.two_sided,
    calibration: Annotated[Path | None, typer.Option(help="UTF-8 text; `embedded` has its own.")] = None,
    statistics: Annotated[
        Path | None, typer.Option(help="File of `lattq measure`, instead of --calibration; implies --one-pass.")
    ] = None,
    step: Annotated[float | None, typer.Option(help="Step of the recipe, instead of --rate.")] = None,
    levels: Annotated[
        int | None, typer.Option(help=f"Levels (16 is INT4), instead of --rate: {takers('levels')}.")
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(help=f"Bits of an index per weight, instead of --rate: {takers('bits')}."),
    ] = None,
    dimension: Annotated[int | None, typer.Option(help=f"Weights of a vector: {takers('dimension')}.")] = None,
    group: Annotated[
        int | None, typer.Option(help=f"Columns that share a scale, 0 for all: {takers('group')}.")
    ] = None,
    symmetric: Annotated[
        bool | None,
        typer.Option(
            "--symmetric/--asymmetric",
            help=f"Integers around 0, or with a zero point: {takers('symmetric')}.",
            show_default=False,
        ),
    ] = None,
    fit: Annotated[
        Fit | None, typer.Option(help=f"Steps of least error, or from the range: {takers('fit')}. [default: error]")
    ] = None,
    order: Annotated[Order | None, typer.Option(help=f"Columns coded first: {takers('order')}.")] = None,
    quantizer: Annotated[
        str | None,
        typer.Option(
            help=f"Cell: uniform, trellis-256 (4 to 4096 states), e8, bw16, leech24: {takers('quantizer')}. "
            "[default: uniform, or trellis-256 of two_sided]"
        ),
    ] = None,
    sweeps: Annotated[int | None, typer.Option(help=f"Passes of coordinate descent: {takers('sweeps')}.")] = None,
    mmse: Annotated[
        float | None,
        typer.Option(help=f"Ratio of the MMSE feedback: {takers('mmse')}. [default: 0, or 0.2 of two_sided]"),
    ] = None,
    guides: Annotated[
        int | None, typer.Option(help=f"Groups of outputs that weigh the inputs, at most: {takers('guides')}.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens per calibration window.")] = None,
    samples: Annotated[int | None, typer.Option(help="Calibration windows; all unless given.")] = None,
    propagate: Annotated[
        bool | None,
        typer.Option(
            "--propagate/--one-pass",
            help="Measure inputs behind the quantized blocks. [default: propagate, unless outputs count]",
            show_default=False,
        ),
    ] = None,
    drift: Annotated[bool, typer.Option("--drift", help="Correct weights for the drift of their inputs.")] = False,
    allocation: Annotated[
        Allocation | None,
        typer.Option(
            help="What the bits of all layers spare equally. [default: loss; best, if outputs count and text is long]",
            show_default=False,
        ),
    ] = None,
    input_bits: Annotated[
        int | None, typer.Option(help="Bits that inputs are rounded to while the model runs, token by token: 2 to 8.")
    ] = None,
    input_clip: Annotated[
        float | None, typer.Option(help="Factor of the ranges of inputs, 1 as published; searched unless given.")
    ] = None,
    module: Annotated[list[str] | None, typer.Option(help="Linear layer to quantize; repeat for several.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Pattern of layers to quantize, inside the blocks or not; may repeat.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Pattern of layers to leave dense; may repeat.")] = None,
    maps: Annotated[
        str | None,
        typer.Option(help=f"Maps to fold into the model before, one or several with commas: {', '.join(MAPS)}."),
    ] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="Then train steps, norms and embeddings, codes frozen: see `lattq refine`.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draw of windows.")] = 0,
    jobs: Annotated[int, typer.Option(help="Layers quantized at once.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of forward passes; other numbers, other last bits.")] = 1,
    log: Log = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Quantize the linear layers of a model.

    An interrupted run, repeated, continues in OUT.partial.
    """
    cell = None if quantizer is None else by_name(quantizer)
    chosen = recipe_of(
        recipe.value,
        group=group,
        symmetric=symmetric,
        fit=None if fit is None else fit.value,
        order=None if order is None else order.value,
        sweeps=sweeps,
        mmse=mmse,
        guides=guides,
        quantizer=cell,
        dimension=dimension,
    )
    setting = {"step": step, "levels": levels, "bits": bits}
    given = [f"`--{key}`" for key, value in {"rate": rate, **setting}.items() if value is not None]
    wanted = searched(chosen)[0]
    if not given:
        rate = DEFAULT_RATE
    elif len(given) > 1 or given[0] not in ("`--rate`", f"`--{wanted}`"):
        msg = f"{recipe.value} takes `--rate` or `--{wanted}`; got {' and '.join(given)}"
        raise InvalidInputError(msg)
    if rate is not None and not 0 < rate <= MAX_RATE:
        msg = f"`--rate` is {rate} bits per weight; choose one above 0 and at most {MAX_RATE:g}"
        raise InvalidInputError(msg)
    own = None if calibration is None else read_text(calibration)
    if own is None and statistics is None and model != EMBEDDED:
        msg = f"{model} needs `--calibration FILE`, a text that resembles what the model will read, or `--statistics`"
        raise InvalidInputError(msg)
    with observed("lattq quantize", as_json=as_json, log=log) as work, warnings.catch_warnings():
        warnings.simplefilter("ignore", FewTokensWarning)  # told below, or by the tokens of each layer
        with work.stage("load the libraries"):
            llm = models()
            designs = maps_of(maps, levels=levels, bits=bits, group=group, input_bits=input_bits)
        report = llm.quantize_model(
            source_of(model, llm),
            out,
            calibration_text=llm.embedded_text("calibration") if own is None and statistics is None else own,
            statistics=statistics,
            rate=rate,
            recipe=chosen,
            **setting,
            window=window,
            samples=samples,
            propagate=propagate,
            drift=drift,
            allocation=None if allocation is None else allocation.value,
            input_bits=input_bits,
            input_clip=input_clip,
            modules=module or None,
            include=include or None,
            exclude=exclude or (),
            maps=designs,
            refine=refine,
            seed=seed,
            jobs=jobs,
            threads=threads,
            progress=work,
        )
    said = report.few_tokens()
    if as_json:
        warned = [] if said is None else [said]
        print_json({"out": str(out), "warnings": warned, **json.loads(report.to_json())})
        return
    _print_report(report, out)
    if said is not None:
        typer.echo(f"warning: {said}", err=True)


def source_of(model: str, llm: Any) -> Path:
    """Directory of a model; the embedded one for the word `embedded`.

    Raises
    ------
    InvalidInputError : if there is no such directory, or no model in it that `transformers` knows
    """
    if model == EMBEDDED:
        return llm.embedded_model()
    if not Path(model).is_dir():
        msg = f"there is no directory {model}; download the model there first, or use the word `{EMBEDDED}`"
        raise InvalidInputError(msg)
    importlib.import_module("lattq.llm.source").load_config(model)
    return Path(model)


def _print_report(report: Any, out: Path) -> None:
    rows = [
        (
            row.name,
            f"{row.shape[0]}x{row.shape[1]}",
            number(row.rate),
            number(row.distortion, ".3e"),
            number(row.reference),
            number(row.gap),
            f"{row.seconds:.1f} s",
        )
        for row in report.layers
    ]
    headings = ("layer", "shape", "rate", "distortion", "Gaussian", "gap", "time")
    caption = (
        "rate, Gaussian, gap: bits per weight; Gaussian: what independent Gaussian weights need at this distortion"
    )
    print_table(str(report.settings["recipe"]), headings, rows, caption)
    typer.echo(
        f"{report.rate:.4f} bits per weight ({replaced(report.stored_bytes, report.weights, report.added_bytes)}), "
        f"gap {number(report.gap)}, in {report.seconds:.1f} s\n"
        f"{inputs_words(report.settings.get('input_bits'), report.operations)}"
        f"{out}: weight files of {report.file_bytes:,} bytes, {dense_words(report)}"
    )


@command
def evaluate(
    model: Annotated[str, typer.Argument(help="Model directory, quantized or not, or `embedded`.")],
    text: Annotated[str | None, typer.Option(help="UTF-8 text file, or `embedded` (unseen by that model).")] = None,
    reference: Annotated[str | None, typer.Option(help="Model directory to compare with, or `embedded`.")] = None,
    window: Annotated[int | None, typer.Option(help="Tokens per window.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens between the starts of windows.")] = None,
    samples: Annotated[int | None, typer.Option(help="Windows; all unless given.")] = None,
    log: Log = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure perplexity, and how far a model is from another.

    Against a reference: the KL divergence in bits per token, and how often both find the same token most likely.
    """
    if text is None:
        msg = f"`--text FILE` is needed: a text to predict, or the word `{EMBEDDED}` for the one that ships with lattq"
        raise InvalidInputError(msg)
    own = None if text == EMBEDDED else read_text(Path(text))
    with observed("lattq eval", as_json=as_json, log=log) as work:
        with work.stage("load the libraries"):
            llm = models()
        found = llm.evaluate(
            source_of(model, llm),
            llm.embedded_text("evaluation") if own is None else own,
            reference=None if reference is None else source_of(reference, llm),
            window=window,
            stride=stride,
            samples=samples,
            progress=work,
        )
    values = dataclasses.asdict(found)
    if as_json:
        print_json(values)
        return
    names = {
        "tokens": ("tokens", ","),
        "perplexity": ("perplexity per token", ".4f"),
        "loss_nats": ("loss, nats per token", ".5f"),
        "bits_per_byte": ("bits per byte of text", ".5f"),
        "kl_bits_per_token": ("KL, bits per token", ".5f"),
        "top1_agreement": ("top-1 agreement", ".2%"),
        "mean_cosine": ("cosine of embeddings", ".6f"),
        "seconds": ("seconds", ".1f"),
    }
    rows = [(label, format(values[key], form)) for key, (label, form) in names.items() if values[key] is not None]
    print_table(model, ("measure", "value"), rows, None if reference is None else f"against {reference}")
