"""`lattq demo`: the embedded model at a few rates with five recipes, beside the Gaussian reference."""

import functools
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lattq import bounds
from lattq._array import to_host
from lattq.bounds.layer import layer_spectrum
from lattq.cli import figures
from lattq.cli.choices import recipe_of
from lattq.cli.console import (
    AsJson,
    Debug,
    Log,
    command,
    models,
    number,
    parse_rates,
    print_json,
    print_table,
)
from lattq.cli.progress import observed
from lattq.errors import InvalidInputError, shown
from lattq.progress import Stage
from lattq.quantizers import Trellis

__all__ = ["demo"]

RATES = "4,3,2"
RECIPES = {  # "trellis" is watersic with cells that are nearly balls
    "rtn": recipe_of("rtn"),
    "gptq": recipe_of("gptq"),
    "watersic": recipe_of("watersic"),
    "trellis": recipe_of("watersic", quantizer=Trellis(states=256)),
    "two_sided": recipe_of("two_sided"),
}
RESULTS = "lattq-demo.json"
FIGURE = "rate_distortion.png"
CURVE_POINTS = 15
SENSITIVITY_WINDOWS = 32


@command
def demo(
    out: Annotated[Path | None, typer.Option(help="Directory; a fresh temporary one unless given.")] = None,
    rates: Annotated[str, typer.Option(help="Bits per weight, between commas.")] = RATES,
    samples: Annotated[int, typer.Option(help="Calibration windows of 256 tokens.")] = 128,
    eval_samples: Annotated[int, typer.Option(help="Evaluation windows of 256 tokens.")] = 64,
    module: Annotated[list[str] | None, typer.Option(help="Layer to quantize, for a quick look; repeatable.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Layers quantized at once; all cores unless given.")] = None,
    log: Log = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare recipes on the embedded model.

    It is quantized with rtn, gptq, watersic with scalar and with trellis quantization, and with errors of outputs that
    count by what they do to the predictions; rates, distortions, gaps and perplexities are printed and drawn.
    Every layer is quantized for the inputs of the unquantized model, so that all recipes meet the same second moments.
    """
    wanted = parse_rates(rates)
    if min(wanted) < 1:
        msg = f"`--rates` is {shown(rates)}; integers of rtn and gptq need at least 1 bit"
        raise InvalidInputError(msg)
    if jobs is not None and jobs < 1:
        msg = f"`--jobs` is {jobs}; use at least 1"
        raise InvalidInputError(msg)
    folder = Path(tempfile.mkdtemp(prefix="lattq-demo-")) if out is None else out
    prepare(folder)
    with observed("lattq demo", as_json=as_json, log=log, total=len(RECIPES) * len(wanted)) as work:
        with work.stage("load the libraries"):
            llm = models()
        bench = _Bench(llm, folder, samples, eval_samples, module or None, jobs or os.cpu_count() or 1, work)
        rows = [bench.row(name, rate) for rate in wanted for name in RECIPES]
    drawn = figures.available()
    if drawn:
        figures.recipes(rows, bench.curve(rows), folder / FIGURE)
    (folder / RESULTS).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(rows)
        return
    _print(rows, bench.perplexity)
    typer.echo(f"models and {RESULTS}: {folder}")
    typer.echo(f"figure: {folder / FIGURE}" if drawn else "no figure: it needs matplotlib, pip install lattq[plot]")


def prepare(folder: Path) -> None:
    """Make an empty directory, or empty one that holds an earlier demo and nothing else.

    Raises
    ------
    InvalidInputError : if the directory holds anything that no demo wrote

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as outer:
    ...     prepare(Path(outer) / "demo")
    ...     prepare(Path(outer) / "demo")
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = {RESULTS, FIGURE}
    found = sorted(folder.iterdir())
    others = [path.name for path in found if path.name not in mine and not _is_ours(path.name)]
    if found and (others or not (folder / RESULTS).exists()):
        msg = f"`--out` is {folder}, which holds {(others or [found[0].name])[0]}; choose a new or an empty directory"
        raise InvalidInputError(msg)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (folder / RESULTS).write_text("[]\n", encoding="utf-8")  # marks the directory as a demo's from the start


def _is_ours(name: str) -> bool:
    recipe, _, rate = name.removesuffix(".partial").partition("-")
    return recipe in RECIPES and rate.replace(".", "", 1).isdecimal()


class _Bench:
    """What all rows share: the model, its texts, second moments and sensitivities."""

    def __init__(
        self, llm: Any, folder: Path, samples: int, eval_samples: int, modules: list[str] | None, jobs: int, work: Stage
    ) -> None:
        from lattq.llm import measure, source

        self.llm, self.folder, self.jobs, self.work = llm, folder, jobs, work
        self.source = llm.embedded_model()
        self.options = {"calibration_text": llm.embedded_text("calibration"), "samples": samples, "modules": modules}
        text = llm.embedded_text("evaluation")
        self.measure = functools.partial(llm.evaluate, text=text, samples=eval_samples, progress=work)
        model = source.load_model(self.source).float()
        tokenizer = source.load_tokenizer(self.source)
        layers = source.choose_modules(model, modules)
        text, window = self.options["calibration_text"], model.config.max_position_embeddings
        windows = source.token_windows(tokenizer, text, window, samples)
        moments = measure.InputMoments(layers)
        batches = source.batches_of(windows)
        with work.stage("measure inputs", len(batches)) as stage:
            measure.forward_batches(model, stage.over(batches), moments)
        # Weights of D in ½ Σ g rows columns D, the KL that the layers' distortions cost, in bits per token.
        some = source.batches_of(windows[:: max(1, len(windows) // SENSITIVITY_WINDOWS)])
        with work.stage("measure sensitivities", len(some)) as stage:
            found = measure.output_sensitivities(model, layers, stage.over(some))
        self.costs = {name: g / (2 * math.log(2)) for name, g in found.items()}
        self.weights = {name: to_host(layer.weight) for name, layer in layers.items()}
        self.spectra = {name: _variances(w, moments.sigma(name)) for name, w in self.weights.items()}
        self.model = model
        self.perplexity = self.measure(self.source).perplexity

    def row(self, recipe: str, rate: float) -> dict[str, Any]:
        """Quantize at one rate and measure."""
        setting = {"levels": min(256, round(2**rate))} if recipe in ("rtn", "gptq") else {"rate": rate}
        directory = self.folder / f"{recipe}-{rate:g}"
        report = self.llm.quantize_model(
            self.source,
            directory,
            recipe=RECIPES[recipe],
            propagate=False,
            jobs=self.jobs,
            progress=self.work,
            **setting,
            **self.options,
        )
        found = self.measure(directory, reference=self.model)
        self.work.advance(f"{recipe} at {rate:g} bits")
        return {
            "recipe": recipe,
            "target": rate,
            "levels": setting.get("levels"),
            "rate": report.rate,
            "distortion": report.distortion,
            "weighted_distortion": sum(
                self.costs[one.name] * self.weights[one.name].size * one.distortion for one in report.layers
            ),
            "gap": report.gap,
            "perplexity": found.perplexity,
            "perplexity_unquantized": self.perplexity,
            "kl_bits_per_token": found.kl_bits_per_token,
            "top1_agreement": found.top1_agreement,
            "seconds": report.seconds,
            "directory": str(directory),
        }

    def curve(self, rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
        """Least weighted distortion at each rate if the weights of all layers were Gaussian: joint waterfilling."""
        variances = np.concatenate([self.costs[name] * one for name, one in self.spectra.items()])
        ends = [row["rate"] for row in rows]
        points = np.linspace(max(min(ends) - 0.5, 0.5), max(ends) + 0.25, CURVE_POINTS)
        return [(float(r), variances.size * bounds.waterfill(variances, rate=float(r)).distortion) for r in points]


def _variances(weight: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Variances of the independent Gaussians that a layer asks to be coded."""
    rows, columns = bounds.two_way_variances(weight)
    return np.outer(rows, layer_spectrum(sigma, columns)).ravel()


def _print(rows: list[dict[str, Any]], perplexity: float) -> None:
    cells = [
        (
            row["recipe"],
            f"{row['target']:g}",
            number(row["rate"], ".3f"),
            number(row["distortion"], ".3e"),
            number(row["weighted_distortion"], ".3e"),
            number(row["gap"], ".3f"),
            number(row["perplexity"], ".2f"),
            number(row["kl_bits_per_token"], ".4f"),
            f"{row['top1_agreement']:.1%}",
            f"{row['seconds']:.0f} s",
        )
        for row in rows
    ]
    headings = (
        "recipe",
        "target",
        "rate",
        "distortion",
        "weighted",
        "gap",
        "perplexity",
        "KL",
        "same top-1",
        "time",
    )
    caption = (
        f"perplexity of the unquantized model: {perplexity:.2f}; rate: bits per weight from file sizes; gap: bits per "
        "weight above the Gaussian reference, of two_sided in its own metric; weighted: distortions as bits of KL per "
        "token; KL: measured"
    )
    print_table("Embedded model, unseen text", headings, cells, caption)
