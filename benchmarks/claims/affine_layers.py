"""What changes of coordinates bring to integers of three bits, layer by layer: published maps and closed forms.

    python benchmarks/claims/affine_layers.py [--jobs 2] [--all]

Linear layers of the embedded language model and of all-MiniLM-L6-v2, eight levels in groups of 128, round-to-nearest
and GPTQ, both with steps of least error. A gain is the error of the output without a map over that with one, in dB,
beside the one predicted before any rounding: from powers, and from the largest magnitudes of groups. "Bits" is what the
stored map takes for each weight of its own layer, "net" the gain less 6.02 dB for each of these bits. Maps that layers
share, as q, k and v do, or that are folded into the layer before, take less or nothing. Without `--all`, every fifth
layer of MiniLM stands for all.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import each, layers_of, models, publish

import lattq as lq
from lattq.affine import balanced, gain, wush
from lattq.affine.scales import awq_scales, smoothquant_scales
from lattq.linalg.hadamard import randomized_hadamard
from lattq.transforms import Diagonal, Fixed, Hadamard, then
from lattq.transforms.affine import Affine
from lattq.transforms.maps import Identity

SEED, LEVELS, GROUP, DECIBELS_OF_A_BIT = 0, 8, 128, 20 * np.log10(2)
RECIPES = {"rtn": lq.recipes.rtn(LEVELS, group=GROUP), "gptq": lq.recipes.gptq(LEVELS, group=GROUP)}


def ranges_of(folder: Path, samples: int = 256) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Largest and mean magnitude of the inputs of every layer, on the text of `layers_of`."""
    import torch

    from lattq.llm import embedded_text
    from lattq.llm.source import batches_of, choose_modules, load_model, load_tokenizer, token_windows
    from lattq.llm.source.matrices import watching
    from lattq.llm.source.windows import run

    model, found = load_model(folder, "float32"), {}
    windows = token_windows(load_tokenizer(folder), embedded_text("calibration"), 256, samples)

    def act(name: str, x: Any, y: Any) -> None:
        sizes = x.detach().abs().reshape(-1, x.shape[-1]).double()
        peak, total, count = found.get(name, (0.0, 0.0, 0))
        found[name] = (np.maximum(peak, sizes.amax(0).numpy()), total + sizes.sum(0).numpy(), count + len(sizes))

    with torch.no_grad(), watching(choose_modules(model), act):
        for batch in batches_of(windows):
            run(model, batch)
    return {name: (peak, total / count) for name, (peak, total, count) in found.items()}


def rotated(matrix: np.ndarray) -> np.ndarray:
    """A map, then the Hadamard matrix."""
    return randomized_hadamard(matrix.T.copy(), SEED).T


def maps(weight: np.ndarray, sigma: np.ndarray, peaks: np.ndarray, sizes: np.ndarray) -> dict[str, tuple]:
    """Design of each transform, and the map that it is."""
    n = len(sigma)

    def rounding(scaled: np.ndarray) -> np.ndarray:
        return lq.quantize(scaled, np.eye(n), RECIPES["rtn"]).dequantize(np.float64)

    smooth = smoothquant_scales(peaks, weight)
    searched = awq_scales(weight, sigma, rounding, sizes=sizes)
    even, three_quarters = balanced(weight, sigma), balanced(weight, sigma, share=0.75)
    blocks, turn = wush(weight, sigma, block=32), Hadamard(SEED)
    return {
        "identity": (Identity(), np.eye(n)),
        "SmoothQuant": (Fixed(Diagonal(smooth)), np.diag(smooth)),
        "AWQ": (Fixed(Diagonal(searched)), np.diag(searched)),
        "Hadamard": (turn, rotated(np.eye(n))),
        "WUSH, blocks of 32": (Fixed(Affine.of(blocks, 32)), blocks),
        "balanced, then Hadamard": (then(Fixed(Affine.of(even)), turn), rotated(even)),
        "share 3/4, then Hadamard": (then(Fixed(Affine.of(three_quarters)), turn), rotated(three_quarters)),
    }


