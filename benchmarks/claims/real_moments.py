"""Gaps of the recipes on the weights and second moments of two real models, layer by layer.

    python benchmarks/claims/real_moments.py [--jobs 2] [--only RECIPE ...]

All linear layers of the embedded language model and of all-MiniLM-L6-v2, at 2, 3 and 4 bits. The reference is the
Gaussian one with the two-way variances of the weights. Integer recipes run at 4, 8 and 16 levels with groups of 128,
their steps of least error unless they are "as published", and are reported at the rate they really have. A second table
replaces the weights by Gaussian ones and compares watersic with one-step successive cancellation (huffman_gptq), as
they are and after a random Hadamard rotation.
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import RESULTS, each, layers_of, models, publish

import lattq as lq

SEED, SURROGATE_ROWS = 0, 1024
INTEGERS = {2.0: 4, 3.0: 8, 4.0: 16}
FIXED = {"rtn": lq.recipes.rtn, "gptq": lq.recipes.gptq, "gptq as published": lq.recipes.gptq_published}
STEPS = {
    "huffman_gptq": lq.recipes.huffman_gptq,
    "watersic as published": lq.recipes.watersic_published,
    "watersic, no sweeps": functools.partial(lq.recipes.watersic, sweeps=0),
    "watersic": lq.recipes.watersic,
}


def layer_rows(wanted: list[str], model: str, name: str, weight: np.ndarray, sigma: np.ndarray) -> list[dict]:
    """Gap of the wanted recipes at every rate on one layer."""
    rows = []
    for rate, levels in INTEGERS.items():
        for label in wanted:
            fixed = label in FIXED
            found = lq.quantize(weight, sigma, FIXED[label](levels)) if fixed else None
            found = found or lq.at_rate(rate, STEPS[label], weight, sigma)
            rows.append({"recipe": label, "target": rate, "found": found})
    print(f"{model} {name}", flush=True)
    for row in rows:
        found = row.pop("found")
        row |= {"rate": found.rate, "gap": found.gap(weight, sigma)}
    return [{"model": model, "layer": name, "shape": list(weight.shape), **row} for row in rows]


def surrogate_row(model: str, name: str, sigma: np.ndarray) -> dict:
    """Advantage of watersic over successive cancellation with one step, Gaussian weights, 4 bits."""
    weight = np.random.default_rng(SEED).normal(size=(SURROGATE_ROWS, len(sigma)))
    row: dict = {"model": model, "layer": name}
    rotation = lq.transforms.Hadamard(SEED)
    for label, second in (("natural", sigma), ("rotated", rotation.congruence(sigma))):
        found = {
            recipe: lq.at_rate(4.0, STEPS[recipe], weight, second).gap(
                weight, second, row_variance=1.0, column_variance=1.0
            )
            for recipe in ("huffman_gptq", "watersic, no sweeps", "watersic")
        }
        row[label] = {**found, "advantage": found["huffman_gptq"] - found["watersic"]}
    print(f"{model} {name} {row}", flush=True)
    return row


def main() -> None:
    """Collect the second moments, run all layers, publish means and tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=[*FIXED, *STEPS], help="the other rows stay as published")
    jobs, only = (given := parser.parse_args()).jobs, given.only
    layers = [(model, *layer) for model, folder in models().items() for layer in layers_of(folder)]
    function = functools.partial(layer_rows, only or [*FIXED, *STEPS])
    rows = [row for found in each(jobs, function, layers) for row in found]
    if only:
        before = json.loads((RESULTS / "real_moments.json").read_text())
        rows, surrogates = rows + [row for row in before["rows"] if row["recipe"] not in only], before["surrogates"]
    else:
        shared = {sigma.tobytes(): (model, name, sigma) for model, name, _, sigma in layers}  # q, k and v share one
        surrogates = each(jobs, surrogate_row, list(shared.values()))
    means = [
        {"model": model, "target": rate, "recipe": recipe, **mean_of(rows, model, rate, recipe)}
        for model in models()
        for rate in INTEGERS
        for recipe in (*FIXED, *STEPS)
    ]
    for row in means:
        print(f"{row['model']:10s} {row['recipe']:24s} {row['rate']:.3f} bit  gap {row['gap']:.3f}")
    publish(
        "real_moments",
        seed=SEED,
        claims={
            "watersic has the smallest mean gap at every rate on both models": all(
                best_recipe(means, model, rate) == "watersic" for model in models() for rate in INTEGERS
            ),
            "never below the bound with Gaussian weights": all(
                row[label]["watersic"] > 0 for row in surrogates for label in ("natural", "rotated")
            ),
        },
        means=means,
        rows=rows,
        surrogates=surrogates,
    )


def mean_of(rows: list[dict], model: str, target: float, recipe: str) -> dict[str, float]:
    """Mean rate and gap over the layers of a model."""
    chosen = [row for row in rows if (row["model"], row["target"], row["recipe"]) == (model, target, recipe)]
    return {key: float(np.mean([row[key] for row in chosen])) for key in ("rate", "gap")}


def best_recipe(means: list[dict], model: str, target: float) -> str:
    """Recipe with the smallest mean gap."""
    rows = [row for row in means if (row["model"], row["target"]) == (model, target)]
    return min(rows, key=lambda row: row["gap"])["recipe"]


if __name__ == "__main__":
    main()
