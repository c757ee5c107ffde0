"""Gaps of the trellis on the second moments of two real models, from 4 bits down to 1.

    python benchmarks/claims/trellis_moments.py [--jobs 2]

Every second moment of the embedded language model and of all-MiniLM-L6-v2 (layers that share one count once), with
2048 rows of N(0, 1) weights; the reference is reverse waterfilling with the true variances, a bound.
"""

import argparse
import functools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import each, layers_of, models, publish

import lattq as lq
from lattq.quantizers import Trellis

SEED, ROWS = 0, 2048
TARGETS = {4.0: 0.055, 3.0: 0.055, 2.0: 0.08, 1.0: 0.14}
RECIPES = {
    "trellis, 256 states": functools.partial(lq.recipes.watersic, quantizer=Trellis(256)),
    "watersic": lq.recipes.watersic,
}


def rows_of(model: str, name: str, sigma: np.ndarray) -> list[dict]:
    """Gap of every recipe at every rate."""
    weight = np.random.default_rng(SEED).standard_normal((ROWS, len(sigma)))
    found = []
    for rate in TARGETS:
        for label, recipe in RECIPES.items():
            layer = nearest_rate(rate, recipe, weight, sigma)
            gap = layer.gap(weight, sigma, row_variance=1.0, column_variance=1.0)
            row = {"model": model, "layer": name, "columns": len(sigma), "recipe": label, "target": rate}
            found.append({**row, "rate": layer.rate, "gap": gap, "idle_columns": layer.stats["idle_columns"]})
    print(model, name, *(f"{row['target']:g}: {row['gap']:.3f}" for row in found), flush=True)
    return found


def nearest_rate(rate: float, recipe: functools.partial, weight: np.ndarray, sigma: np.ndarray) -> lq.Quantized:
    """The result nearest to the rate, where columns that fall idle together leave no exact one."""
    try:
        return lq.at_rate(rate, recipe, weight, sigma)
    except lq.errors.RateNotReachedError as error:
        if not isinstance(error.best, lq.Quantized):
            raise
        return error.best


def main() -> None:
    """Collect the second moments, run them all, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    jobs = parser.parse_args().jobs
    layers = [(model, name, sigma) for model, path in models().items() for name, _, sigma in layers_of(path)]
    shared = {sigma.tobytes(): (model, name, sigma) for model, name, sigma in layers}
    rows = [row for found in each(jobs, rows_of, list(shared.values())) for row in found]
    means = [
        {"model": model, "recipe": recipe, "target": rate, "gap": mean(rows, model, recipe, rate)}
        for model in models()
        for recipe in RECIPES
        for rate in TARGETS
    ]
    for row in means:
        print(f"{row['model']:10s} {row['recipe']:24s} {row['target']:g} bit  mean gap {row['gap']:.4f}")
    trellis = [row for row in means if row["recipe"] == "trellis, 256 states"]
    publish(
        "trellis_moments",
        seed=SEED,
        claims={
            f"trellis, mean gap <= {limit} bit at {rate:g}": max(r["gap"] for r in trellis if r["target"] == rate)
            <= limit
            for rate, limit in TARGETS.items()
        }
        | {
            "rates within 0.005 bit": max(abs(row["rate"] - row["target"]) for row in rows) <= 0.005,
            "never below the bound": min(row["gap"] for row in rows) > 0,
        },
        means=means,
        rows=rows,
    )


def mean(rows: list[dict], model: str, recipe: str, rate: float) -> float:
    """Mean gap over the layers of a model."""
    chosen = [r["gap"] for r in rows if (r["model"], r["recipe"], r["target"]) == (model, recipe, rate)]
    return float(np.mean(chosen))


if __name__ == "__main__":
    main()
