"""From a model directory to a quantized one, at a rate counted in the bytes of its files."""

import importlib.metadata
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lattq import recipes
from lattq._options import among, as_count, as_flag
from lattq.errors import FewTokensWarning, InvalidInputError, shown
from lattq.llm.convert.calibration import Calibration, FromStatistics, OnText
from lattq.llm.convert.companions import companions
from lattq.llm.convert.mapped import design_of
from lattq.llm.convert.plans import scheme_of
from lattq.llm.convert.quantize_refined import quantize_refined
from lattq.llm.convert.report import Report
from lattq.llm.convert.resumed import require_text, text_hash
from lattq.llm.convert.rounded import InputSettings
from lattq.llm.convert.stages import Conversion
from lattq.llm.convert.workspace import Workspace, check_free
from lattq.llm.distill.record import Refining
from lattq.llm.measure.score import pooling_of
from lattq.llm.measure.statistics import Statistics
from lattq.llm.run.digests import run_name
from lattq.llm.source import checkpoint
from lattq.llm.source.design import MapDesign
from lattq.llm.source.places import places
from lattq.llm.source.windows import fixed_threads, token_windows, window_of
from lattq.progress import Observer, Stage, stage
from lattq.rate import MAX_RATE, searched
from lattq.scheme import Scheme

__all__ = ["quantize_model"]

JUDGES = 8  # one window of so many says which allocation of bits is better


