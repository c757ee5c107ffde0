"""KL, perplexity and real bits of the embedded language model under every recipe, from 1.5 to 4.5 bits.

    python benchmarks/claims/language_model.py [--only RECIPE ...]

Integers have groups of 128, unless said otherwise, and steps of least error, but "as published" spans the range of each
group with a zero point. With `--only` the other rows stay as they were published: runs are independent of each other.
Every point is a model directory written to disk, loaded back through `transformers`, and measured on the held-out text;
its rate is the bytes of what replaces the quantized weights. A small model hardly feels 4 bits in perplexity; the KL to
the unquantized model (bits per token) shows it. Recipes with a step run twice: with one step for all layers, which
gives them all the same distortion, and with steps scaled by what a layer's error costs the loss.
Watersic runs without MMSE feedback, as in a model it should (`lattq.recipes.UNBIASED`), and with it; once more with a
trellis of 256 states in place of the cube.
"""

import argparse
import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import RESULTS, publish

import lattq as lq
from lattq.llm import embedded_model, embedded_text, evaluate, quantize_model
from lattq.recipes import UNBIASED

SEED, SAMPLES = 0, 128
LEVELS = (3, 4, 6, 8, 12, 16, 23)
SMALL = functools.partial(lq.recipes.gptq, group=32)
INTEGERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "rtn": (lq.recipes.rtn, LEVELS),
    "gptq": (lq.recipes.gptq, LEVELS),
    "gptq as published": (lq.recipes.gptq_published, LEVELS),
    "gptq, groups of 32": (SMALL, (4,)),
    "gptq, groups of 32, zero points": (functools.partial(SMALL, symmetric=False), (4,)),
}
TRELLIS, TRELLIS_RATES = "watersic, trellis", (1.5, 2.0, 2.5, 2.8, 3.0, 3.4, 4.0)
STEPS: dict[str, tuple[Any, str, tuple[float, ...]]] = {
    "huffman_gptq, one step": (lq.recipes.huffman_gptq, "distortion", (2.0, 3.0, 4.0)),
    "huffman_gptq": (lq.recipes.huffman_gptq, "loss", (1.5, 2.0, 2.5, 3.0, 4.0)),
    "watersic as published, one step": (lq.recipes.watersic_published, "distortion", (2.0, 3.0, 4.0)),
    "watersic as published": (lq.recipes.watersic_published, "loss", (1.5, 2.0, 2.5, 3.0, 4.0)),
    "watersic, one step": (UNBIASED, "distortion", (2.0, 3.0, 4.0)),
    "watersic, MMSE feedback": (lq.recipes.watersic, "loss", (1.5, 2.0, 2.5, 3.0, 4.0)),
    "watersic": (UNBIASED, "loss", (1.5, 2.0, 2.5, 3.0, 3.4, 4.0, 4.5)),
    TRELLIS: (functools.partial(UNBIASED, quantizer=lq.quantizers.Trellis(256)), "loss", TRELLIS_RATES),
}


def measure(recipe: Any, **options: Any) -> dict[str, Any]:
    """Quantize to disk, load, evaluate."""
    with tempfile.TemporaryDirectory() as folder:
        report = quantize_model(
            embedded_model(),
            f"{folder}/out",
            calibration_text=embedded_text("calibration"),
            recipe=recipe,
            samples=SAMPLES,
            seed=SEED,
            **options,
        )
        found = evaluate(f"{folder}/out", embedded_text("evaluation"), reference=embedded_model())
    return {
        "rate": report.rate,
        "kl": found.kl_bits_per_token,
        "perplexity": found.perplexity,
        "top1": found.top1_agreement,
        "distortion": report.distortion,
        "seconds": report.seconds,
    }


def main() -> None:
    """Sweep, judge, draw, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=[*INTEGERS, *STEPS])
    only = parser.parse_args().only
    whole = evaluate(embedded_model(), embedded_text("evaluation"))
    rows = []

    def add(name: str, recipe: Any, **options: Any) -> None:
        rows.append({"recipe": name, "wanted": options, **measure(recipe, **options)})
        row = rows[-1]
        print(f"{name:32s} {row['rate']:.3f} bit  KL {row['kl']:.4f}  perplexity {row['perplexity']:.3f}", flush=True)

    if only:
        rows += [
            row
            for row in json.loads((RESULTS / "language_model.json").read_text())["rows"]
            if row["recipe"] not in only
        ]
    for name, (recipe, tried) in INTEGERS.items():
        for levels in tried if not only or name in only else ():
            add(name, recipe, levels=levels)
    for name, (recipe, allocation, rates) in STEPS.items():
        for rate in rates if not only or name in only else ():
            add(name, recipe, rate=rate, allocation=allocation)
    draw(rows, whole.perplexity or 0.0)

    def kl(name: str, **only: Any) -> float:
        return next(r["kl"] for r in rows if r["recipe"] == name and only.items() <= r["wanted"].items())

    def lowest(rate: float, key: str) -> bool:
        """Whether the trellis has less than every other recipe at no more bytes."""
        mine = next(r for r in rows if r["recipe"] == TRELLIS and r["wanted"]["rate"] == rate)
        return all(mine[key] < r[key] for r in rows if r["recipe"] != TRELLIS and r["rate"] <= rate + 0.005)

    publish(
        "language_model",
        seed=SEED,
        claims={
            "watersic at 3.4 bits has no more KL than gptq INT4 group 128": kl("watersic", rate=3.4)
            <= kl("gptq", levels=16),
            "watersic at 2.5 bits has no more KL than gptq INT3 group 128": kl("watersic", rate=2.5)
            <= kl("gptq", levels=8),
            "trellis at 2.0, 2.5 and 3.0 bits: less KL than every other recipe": all(
                lowest(rate, "kl") for rate in (2.0, 2.5, 3.0)
            ),
            "trellis at 2.0, 2.5 and 3.0 bits: less perplexity than every other recipe": all(
                lowest(rate, "perplexity") for rate in (2.0, 2.5, 3.0)
            ),
            "trellis at 2.8 bits has no more KL than watersic at 3.0": kl(TRELLIS, rate=2.8)
            <= kl("watersic", rate=3.0),
        },
        unquantized={"perplexity": whole.perplexity, "bits_per_byte": whole.bits_per_byte, "tokens": whole.tokens},
        rows=rows,
    )


def draw(rows: list[dict], perplexity: float) -> None:
    """KL and perplexity against real bits."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in dict.fromkeys(row["recipe"] for row in rows):
        points = sorted((row["rate"], row["kl"], row["perplexity"]) for row in rows if row["recipe"] == name)
        rates, kls, perplexities = zip(*points, strict=True)
        axes[0].semilogy(rates, kls, "o-", label=name, markersize=4)
        axes[1].semilogy(rates, perplexities, "o-", label=name, markersize=4)
    axes[1].axhline(perplexity, color="black", linestyle=":", label="unquantized")
    axes[0].set(xlabel="bits per weight (files)", ylabel="KL to the unquantized model, bits per token")
    axes[1].set(xlabel="bits per weight (files)", ylabel="perplexity, held-out novel")
    axes[1].legend(fontsize=8)
    figure.savefig(RESULTS / "language_model.png", dpi=110)


if __name__ == "__main__":
    main()
