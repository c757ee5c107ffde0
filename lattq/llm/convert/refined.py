"""A quantized model directory refined: its codes as they are, what scales them trained towards the dense model."""

import dataclasses
import importlib.metadata
import json
import math
import time
from pathlib import Path
from typing import Any

from lattq._options import as_count, as_float
from lattq.errors import InvalidInputError, shown
from lattq.llm.convert.companions import companions
from lattq.llm.convert.files import stored_bytes, write_model, writing
from lattq.llm.convert.kept import KeptArrays
from lattq.llm.convert.report import FILE, LayerRow, Report
from lattq.llm.convert.resumed import text_hash
from lattq.llm.convert.workspace import Workspace, check_free
from lattq.llm.distill.record import Distillation, Refining
from lattq.llm.distill.student import Student
from lattq.llm.distill.training import distill
from lattq.llm.run.config import block_of
from lattq.llm.run.digests import run_name
from lattq.llm.source import checkpoint
from lattq.llm.source.matrices import matrices
from lattq.llm.source.windows import fixed_threads, token_windows, window_of
from lattq.progress import Observer, Stage, stage

__all__ = ["Refinement", "refine_model"]

OWN = "lattq_refinement.json"


@dataclasses.dataclass(frozen=True)
class Refinement:
    """What `refine_model` did.

    Attributes
    ----------
    rate, plain_rate : bits per quantized weight after and before, counted in the files
    stored_bytes, plain_bytes : what replaces the quantized weights, after and before (see `stored_bytes`)
    weights : that are quantized
    distillation : held-out divergences after each epoch, and which state was kept
    settings : how it was made
    run : name of the refined conversion, which `config.json` has too
    seconds : of all of it

    Examples
    --------
    >>> from lattq.llm.distill.record import Epoch
    >>> plain = Epoch(0.02, 1000, 0.02)
    >>> same = Refinement(3.0, 3.0, 1100, 1100, 2933, Distillation(plain, plain, 0, (), 7, 1), {}, "", 1.0)
    >>> same.distillation.ratio
    1.0
    """

    rate: float
    plain_rate: float
    stored_bytes: int
    plain_bytes: int
    weights: int
    distillation: Distillation
    settings: dict[str, Any]
    run: str
    seconds: float

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def refine_model(
    directory: str | Path,
    out: str | Path,
    *,
    source: str | Path,
    calibration_text: str,
    refining: Refining | None = None,
    window: int | None = None,
    samples: int | None = None,
    most_rate: float | None = None,
    threads: int = 1,
    max_shard_size: str = "5GB",
    progress: Stage | Observer | None = None,
) -> Refinement:
    """Train steps, norms, biases and embeddings of a quantized model by the KL from its dense one; codes stay.

    Some calibration windows train and others judge; what is written is the best state by the latter, rounded as files
    hold it and with its bytes counted, which may be the one that there was. The work happens in `OUT.partial`; an
    interrupted call, repeated, continues there. A model without a head is trained by the squared distance of its
    embeddings, means of the last hidden states of length 1.

    Parameters
    ----------
    directory : a model quantized by lattq
    out : directory to create; must be missing or empty
    source : directory of the dense model it was made from
    calibration_text : of which windows are cut; no text that is to judge the result
    refining : how training goes; `Refining()` unless given
    window, samples : tokens per window (the model's longest, at most 2048), and how many windows (all)
    most_rate : bits per weight that the files must not exceed with gains; None for what they are worth at equal slope
    threads : of torch; what is written depends on this number, as in `quantize_model`
    max_shard_size : of the files written
    progress : told of the stages, or the stage that this is part of: see `lattq.progress`

    Raises
    ------
    InvalidInputError : for an unusable argument, directory or text; a source of another model; a layer that no gradient
        reaches

    References
    ----------
    The distillation of scales with frozen codes follows DWQ of MLX (Hannun 2025) and the rescalers of WaterSIC.

    Examples
    --------
    >>> import tempfile
    >>> import lattq as lq
    >>> from lattq.llm import embedded_model, embedded_text, quantize_model
    >>> text, folder = embedded_text("calibration")[:20_000], tempfile.TemporaryDirectory()
    >>> options = {"recipe": lq.recipes.rtn, "levels": 4, "modules": ["model.layers.0.self_attn.v_proj"]}
    >>> _ = quantize_model(embedded_model(), f"{folder.name}/plain", calibration_text=text, samples=4, **options)
    >>> found = refine_model(
    ...     f"{folder.name}/plain", f"{folder.name}/fine", source=embedded_model(), calibration_text=text,
    ...     refining=Refining(epochs=1), samples=4
    ... )
    >>> found.distillation.ratio <= 1.0
    True
    >>> folder.cleanup()
    """
    start, refining = time.perf_counter(), Refining() if refining is None else refining
    _check(refining, most_rate, threads)
    check_free(Path(out))
    report = check_source(directory, source)
    beside = companions(directory, out)
    with fixed_threads(threads), stage("refine the model", inside=progress) as work:
        with work.stage("load the models"):
            tokenizer = checkpoint.load_tokenizer(directory)
            model, teacher = checkpoint.load_model(directory), checkpoint.load_model(source)
        check_layers(model, teacher, directory, source)
        model.hf_quantizer.carried = checkpoint.unread_tensors(source, teacher)
        window = window_of(model, window)
        windows = token_windows(tokenizer, calibration_text, window, samples, refining.seed)
        settings = {
            "refining": dataclasses.asdict(refining),
            "window": window,
            "samples": len(windows),
            "most_rate": None if most_rate is None else float(most_rate),
            "threads": threads,
            "calibration": text_hash(calibration_text),
            "version": importlib.metadata.version("lattq"),
            "source": checkpoint.source_hash(source),
            "plain": checkpoint.source_hash(directory),
        }
        hashed = settings | {"max_shard_size": max_shard_size}
        workspace = Workspace(out, hashed)
        try:
            student, plain = (
                Student(model, embeddings=refining.embeddings, gains=refining.gains),
                stored_bytes(directory),
            )
            most = math.inf if most_rate is None else most_rate * student.weights / 8 - (plain - student.size())
            with work.stage("train") as training:
                found = distill(student, teacher.float(), windows, refining, training, KeptArrays(workspace), most)
            with work.stage("write"):
                student.finish()
                run = model.hf_quantizer.quantization_config.run = run_name(hashed)
                folder = workspace.model_directory()
                write_model(model, directory, beside, folder, max_shard_size)
                sizes, weights = (stored_bytes(folder), plain), student.weights
                after, before = (8 * size / weights for size in sizes)
                seconds = time.perf_counter() - start
                told = Refinement(after, before, *sizes, weights, found, settings, run, seconds)
                write_words(told, report, student, folder)
            workspace.publish()
        except Exception:
            if workspace.empty():  # nothing to continue from
                workspace.discard()
            raise
        finally:
            workspace.close()
    return told


