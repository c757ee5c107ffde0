"""From a model directory to a quantized one, at a rate counted in the bytes of its files."""

import functools
import hashlib
import importlib.metadata
import inspect
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lattq import recipes
from lattq._array import to_host
from lattq.errors import InvalidInputError, RateNotReachedError
from lattq.llm import checkpoint
from lattq.llm.calibration import InputMoments, batches_of, forward_batches, token_windows
from lattq.llm.passes import Encoder, clean_pass, propagated_pass
from lattq.llm.plugin import attach
from lattq.llm.report import LayerRow, Report
from lattq.llm.sensitivity import output_sensitivities
from lattq.llm.workspace import Workspace, check_free
from lattq.quantized import Quantized
from lattq.rate import first_step, largest_levels, search_step
from lattq.scheme import Scheme

__all__ = ["UNBIASED", "quantize_model"]

# Errors that shrink the weights add up from layer to layer, unbiased ones average out (theory 2.6).
UNBIASED = functools.partial(recipes.watersic, mmse=0.0)

TOLERANCE = 0.005
SEARCHES = 8
PASSES = 4
LONGEST_WINDOW = 2048
SENSITIVITY_WINDOWS = 32

Layers = dict[str, tuple[Quantized, LayerRow]]


def quantize_model(
    source: str | Path,
    out: str | Path,
    *,
    calibration_text: str,
    rate: float | int | None = None,
    recipe: Callable[..., Scheme] = UNBIASED,
    step: float | int | None = None,
    levels: int | None = None,
    window: int | None = None,
    samples: int | None = None,
    propagate: bool = True,
    drift: bool = False,
    allocation: str = "loss",
    modules: Iterable[str] | None = None,
    seed: int = 0,
    jobs: int = 1,
    max_shard_size: str = "5GB",
    progress: Callable[[str, str, int], None] | None = None,
) -> Report:
    """Quantize the linear layers of a model directory; `transformers` loads the result after ``import lattq.llm``.

    Bits go to layers at equal slope: the steps are a common one times a factor per layer, see `allocation`. The work
    happens in `OUT.partial`; an interrupted call, repeated, continues there. `out` appears when it is complete.

    Parameters
    ----------
    source : directory with `config.json`, safetensors and a tokenizer
    out : directory to create; must be missing or empty
    calibration_text : what the second moments of the layers' inputs are measured on
    rate : bits per quantized weight, counted in the files (see `stored_bytes`), met within 0.005 bit by recipes with a
        step and not exceeded by recipes with levels
    recipe : from a step or a number of levels to a `Scheme`; `UNBIASED` is watersic without MMSE feedback, which shrinks
        weights: best for one layer, not for a chain of them (theory 2.6)
    step, levels : the recipe's setting, instead of `rate`
    window, samples : tokens per window (the model's longest, at most 2048), and how many windows (all)
    propagate : measure each block's inputs behind the quantized blocks before it
    allocation : "loss" scales each layer's step so that the last bit of every layer spares the model's predictions
        equally much (see `output_sensitivities`), "distortion" gives all layers one step; without effect on `levels`
    drift : correct the weights for what the quantized prefix did to their inputs (WaterSIC, eq. 18)
    modules : names of linear layers; None for all inside the blocks
    seed : of the draw of windows
    jobs : layers quantized at once
    max_shard_size : of the files written
    progress : called with the stage, the layer or try that is finished, and how many there are (0: unknown)

    Raises
    ------
    InvalidInputError : for an unusable argument, directory or text
    RateNotReachedError : if no setting of the recipe gives the rate

    Examples
    --------
    >>> import tempfile
    >>> from lattq.llm import embedded_model, embedded_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = quantize_model(
    ...         embedded_model(), f"{folder}/small", recipe=recipes.rtn, levels=16, samples=4,
    ...         calibration_text=embedded_text("calibration"), modules=["model.layers.0.self_attn.q_proj"]
    ...     )
    >>> 4 < report.rate < 4.2
    True
    """
    start = time.perf_counter()
    _check(recipe, rate, step, levels)
    if allocation not in ("loss", "distortion"):
        msg = f'`allocation` is {allocation!r}; choose "loss" or "distortion"'
        raise InvalidInputError(msg)
    if jobs < 1 or (drift and not propagate):
        msg = f"`jobs` is {jobs} and `drift` {drift}; use at least 1 job, and `drift` only with `propagate`"
        raise InvalidInputError(msg)
    check_free(Path(out))
    config = checkpoint.read_config(source)
    if "quantization_config" in config or config.get("is_encoder_decoder"):
        kind = "already quantized" if "quantization_config" in config else "an encoder-decoder model"
        msg = f"{source} is {kind}; start from a dense decoder-only or encoder-only model"
        raise InvalidInputError(msg)
    window = int(
        window if window is not None else min(config.get("max_position_embeddings") or LONGEST_WINDOW, LONGEST_WINDOW)
    )
    windows = token_windows(checkpoint.load_tokenizer(source), calibration_text, window, samples, seed)
    settings = {
        "recipe": repr(recipe(levels or 2) if _has_levels(recipe) else recipe(float(step or 1.0))),
        "rate": None if rate is None else float(rate),
        "step": None if step is None else float(step),
        "levels": levels,
        "window": window,
        "samples": len(windows),
        "seed": seed,
        "propagate": propagate,
        "drift": drift,
        "allocation": allocation,
        "modules": None if modules is None else list(modules),
        "calibration": hashlib.blake2b(calibration_text.encode(), digest_size=16).hexdigest(),
        "version": importlib.metadata.version("lattq"),
    }
    hashed = settings | {"source": checkpoint.source_hash(source), "max_shard_size": max_shard_size}
    workspace = Workspace(out, hashed)
    try:
        job = _Conversion(source, windows, workspace, recipe, settings, jobs, progress)
        return job.run(start, max_shard_size)
    except InvalidInputError:
        if workspace.empty():  # the arguments were wrong: they must not stand in the way of the right ones
            workspace.discard()
        raise
    finally:
        workspace.close()