def layer_rows(model: str, name: str, weight: np.ndarray, sigma: np.ndarray, *ranges: np.ndarray) -> list[dict]:
    """Every map with every recipe."""
    rows, plain = [], {}
    sizes = {"largest": None, "largest_of_blocks": 32, "largest_of_scales": 1}
    largest = {name: gain(weight, sigma, block=block) for name, block in sizes.items()}
    for label, (design, matrix) in maps(weight.astype(np.float64), sigma, *ranges).items():
        predicted = {
            "predicted": gain(weight, sigma, matrix),
            "predicted_from_groups": gain(weight, sigma, matrix, group=GROUP),
        }
        for recipe, scheme in RECIPES.items():
            found = lq.quantize(weight, sigma, dataclasses.replace(scheme, transform=design))
            error, bits = found.distortion(weight, sigma), 8 * found.sizes()["transform"] / weight.size
            plain.setdefault(recipe, error)
            gained = 10 * np.log10(plain[recipe] / error)
            rows.append(
                {
                    **{"model": model, "layer": name, "shape": list(weight.shape), "map": label, "recipe": recipe},
                    **{"rate": found.rate - bits, "bits": bits, "distortion": error, "gain": gained},
                    "net": gained - DECIBELS_OF_A_BIT * bits,
                    **predicted,
                    **largest,
                }
            )
    print(model, name, flush=True)
    return rows


def mean_of(rows: list[dict], key: str, **only: str) -> float:
    """Mean over the layers."""
    return float(np.mean([row[key] for row in rows if only.items() <= row.items()]))


def main() -> None:
    """Measure, compare with what was predicted, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="all layers of MiniLM")
    jobs, whole = (given := parser.parse_args()).jobs, given.all
    layers = []
    for model, folder in models().items():
        ranges = ranges_of(folder)
        chosen = layers_of(folder)[:: 1 if whole or model == "embedded" else 5]
        layers += [(model, *layer, *ranges[layer[0]]) for layer in chosen]
    rows = [row for found in each(jobs, layer_rows, layers) for row in found]
    labels = list(dict.fromkeys(row["map"] for row in rows))
    keys = ("gain", "bits", "net", "predicted", "predicted_from_groups")
    means = [
        {"model": model, "map": label, "recipe": recipe}
        | {key: mean_of(rows, key, model=model, map=label, recipe=recipe) for key in keys}
        for model in models()
        for recipe in RECIPES
        for label in labels
    ]
    for row in means:
        print(f"{row['model']:9s} {row['recipe']:5s} {row['map']:25s}", *(f"{row[key]:7.2f}" for key in keys))
    gained = functools.partial(mean_of, rows, "gain")
    nearest = [row for row in rows if row["recipe"] == "rtn" and row["map"] != "identity"]
    off = np.array([row["predicted_from_groups"] - row["gain"] for row in nearest])
    publish(
        "affine_layers",
        seed=SEED,
        claims={
            "round-to-nearest: balanced, then Hadamard, gains most of all maps, on both models": all(
                gained(model=model, recipe="rtn", map="balanced, then Hadamard")
                == max(gained(model=model, recipe="rtn", map=label) for label in labels)
                for model in models()
            ),
            "round-to-nearest: WUSH gains more than Hadamard, AWQ and SmoothQuant, on both models": all(
                gained(model=model, recipe="rtn", map="WUSH, blocks of 32")
                > gained(model=model, recipe="rtn", map=label)
                for model in models()
                for label in ("Hadamard", "AWQ", "SmoothQuant")
            ),
            "round-to-nearest: the gain predicted from largest magnitudes is off by less than 1 dB on average": (
                np.abs(off).mean() < 1.0
            ),
            "GPTQ: three quarters of the spread on the weights gain more than one half, on both models": all(
                gained(model=model, recipe="gptq", map="share 3/4, then Hadamard")
                > gained(model=model, recipe="gptq", map="balanced, then Hadamard")
                for model in models()
            ),
            "stored for one layer alone, no matrix is worth its bits on these layers": all(
                mean_of(rows, "net", model=model, recipe=recipe, map=label) < 0.0
                for model in models()
                for recipe in RECIPES
                for label in labels[4:]
            ),
            "no powers gain more than the nuclear norm allows": all(
                row["predicted"] <= row["largest"] + 1e-6 for row in rows
            ),
        },
        prediction_error={"mean": float(off.mean()), "mean_absolute": float(np.abs(off).mean())},
        means=means,
        rows=rows,
    )


if __name__ == "__main__":
    main()
