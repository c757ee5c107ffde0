"""Tiny random models of many classes: each is quantized, loaded again and compared with what it should be."""

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers.pre_tokenizers import Split

from benchmarks.classes import CHARACTERS, SPECIAL, VOCABULARY, ZOO
from lattq import llm, recipes
from lattq.errors import LattqError
from lattq.llm.run import Encoded
from lattq.llm.source import matrices

WINDOW, SAMPLES, STEP, GAIN = 24, 6, 0.05, 6


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one class.

    Attributes
    ----------
    name, kind : of the class
    quantized_share : of the model's weights
    rate : bits per quantized weight as reported
    counted_rate : the same from the sizes of the files
    largest_difference : of any output from that of the dense model with the decoded weights, over its largest
    moved : largest difference of any output from that of the source, over its largest
    dense : share of the weight files by reason
    unlisted : bytes of the weight file that are neither in its header, nor payloads, nor of a tensor that is listed
    unreached : how many layers no calibration input reached
    seconds : of the conversion
    error : of lattq, if the class cannot be quantized
    """

    name: str
    kind: str
    quantized_share: float = 0.0
    rate: float = 0.0
    counted_rate: float = 0.0
    largest_difference: float = 0.0
    moved: float = 0.0
    dense: dict[str, float] = dataclasses.field(default_factory=dict)
    unlisted: int = 0
    unreached: int = 0
    seconds: float = 0.0
    error: str | None = None


def save_source(name: str, directory: Path) -> None:
    """A random model of a class, and a tokenizer of single characters."""
    kind: Any = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**ZOO[name][1])).eval()
    for matrix in matrices(model).values():
        matrix.write(GAIN * matrix.weight)  # outputs that mind an error
    model.save_pretrained(directory)
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split("", "isolated")  # type: ignore[assignment]
    options: dict[str, Any] = {"tokenizer_object": tokenizer, "pad_token": "[PAD]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(**options).save_pretrained(directory)


def outcome(name: str, folder: Path, include: list[str] | None = None) -> Outcome:
    """Quantize a class, or what matches `include`, load the result, compare."""
    kind: Any = getattr(transformers, name)
    with _quiet():
        save_source(name, folder / "source")
        try:
            report = llm.quantize_model(
                folder / "source",
                folder / "out",
                calibration_text=llm.embedded_text("calibration")[:20_000],
                recipe=recipes.huffman_gptq,
                step=STEP,
                samples=SAMPLES,
                window=WINDOW,
                include=include,
            )
        except LattqError as error:
            return Outcome(name, ZOO[name][0], error=str(error))
        source, dense, quantized = (
            kind.from_pretrained(folder / path, dtype=torch.float32).eval() for path in ("source", "source", "out")
        )
    write_decoded(dense, quantized)
    tokens = torch.arange(VOCABULARY)[len(SPECIAL) :][:WINDOW].repeat(2, 1)
    first, wanted, found = (_outputs(model, tokens) for model in (source, dense, quantized))
    total = sum(parameter.numel() for parameter in source.parameters())
    return Outcome(
        name,
        ZOO[name][0],
        quantized_share=report.weights / total,
        rate=report.rate,
        counted_rate=8 * counted_bytes(folder / "out") / report.weights,
        largest_difference=_distance(found, wanted),
        moved=_distance(found, first),
        dense=report.dense_shares(),
        unlisted=unlisted_bytes(folder / "out", report),
        unreached=sum(row.why == "no calibration input reached it" for row in report.dense),
        seconds=report.seconds,
    )


def write_decoded(dense: Any, quantized: Any) -> None:
    """Put the decoded weights of a quantized model into a dense one."""
    found, texts = matrices(dense), quantized.config.quantization_config.modules
    for name, module in quantized.named_modules():
        if isinstance(module, Encoded):
            if found[name].routed:
                found[name].transposed = texts[name].endswith("T")
            found[name].write(module.dequantize())


def counted_bytes(directory: Path) -> int:
    """What the files hold less what they would hold without the quantized tensors and the block in the config."""
    blob = (directory / "model.safetensors").read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size].rstrip())
    kept = {key: entry for key, entry in header.items() if entry.get("dtype") != "U8"}
    data = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for key, entry in kept.items() if key[0] != "_")
    weights = len(blob[8 + size :]) + len(blob[8 : 8 + size].rstrip()) - data
    weights -= len(json.dumps(kept, separators=(",", ":")))
    config = json.loads((directory / "config.json").read_text())
    whole = len(json.dumps(config, indent=2))
    config.pop("quantization_config")
    return weights + whole - len(json.dumps(config, indent=2))


def unlisted_bytes(directory: Path, report: llm.Report) -> int:
    """Bytes of tensors in the weight file that are neither payloads nor listed as dense."""
    blob = (directory / "model.safetensors").read_bytes()
    size = int.from_bytes(blob[:8], "little")
    spans = [entry["data_offsets"] for entry in json.loads(blob[8 : 8 + size]).values() if entry.get("dtype") == "U8"]
    listed = round(sum(row.share for row in report.dense) * report.file_bytes)
    return len(blob) - 8 - size - sum(end - start for start, end in spans) - listed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "few calibration tokens")  # few suffice here
            yield
    finally:
        logging.set_verbosity(level)


@torch.no_grad()
def _outputs(model: Any, tokens: torch.Tensor) -> list[torch.Tensor]:
    model.config.pad_token_id = 0  # classifiers look for it
    output = model(input_ids=tokens)
    values = [output[key] for key in output]
    return [value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()]


def _distance(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))