def _check(refining: Any, most_rate: float | None, threads: int) -> None:
    if not isinstance(refining, Refining):
        msg = f"`refining` is {shown(refining)}; pass a `Refining` of `lattq.llm`"
        raise InvalidInputError(msg)
    as_count("threads", threads)
    if most_rate is not None and not 0 < as_float("most_rate", most_rate) < math.inf:
        msg = f"`most_rate` is {most_rate} bits per weight; pass a positive number, or None"
        raise InvalidInputError(msg)


def write_words(told: Refinement, report: Report | None, student: Student, folder: Path) -> None:
    """Write what was done, and the report of the conversion with the rates that there are now."""
    with writing(folder):
        (folder / OWN).write_text(told.to_json(), encoding="utf-8")
        if report is None:
            return
        rates = {name: 8 * len(one) / student.layers[name].values.numel() for name, one in student.payloads().items()}
        rows = tuple(_at_rate(row, rates.get(row.name, row.rate)) for row in report.layers)
        files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        rate = 8 * (told.stored_bytes + report.added_bytes) / report.weights
        changed = {"layers": rows, "rate": rate, "stored_bytes": told.stored_bytes, "file_bytes": files}
        dataclasses.replace(report, run=told.run, **changed).save(folder)


def _at_rate(row: LayerRow, rate: float) -> LayerRow:
    """A layer's row with another rate; its distortion is that of its codes."""
    return dataclasses.replace(row, rate=rate, gap=None if row.reference is None else rate - row.reference)


def check_source(directory: str | Path, source: str | Path) -> Report | None:
    """The report of a quantized directory, if there is one; raises `InvalidInputError` for another source."""
    config, dense = checkpoint.read_config(directory), checkpoint.read_config(source)
    block_of(config, directory)
    if "quantization_config" in dense:
        msg = f"`source` = {source} is quantized itself; give the dense model that {directory} was made from"
        raise InvalidInputError(msg)
    path = Path(directory) / FILE
    if not path.is_file():
        return None
    report = Report.from_json(path.read_text(encoding="utf-8"))
    known = report.settings.get("source")
    if known is not None and known != checkpoint.source_hash(source):
        msg = f"`source` = {source} is not the model that {directory} was made from: their hashes differ"
        raise InvalidInputError(msg)
    return report


def check_layers(model: Any, teacher: Any, directory: str | Path, source: str | Path) -> None:
    """Raise `InvalidInputError` unless both models are of one class, with the same quantized layers."""
    known = matrices(teacher)
    for name, text in model.hf_quantizer.quantization_config.modules.items():
        rows, columns = (int(one) for one in text.removesuffix("T").split("x"))
        if name not in known or sorted(known[name].shape) != sorted((rows, columns)):
            there = f"{known[name].shape}" if name in known else "no such layer"
            msg = f"{directory} has the layer {name} of {text}, `source` = {source} {there}; it is another model"
            raise InvalidInputError(msg)
    if type(model).__name__ != type(teacher).__name__ or model.can_generate() != teacher.can_generate():
        msg = f"{directory} is a {type(model).__name__}, `source` = {source} a {type(teacher).__name__}"
        raise InvalidInputError(msg)
    if model.get_input_embeddings().weight.shape != teacher.get_input_embeddings().weight.shape:
        msg = f"{directory} and `source` = {source} have different vocabularies; it is another model"
        raise InvalidInputError(msg)
