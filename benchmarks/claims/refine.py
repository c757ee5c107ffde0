"""KL of the embedded language model refined with frozen codes, over that of today's trellis at the same real bytes.

    python benchmarks/claims/refine.py [--epochs N] [--only NAME ...] [--home DIR]

Every point is a directory on disk, loaded back through `transformers`; its rate is the bytes of what replaces the
quantized weights. The plain trellis has the whole rate; what is refined was quantized at less by what row gains take.
Two stages: gains, steps and norms alone, and the dense embedding (the output layer is tied to it) as well. Judged on
an unseen novel, which is the model's kind of text, and on the reference of the Python language, which is not.
Integers have steps in float16 for each row and group of 128 anyway, so refining adds no byte to them.
"""

import argparse
import functools
import json
import pydoc_data.topics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import RESULTS, publish

import lattq as lq
from lattq.llm import Refining, Report, embedded_model, embedded_text, evaluate, quantize_model, refine_model
from lattq.llm.convert.quantize_refined import ROW_BITS
from lattq.recipes import UNBIASED

SEED, SLACK = 0, 0.0045
TRELLIS = functools.partial(UNBIASED, quantizer=lq.quantizers.Trellis(256))
RATES, LEVELS = (2.0, 2.5, 3.0, 4.0), {"INT4": 16, "INT3": 8}
STAGES = {"gains and norms": False, "embeddings too": True}
OTHER = "\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
TEXTS = {"novel": (embedded_text("evaluation"), None), "reference": (OTHER, 100)}


def judged(folder: Path) -> dict[str, float]:
    """KL in bits per token on both texts."""
    return {
        name: evaluate(folder, text, reference=embedded_model(), samples=samples).kl_bits_per_token or 0.0
        for name, (text, samples) in TEXTS.items()
    }


def quantized(folder: Path, recipe: Any, **options: Any) -> Any:
    """Quantize the embedded model on all calibration windows, unless that has been done."""
    if not folder.is_dir():
        text = embedded_text("calibration")
        quantize_model(embedded_model(), folder, calibration_text=text, recipe=recipe, seed=SEED, **options)
    return Report.from_json((folder / "lattq_report.json").read_text())


def refined(plain: Path, folder: Path, epochs: int, most: float | None, *, embeddings: bool) -> dict[str, Any]:
    """Refine a directory, unless that has been done; what was written about it."""
    if not folder.is_dir():
        refine_model(
            plain,
            folder,
            source=embedded_model(),
            calibration_text=embedded_text("calibration"),
            refining=Refining(epochs=epochs, embeddings=embeddings, seed=SEED),
            most_rate=most,
        )
    found = json.loads((folder / "lattq_refinement.json").read_text())
    told = found["distillation"]
    held_out = {"start": told["start"]["divergence"], "end": told["end"]["divergence"], "best": told["best_epoch"]}
    epochs = found["settings"]["refining"]["epochs"]
    words = {"rate": found["rate"], "bytes": found["stored_bytes"], "seconds": found["seconds"]}
    return {**words, "epochs": epochs, "held_out": held_out}


def measure(name: str, epochs: int, home: Path) -> list[dict[str, Any]]:
    """The plain model and both stages of one recipe."""
    if name in LEVELS:
        first = quantized(home / "whole", lq.recipes.gptq, levels=LEVELS[name])
        low, most = home / "whole", None
    else:
        rate = float(name.split()[1])
        first = quantized(home / "whole", TRELLIS, rate=rate)
        gains = ROW_BITS * sum(row.shape[0] for row in first.layers) / first.weights
        low, most = home / "low", rate + SLACK
        quantized(low, TRELLIS, rate=rate - gains)
    start = judged(home / "whole")
    rows = [{"name": name, "stage": "plain", "rate": first.rate, "bytes": first.stored_bytes, "kl": start}]
    for stage, embeddings in STAGES.items():
        told = refined(low, home / stage, epochs, most, embeddings=embeddings)
        kl = judged(home / stage)
        rows.append(
            {"name": name, "stage": stage, **told, "kl": kl, "ratio": {text: kl[text] / start[text] for text in kl}}
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure, judge, publish."""
    names = [*(f"trellis {rate}" for rate in RATES), *LEVELS]
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=Refining().epochs)
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="the other rows stay as published")
    parser.add_argument("--home", type=Path, help="where directories stay, so that an interrupted run continues")
    options = parser.parse_args()
    path, rows = RESULTS / "refine.json", []
    if path.exists():
        rows = [row for row in json.loads(path.read_text())["rows"] if row["name"] not in options.only]
    for name in options.only:
        with tempfile.TemporaryDirectory() as temporary:
            home = Path(temporary) if options.home is None else options.home / name
            rows += measure(name, options.epochs, home)
        save(rows, options.epochs)


def save(rows: list[dict[str, Any]], epochs: int) -> None:
    """Publish what there is."""
    done = [row for row in rows if row["stage"] == "embeddings too"]
    gains = [row for row in rows if row["stage"] == "gains and norms"]
    trellis = [row for row in done if row["name"].startswith("trellis")]
    plain = {row["name"]: row for row in rows if row["stage"] == "plain"}
    publish(
        "refine",
        seed=SEED,
        claims={
            "no more bytes than the plain model's rate allows, 0.005 bit": all(
                row["rate"] <= max(plain[row["name"]]["rate"], float(row["name"].split()[-1]) + SLACK)
                for row in trellis
            ),
            "never a larger KL, on either text": all(r <= 1 for row in done + gains for r in row["ratio"].values()),
            "trellis, 2 to 4 bits: at most 0.87 of the KL on the novel": all(
                r["ratio"]["novel"] <= 0.87 for r in trellis
            ),
        },
        epochs=epochs,
        rows=rows,
    )


if __name__ == "__main__":
    main()
