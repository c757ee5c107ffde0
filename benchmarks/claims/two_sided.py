"""KL of the embedded model with errors fed back along rows too, beside recipes without that, at the same real bytes.

    python benchmarks/claims/two_sided.py [--only NAME ...] [--seeds SEED ...]

Every point is a directory on disk, loaded back through `transformers`; its rate is the bytes of what replaces the
quantized weights. All see the same calibration windows, in which labels for the gradients are drawn. Judged on an
unseen novel, which is the model's kind of text, and on the reference of the Python language, which is not. Points at
rates that differ a little are compared at 4^(difference), as KL falls there. "uniform" gives every layer the same
rate, "from 1 k" calibrates on four windows of 256 tokens, and so on.
"""

import argparse
import functools
import json
import pydoc_data.topics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib.pyplot as plt
from harness import RESULTS, publish

import lattq as lq
from lattq.llm import embedded_model, embedded_text, evaluate, quantize_model
from lattq.recipes import UNBIASED, gptq, guided, two_sided, yaqa

SEEDS = (0, 1)
TRELLIS = functools.partial(UNBIASED, quantizer=lq.quantizers.Trellis(256))
SCALAR = functools.partial(two_sided, quantizer=lq.quantizers.Uniform())
RATES = (2.0, 2.5, 3.0, 4.0)
TOKENS = {"1 k": 4, "4 k": 16, "16 k": 64}  # windows of 256; all are 144
OTHER = "\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
TEXTS = {"novel": (embedded_text("evaluation"), None), "reference": (OTHER, 100)}
POINTS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{f"trellis {rate:g}": (TRELLIS, {"rate": rate}) for rate in RATES},
    **{f"two-sided {rate:g}": (two_sided, {"rate": rate}) for rate in RATES},
    "watersic 3": (UNBIASED, {"rate": 3.0}),
    "two-sided scalar 3": (SCALAR, {"rate": 3.0}),
    **{f"gptq INT{bits}": (gptq, {"levels": 2**bits}) for bits in (3, 4)},
    **{f"yaqa INT{bits}": (yaqa, {"levels": 2**bits}) for bits in (3, 4)},
    "trellis 3, uniform": (TRELLIS, {"rate": 3.0, "allocation": "rate"}),
    "two-sided 3, uniform": (two_sided, {"rate": 3.0, "allocation": "rate"}),
    **{f"trellis 3 from {words}": (TRELLIS, {"rate": 3.0, "samples": n}) for words, n in TOKENS.items()},
    **{f"two-sided 3 from {words}": (two_sided, {"rate": 3.0, "samples": n}) for words, n in TOKENS.items()},
    **{f"guided INT{bits}": (guided, {"levels": 2**bits}) for bits in (3, 4)},
}
# Ratio of KL to that of the other, on the novel and on the reference.
TARGETS = {
    ("two-sided 3", "trellis 3"): (0.75, 0.85),
    ("two-sided 2", "trellis 2"): (0.85, 1.0),
    ("two-sided 2.5", "trellis 2.5"): (0.85, 1.0),
    ("two-sided 4", "trellis 4"): (0.85, 1.0),
    ("two-sided scalar 3", "watersic 3"): (0.78, 1.0),
    ("yaqa INT3", "gptq INT3"): (0.8, 1.0),
    ("yaqa INT4", "gptq INT4"): (0.8, 1.0),
    ("two-sided 3", "two-sided 3, uniform"): (1.0, 1.0),
    ("trellis 3", "trellis 3, uniform"): (1.0, 1.0),
    **{(f"two-sided 3 from {words}", f"trellis 3 from {words}"): (1.0, 1.0) for words in TOKENS},
    ("guided INT3", "gptq INT3"): (1.0, 1.0),
    ("guided INT4", "gptq INT4"): (1.0, 1.0),
}


def measure(name: str, seed: int) -> dict[str, Any]:
    """One point."""
    recipe, options = POINTS[name]
    with tempfile.TemporaryDirectory() as home:
        start, folder = time.perf_counter(), f"{home}/model"
        text = embedded_text("calibration")
        options: dict[str, Any] = {"recipe": recipe, "seed": seed, "allocation": "loss", **options}
        report = quantize_model(embedded_model(), folder, calibration_text=text, **options)
        seconds = time.perf_counter() - start
        found = {
            kind: evaluate(folder, own, reference=embedded_model(), samples=samples)
            for kind, (own, samples) in TEXTS.items()
        }
    kl = {kind: one.kl_bits_per_token for kind, one in found.items()}
    row = {"name": name, "seed": seed, "rate": report.rate, "bytes": report.stored_bytes, "kl": kl}
    row |= {"perplexity": {kind: one.perplexity for kind, one in found.items()}, "seconds": seconds}
    print(json.dumps(row), flush=True)
    return row


def ratio(rows: list[dict[str, Any]], one: str, other: str, kind: str) -> float | None:
    """Mean over seeds of KL at equal bytes over that of the other; None if there is no pair."""
    points = {(row["name"], row["seed"]): row for row in rows}
    pairs = [(points[one, k], points[other, k]) for k in SEEDS if {(one, k), (other, k)} <= points.keys()]
    found = [a["kl"][kind] / b["kl"][kind] * 4 ** (a["rate"] - b["rate"]) for a, b in pairs]
    return sum(found) / len(found) if found else None


def save(rows: list[dict[str, Any]]) -> None:
    """Publish what there is."""
    ratios, claims = {}, {}
    for (one, other), wanted in TARGETS.items():
        for kind, target in zip(TEXTS, wanted, strict=True):
            found = ratio(rows, one, other, kind)
            if found is not None:
                ratios[f"{one} of {other}, {kind}"] = found
                claims[f"{one}: at most {target:g} of the KL of {other} on the {kind}"] = found <= target
    publish("two_sided", seed=SEEDS[0], claims=claims, ratios=ratios, rows=rows)
    draw(rows)


def draw(rows: list[dict[str, Any]]) -> None:
    """KL at three bits against tokens of calibration, means over seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for kind, axis in zip(TEXTS, axes, strict=True):
        for recipe in ("trellis", "two-sided"):
            points = []
            for words, windows in {**TOKENS, "": 144}.items():
                name = f"{recipe} 3 from {words}" if words else f"{recipe} 3"
                found = [row["kl"][kind] for row in rows if row["name"] == name]
                points += [(256 * windows, sum(found) / len(found))] if found else []
            axis.loglog(*zip(*points, strict=True), "o-", label=recipe, markersize=4)
        axis.set(xlabel="tokens of calibration", ylabel="KL, bits per token", title=kind)
        axis.legend(fontsize=8)
    figure.savefig(RESULTS / "calibration_tokens.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, judge, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=list(POINTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    options = parser.parse_args()
    path, wanted = RESULTS / "two_sided.json", options.only or list(POINTS)
    known = json.loads(path.read_text())["rows"] if options.only and path.exists() else []
    rows = [row for row in known if not (row["name"] in wanted and row["seed"] in options.seeds)]
    for seed in options.seeds:
        for name in wanted:
            rows.append(measure(name, seed))
            save(rows)


if __name__ == "__main__":
    main()
