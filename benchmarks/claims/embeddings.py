"""MiniLM, which embeds sentences, with errors fed back along rows too, and refined, beside the one-sided trellis.

    python benchmarks/claims/embeddings.py [--only NAME ...] [--seeds SEED ...]

G comes from unit noise on embeddings of length 1, refining follows half their squared distance; all see 300 windows of
64 tokens. Judged on an unseen novel, which is the kind of text that all see before, and on the reference of the Python
language, in such windows: 1 - cosine to the embeddings of the unquantized model, and retrieval. For every window as a
query all others are ranked by cosine: which of the first ten the unquantized model has too, and the correlation of the
ranks.
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

import numpy as np
import torch
from harness import RESULTS, models, publish
from scipy.stats import rankdata

import lattq as lq
from lattq.llm import embedded_text, quantize_model
from lattq.llm.distill.divergence import predictions
from lattq.llm.source import batches_of, load_model, load_tokenizer, token_windows
from lattq.recipes import UNBIASED, two_sided

SEEDS, WINDOW, SAMPLES, JUDGED, FIRST = (0, 1), 64, 300, 600, 10
TRELLIS = functools.partial(UNBIASED, quantizer=lq.quantizers.Trellis(256))
OTHER = "\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
TEXTS = {"novel": embedded_text("evaluation"), "reference": OTHER}
POINTS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{f"trellis {rate:g}": (TRELLIS, {"rate": rate}) for rate in (2.0, 3.0)},
    **{f"two-sided {rate:g}": (two_sided, {"rate": rate}) for rate in (2.0, 3.0)},
    **{f"two-sided {rate:g}, refined": (two_sided, {"rate": rate, "refine": True}) for rate in (2.0, 3.0)},
}
# Ratio of 1 - cosine to that of the one-sided trellis, on the novel and on the reference.
TARGETS = {
    "two-sided 2": (0.85, 1.0),
    "two-sided 3": (0.75, 0.85),
    "two-sided 2, refined": (0.75, 0.95),
    "two-sided 3, refined": (0.65, 0.8),
}


@torch.no_grad()
def embeddings(model: Any, windows: torch.Tensor) -> np.ndarray:
    """Of length 1."""
    return torch.cat([predictions(model, batch) for batch in batches_of(windows)]).double().numpy()


def order(vectors: np.ndarray) -> np.ndarray:
    """Rank of every other window for each as a query, the nearest first; its own comes last."""
    close = vectors @ vectors.T
    np.fill_diagonal(close, -2.0)
    return rankdata(-close, axis=1, method="ordinal")


def compared(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Distance and retrieval."""
    mine, wanted = order(ours), order(theirs)
    kept = np.mean(np.sum((mine <= FIRST) & (wanted <= FIRST), axis=1)) / FIRST
    n = len(mine) - 1
    ranks = 1 - 6 * np.sum((mine - wanted).astype(float) ** 2, axis=1) / (n * (n**2 - 1))
    first = np.mean(np.argmin(mine, axis=1) == np.argmin(wanted, axis=1))
    cosine = float(np.mean(np.sum(ours * theirs, axis=1)))
    return {"distance": 1 - cosine, "kept": float(kept), "ranks": float(ranks.mean()), "first": float(first)}


def measure(name: str, seed: int, before: dict[str, tuple[torch.Tensor, np.ndarray]]) -> dict[str, Any]:
    """One point."""
    recipe, options = POINTS[name]
    with tempfile.TemporaryDirectory() as home:
        start, folder = time.perf_counter(), f"{home}/model"
        options: dict[str, Any] = {"window": WINDOW, "samples": SAMPLES, "allocation": "loss", **options}
        options |= {"seed": seed, "recipe": recipe}
        report = quantize_model(models()["MiniLM"], folder, calibration_text=embedded_text("calibration"), **options)
        seconds = time.perf_counter() - start
        model = load_model(folder, torch.float32)
        found = {kind: compared(embeddings(model, windows), wanted) for kind, (windows, wanted) in before.items()}
    row = {"name": name, "seed": seed, "rate": report.rate, "bytes": report.stored_bytes, "seconds": seconds} | found
    print(json.dumps(row), flush=True)
    return row


def save(rows: list[dict[str, Any]]) -> None:
    """Publish what there is."""
    points, claims, ratios = {(row["name"], row["seed"]): row for row in rows}, {}, {}
    for name, wanted in TARGETS.items():
        other = f"trellis {name.split()[1].rstrip(',')}"
        pairs = [(points[name, k], points[other, k]) for k in SEEDS if {(name, k), (other, k)} <= points.keys()]
        for kind, target in zip(TEXTS, wanted, strict=True):
            if not pairs:
                continue
            each = [a[kind]["distance"] / b[kind]["distance"] * 4 ** (a["rate"] - b["rate"]) for a, b in pairs]
            ratios[f"{name}, {kind}"] = found = float(np.mean(each))
            claims[f"{name}: at most {target:g} of 1 - cosine of {other}, {kind}"] = found <= target
            claims[f"{name}: no smaller part of the first ten kept than by {other}, {kind}"] = all(
                a[kind]["kept"] >= b[kind]["kept"] for a, b in pairs
            )
    publish("embeddings", seed=SEEDS[0], claims=claims, ratios=ratios, rows=rows)


def main() -> None:
    """Measure, judge, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=list(POINTS), default=list(POINTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    options, source, path = parser.parse_args(), models()["MiniLM"], RESULTS / "embeddings.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    model, tokenizer = load_model(source, torch.float32), load_tokenizer(source)
    windows = {kind: token_windows(tokenizer, text, WINDOW, JUDGED) for kind, text in TEXTS.items()}
    before = {kind: (some, embeddings(model, some)) for kind, some in windows.items()}
    for seed in options.seeds:
        for name in options.only:
            row = measure(name, seed, before)
            rows = [one for one in rows if (one["name"], one["seed"]) != (name, seed)] + [row]
            save(rows)


if __name__ == "__main__":
    main()