def quantize_model(
    source: str | Path,
    out: str | Path,
    *,
    calibration_text: str | None = None,
    statistics: Statistics | str | Path | None = None,
    rate: float | int | None = None,
    recipe: Callable[..., Scheme] = recipes.two_sided,
    step: float | int | None = None,
    levels: int | None = None,
    bits: int | None = None,
    window: int | None = None,
    samples: int | None = None,
    propagate: bool | None = None,
    drift: bool = False,
    allocation: str | None = None,
    input_bits: int | None = None,
    input_clip: float | None = None,
    input_correction: bool = True,
    modules: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    maps: MapDesign | Sequence[MapDesign] | None = None,
    refine: bool | Refining = False,
    seed: int = 0,
    jobs: int = 1,
    threads: int = 1,
    max_shard_size: str = "5GB",
    progress: Stage | Observer | None = None,
) -> Report:
    """Quantize the linear layers of a model directory; `transformers` loads the result after ``import lattq.llm``.

    Bits go to layers at equal slope: the steps are a common one times a factor per layer, see `allocation`. The work
    happens in `OUT.partial`; an interrupted call, repeated, continues there. `out` appears when it is complete.

    Parameters
    ----------
    source : directory with `config.json`, safetensors and a tokenizer
    out : directory to create; must be missing or empty
    calibration_text : what the second moments of the layers' inputs are measured on
    statistics : instead of a text, what `lattq.llm.measure.measure_model` made of this model, or its file. Layers are
        quantized for the inputs of the unquantized model
    rate : bits per quantized weight, counted in the files (see `stored_bytes`), met within 0.005 bit by recipes with a
        step and not exceeded by recipes with levels or bits
    recipe : from a step or a number of levels or bits to a `Scheme`. Where it counts errors of outputs
        (`Scheme.outputs`), these are measured first, as by `measure_model`
    step, levels, bits : the recipe's setting, instead of `rate`
    window, samples : tokens per window (the model's longest, at most 2048), and how many windows (all)
    propagate : measure each block's inputs behind the quantized blocks before it; True unless statistics are given, or
        errors of outputs count: then tokens are weighed in the unquantized model (theory 16.4), which brings more.
        Moments of groups of rows (`Scheme.guides`) remain those of the unquantized model
    allocation : "loss" scales each layer's step so that the last bit of every layer spares the model's predictions
        equally much (see `output_sensitivities`); "rate" gives all layers about the same rate, "distortion" one step;
        without effect on recipes of fixed rate. Where errors of outputs count, their metric has the units of "loss"
        itself. "best" makes both "loss" and "rate" from seven eighths of the windows and keeps what diverges less on
        the others. None is "best" where errors of outputs count and a rate is wanted, with text of eight windows or
        more, and "loss" elsewhere
    drift : correct the weights for what the quantized prefix did to their inputs (WaterSIC, eq. 18)
    input_bits : also round the inputs of these layers while the model runs, each token to so many bits in a range of
        its own (2 to 8; 4 with 16 levels is W4A4). Moments are those of rounded inputs. Stored transforms are then
        applied to inputs, not undone: `Report.operations` counts what that takes
    input_clip : factor by which all ranges shrink, 1.0 as published; None searches one for each layer
    input_correction : correct the weights for what rounding did to their inputs (theory 10.5). On the embedded model at
        W4A4 it spares 8 % of the divergence of `rtn` and 14 % of that of `gptq`. Behind a rotation or `WUSH` little is
        lost, the shrunk weights cost 5 to 8 % more, and False is better. `drift` corrects for rounding anyway
    modules : names of linear layers; None for all inside the blocks that calibration reaches
    include, exclude : patterns of such names, ``*`` for any text: quantize what matches one of `include`, inside the
        blocks or not, and nothing that matches one of `exclude`. The report lists what stays dense, and why
    maps : invertible maps to fold into the model before anything is measured or quantized: a design of
        `lattq.llm.tune`, such as `Balanced()`, or several, one after the other. The rate counts dense weights that they
        add, over the weights that the source has
    refine : train steps, norms, biases and embeddings afterwards by the KL from the dense model, codes frozen (see
        `refine_model`), on the same windows; True, or how. At a `rate`, room is left for gains that learn
    seed : of the draw of windows
    jobs : layers quantized at once
    threads : of torch in the forward passes. What is written depends on this number, not on the machine's: with the
        same versions on the same processor the same call writes the same bytes, whatever `jobs`, `OMP_NUM_THREADS` or
        `torch.set_num_threads` say. On another processor the last bits of sums may differ, and with them codes
    max_shard_size : of the files written
    progress : told of the stages, one tree for the model, or the stage that this is part of: see `lattq.progress`

    Raises
    ------
    InvalidInputError : for an unusable argument, directory or text
    RateNotReachedError : if no setting of the recipe gives the rate

    Warns
    -----
    FewTokensWarning : if a layer saw fewer than eight tokens for each column; from few tokens, second moments are
        shrunk (`lattq.linalg.shrink`)

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
    given = dict(locals())
    if given.pop("refine") is not False:
        return quantize_refined(quantize_model, refine, **given)
    start, design = time.perf_counter(), design_of(maps)
    setting = {"step": step, "levels": levels, "bits": bits}
    _check(recipe, rate, setting)
    if allocation is not None and not among(allocation, ("loss", "rate", "distortion", "best")):
        msg = f'`allocation` is {shown(allocation)}; choose "loss", "rate", "distortion" or "best"'
        raise InvalidInputError(msg)
    if allocation == "best":
        require_text(calibration_text, '`allocation` is "best", which is judged on text')
    jobs, threads, drift = as_count("jobs", jobs), as_count("threads", threads), as_flag("drift", drift)
    propagate = None if propagate is None else as_flag("propagate", propagate)
    _check_statistics(
        statistics,
        {"calibration_text": calibration_text, "window": window, "samples": samples, "propagate": propagate or None}
        | {"drift": drift or None, "input_bits": input_bits, "maps": maps},
    )
    if propagate is None:
        propagate = statistics is None and (drift or input_bits is not None or not scheme_of(recipe).outputs)
    if drift and not propagate:
        msg = "`drift` is True and `propagate` False; inputs only drift behind quantized blocks"
        raise InvalidInputError(msg)
    if input_bits is None and input_clip is not None:
        msg = f"`input_clip` is {input_clip}, but no inputs are rounded; give `input_bits`, or leave it out"
        raise InvalidInputError(msg)
    inputs = None if input_bits is None else InputSettings(input_bits, input_clip, input_correction)
    for name, names in {"modules": modules, "include": include, "exclude": exclude}.items():
        if isinstance(names, str):
            msg = f"`{name}` is the text {names!r}; pass a list of names"
            raise InvalidInputError(msg)
    if modules is not None and include is not None:
        msg = "`modules` and `include` are both given; choose by names or by patterns"
        raise InvalidInputError(msg)
    check_free(Path(out))
    config = checkpoint.read_config(source)
    if "quantization_config" in config or config.get("is_encoder_decoder"):
        kind = "already quantized" if "quantization_config" in config else "an encoder-decoder model"
        msg = f"{source} is {kind}; start from a dense decoder-only or encoder-only model"
        raise InvalidInputError(msg)
    beside = companions(source, out)
    with fixed_threads(threads), stage("quantize the model", inside=progress) as work:
        with work.stage("load the model"):
            tokenizer, model = checkpoint.load_tokenizer(source), checkpoint.load_model(source)
        if design is not None:
            places(model)  # raises for a class without a table of them
        hashed_source = checkpoint.source_hash(source)
        if statistics is None:
            window = window_of(model, window)
            windows = token_windows(tokenizer, str(calibration_text), window, samples, seed)
            samples, text = len(windows), text_hash(str(calibration_text))
            if allocation is None:
                many = rate is not None and scheme_of(recipe).outputs and samples >= JUDGES
                allocation = "best" if many else "loss"
            judges, windows = judged(windows) if allocation == "best" else (None, windows)
            calibration: Calibration = OnText(windows, seed, pooling_of(source))
        else:
            known = statistics if isinstance(statistics, Statistics) else Statistics.load(statistics)
            calibration, text = FromStatistics(known, hashed_source), f"statistics {known.digest()}"
            allocation, judges = allocation or "loss", None
        settings = {
            "recipe": repr(scheme_of(recipe, setting[searched(recipe)[0]])),
            "rate": None if rate is None else float(rate),
            "step": None if step is None else float(step),
            "levels": levels,
            "bits": bits,
            "window": window,
            "samples": samples,
            "seed": seed,
            "propagate": propagate,
            "drift": drift,
            "allocation": allocation,
            "input_bits": input_bits,
            "input_clip": input_clip,
            "input_correction": input_correction,
            "threads": threads,
            "modules": None if modules is None else list(modules),
            "include": None if include is None else list(include),
            "exclude": list(exclude),
            "maps": None if design is None else repr(design),
            "calibration": text,
            "version": importlib.metadata.version("lattq"),
            "source": hashed_source,
        }
        hashed = settings | {"max_shard_size": max_shard_size}
        workspace = Workspace(out, hashed)
        try:
            job = Conversion(
                source, model, calibration, workspace, recipe, settings, jobs, work, design, inputs, judges
            )
            report = job.run(start, max_shard_size, beside, run_name(hashed))
        except Exception:
            if workspace.empty():  # nothing to continue from
                workspace.discard()
            raise
        finally:
            workspace.close()
    said = report.few_tokens()
    if said is not None:
        warnings.warn(said, FewTokensWarning, stacklevel=2)
    return report


def judged(windows: Int[Tensor, "windows window"]) -> tuple[Int[Tensor, "some window"], Int[Tensor, "others window"]]:
    """One window of eight, which judge, and the others; `InvalidInputError` for a single one."""
    if len(windows) < 2:
        msg = '`allocation` is "best", which is judged on windows of its own, and there is one; give a longer text'
        raise InvalidInputError(msg)
    chosen = torch.zeros(len(windows), dtype=torch.bool)
    chosen[min(JUDGES, len(windows)) - 1 :: JUDGES] = True
    return windows[chosen], windows[~chosen]


def _check_statistics(statistics: Any, given: dict[str, Any]) -> None:
    """What is measured comes from a text or from statistics, which hold inputs of the unquantized model alone."""
    if statistics is None:
        if given["calibration_text"] is None:
            msg = "`calibration_text` is missing: a text that resembles what the model will read; or give `statistics`"
            raise InvalidInputError(msg)
        return
    asked = [name for name, value in given.items() if value is not None]
    if asked:
        msg = (
            f"`statistics` and `{asked[0]}` are both given, and statistics hold second moments of the inputs of the "
            f"unquantized model alone; leave out `{asked[0]}`, or give `calibration_text` instead of statistics"
        )
        raise InvalidInputError(msg)


def _check(recipe: Callable[..., Scheme], rate: float | int | None, setting: dict[str, Any]) -> None:
    name = searched(recipe)[0]
    wanted = {"rate": rate, name: setting[name]}
    given = [name for name, value in {"rate": rate, **setting}.items() if value is not None]
    if len(given) != 1 or given[0] not in wanted:
        msg = f"give exactly one of {' and '.join(f'`{name}`' for name in wanted)} for this recipe; got {given}"
        raise InvalidInputError(msg)
    value = wanted[given[0]]
    if value is None or not math.isfinite(value) or value <= 0:
        msg = f"`{given[0]}` is {value}; it must be a positive number"
        raise InvalidInputError(msg)
    if rate is not None and rate > MAX_RATE:
        msg = f"`rate` is {rate} bits per weight; choose at most {MAX_RATE:g}"
        raise InvalidInputError(msg)