class _Rated(NamedTuple):
    """A setting and what it costs."""

    rate: float
    value: float | int


class _Conversion:
    """The stages of `quantize_model`: search with clean inputs, passes behind the quantized prefix, files."""

    def __init__(
        self,
        source: str | Path,
        windows: torch.Tensor,
        workspace: Workspace,
        recipe: Callable[..., Scheme],
        settings: dict[str, Any],
        jobs: int,
        progress: Callable[[str, str, int], None] | None,
    ) -> None:
        self.source, self.windows, self.workspace = source, windows, workspace
        self.recipe, self.settings, self.progress = recipe, settings, progress
        self.stage = "load"
        self.model = checkpoint.load_model(source)
        self.layers = checkpoint.choose_modules(self.model, settings["modules"])
        self.dtypes = checkpoint.remember_dtypes(self.model)
        replaced = {f"{name}.weight" for name in self.layers}
        self.others = sum(p.nbytes for name, p in self.model.named_parameters() if name not in replaced)
        self.model.float()  # bfloat16 would add its own noise to the moments
        self.weights = {name: to_host(layer.weight) for name, layer in self.layers.items()}
        self.count = sum(w.size for w in self.weights.values())
        self._clean: InputMoments | None = None
        self.encoder = Encoder(recipe, self.scales(), workspace, jobs, self.done)

    def done(self, name: str) -> None:
        """Tell the caller."""
        if self.progress is not None:
            self.progress(self.stage, name, 0 if self.stage == "search" else len(self.layers))

    @property
    def clean(self) -> InputMoments:
        """Second moments of the unquantized model, measured when first needed."""
        if self._clean is None:
            moments = InputMoments(self.layers)
            forward_batches(self.model, batches_of(self.windows), moments)
            self._clean = moments
        return self._clean

    def scales(self) -> dict[str, float]:
        """Factor of the step for each layer, with geometric mean 1 over the weights."""
        if _has_levels(self.recipe) or self.settings["allocation"] == "distortion":
            return dict.fromkeys(self.layers, 1.0)
        batches = batches_of(self.windows[:: max(1, len(self.windows) // SENSITIVITY_WINDOWS)])
        found = output_sensitivities(self.model, self.layers, batches, self.settings["seed"])
        floor = max(found.values()) * 1e-9  # layers that reach no output
        logs = {name: -0.5 * math.log(max(g, floor, 1e-300)) for name, g in found.items()}
        mean = sum(logs[name] * w.size for name, w in self.weights.items()) / self.count
        return {name: math.exp(log - mean) for name, log in logs.items()}

    def run(self, start: float, max_shard_size: str) -> Report:
        """All stages."""
        rate, fixed = self.settings["rate"], self.settings["step"] or self.settings["levels"]
        self.stage = "search"
        value = fixed if rate is None else self.search(rate)
        self.stage = "quantize"
        layers = self.one_pass(value)
        if rate is not None:
            value, layers = self.correct(rate, value, layers)
        return self.write(value, layers, start, max_shard_size)

    def search(self, rate: float | int) -> float | int:
        """The step or number of levels at which clean inputs give the rate."""

        def encode(value: float | int) -> _Rated:
            size = self.workspace.size("clean", value)
            if size is None:
                size = self.stored(self.encoder.sizes(value, self.weights, self.clean))
                self.workspace.remember_size("clean", value, size)
            self.done(f"{value:.6g}")
            return _Rated(8 * size / self.count, value)

        if _has_levels(self.recipe):
            return largest_levels(rate, encode).value
        return search_step(rate, self.first_step(rate), encode, encodes=SEARCHES)[0]

    def first_step(self, rate: float | int) -> float:
        """Common step whose mean rate over the layers is about right: at high rate log steps average."""
        logs = [w.size * math.log(first_step(rate, w, self.clean.sigma(name))) for name, w in self.weights.items()]
        # The factors have geometric mean 1 and drop out.
        return math.exp(sum(logs) / self.count)

    def one_pass(self, value: float | int) -> Layers:
        """Quantize every layer at one setting."""
        if self.settings["propagate"]:
            drift = self.settings["drift"]
            return propagated_pass(self.encoder, value, self.model, self.layers, self.windows, drift=drift)
        return clean_pass(self.encoder, value, self.weights, self.clean)

    def correct(self, rate: float | int, value: float | int, layers: Layers) -> tuple[float | int, Layers]:
        """Repeat the pass at a corrected setting until the stored bytes meet the rate."""
        levels, slope, tried = _has_levels(self.recipe), -1.0, []
        for _ in range(PASSES):
            found = 8 * self.stored({name: len(one[0].payload) for name, one in layers.items()}) / self.count
            if found <= rate if levels else abs(found - rate) <= TOLERANCE - 0.0005:  # shards have other headers
                return value, layers
            if levels and value == 2:
                break
            self.workspace.forget(value)
            if tried and not levels:
                (log, before), now = tried[-1], math.log2(value)
                slope = min(max((found - before) / (now - log), -1.5), -0.2)
            tried.append((math.log2(value), found))
            value = value - 1 if levels else value * 2 ** ((rate - found) / slope)
            self.stage = f"quantize, correction {len(tried)}"
            layers = self.one_pass(value)
        self.workspace.discard()
        msg = (
            f"no setting of the recipe gives {rate} bits per weight within {TOLERANCE}; the last, {value:.6g}, gives "
            f"{found:.4f} for {self.count} weights; pass `step` or `levels` to take what it gives"
        )
        raise RateNotReachedError(msg, rate=rate)

    def stored(self, sizes: dict[str, int]) -> int:
        """Bytes that payloads of these sizes will take with headers and config."""
        shapes: Any = {name: w.shape for name, w in self.weights.items()}
        return checkpoint.expected_bytes(shapes, sizes, self.others)

    def write(self, value: float | int, layers: Layers, start: float, max_shard_size: str) -> Report:
        """Write the model and move it to its place."""
        attach(self.model, {name: one[0].payload for name, one in layers.items()})
        checkpoint.restore_dtypes(self.model, self.dtypes)
        directory = self.workspace.model_directory()
        checkpoint.write_model(self.model, self.source, directory, max_shard_size)
        stored = checkpoint.stored_bytes(directory)
        files = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        rows = tuple(row for _, row in layers.values())
        seconds, rate = time.perf_counter() - start, 8 * stored / self.count
        report = Report(rate, self.count, stored, files, value, seconds, self.settings, rows)
        report.save(directory)
        self.workspace.publish()
        return report


def _has_levels(recipe: Callable[..., Scheme]) -> bool:
    return "levels" in inspect.signature(recipe).parameters


def _check(
    recipe: Callable[..., Scheme], rate: float | int | None, step: float | int | None, levels: int | None
) -> None:
    wanted = {"rate": rate, "levels" if _has_levels(recipe) else "step": levels if _has_levels(recipe) else step}
    given = [name for name, value in {"rate": rate, "step": step, "levels": levels}.items() if value is not None]
    if len(given) != 1 or given[0] not in wanted:
        msg = f"give exactly one of {' and '.join(f'`{name}`' for name in wanted)} for this recipe; got {given}"
        raise InvalidInputError(msg)
    value = wanted[given[0]]
    if value is None or not math.isfinite(value) or value <= 0:
        msg = f"`{given[0]}` is {value}; it must be a positive number"
        raise InvalidInputError(msg)
