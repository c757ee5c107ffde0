"""Bits a weight of two builds at equal distortion, on the layers of two real models.

    python benchmarks/claims/equal_distortion.py OTHER

OTHER is a checkout of the build to compare with. Both builds quantize all linear layers of the embedded language model
and of all-MiniLM-L6-v2, in float64, with the same second moments of their inputs and the same parts, spelled out:
one-sided metric, plain scales, no defaults. Steps are for about three and two bits, levels for three. Bits are those of
whole files. Where distortions differ, half the logarithm of their ratio counts as bits. Where codes differ, the
difference of a layer scatters by about √(1 / weights) bits, and by more where noise fed back is common to many columns,
as without MMSE feedback.
"""

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from harness import builds_in_turns, layers_of, models, publish

SEED, WINDOWS, RATES, LARGE = 0, 32, (3, 2), 512 * 512
SIZES = {"from 512 × 512 on": 1e-3, "below": 3e-3}


def with_step(step: float, plain: float) -> dict[str, Any]:
    """Schemes with a step, where pivots are equal and where they are not, with the same parts in every build."""
    import lattq as lq
    from lattq.feedback import Cholesky
    from lattq.lattices import E8, Leech24
    from lattq.quantizers import Lattice, Trellis, Uniform

    same = {"order": "pivoted", "shrink": False}
    published = lq.Scheme(
        feedback=Cholesky("natural", damping=1e-4),
        quantizer=Uniform(step, shrink=True),
        coder=lq.coding.Pooled(),
        equalize=lq.transforms.Equalize(exact=True),
        refit=("columns", "rows"),
    )
    return {
        "watersic": lq.recipes.watersic(step, mmse=1.0, sweeps=2, **same),
        "watersic, no sweeps": lq.recipes.watersic(step, mmse=1.0, sweeps=0, **same),
        "trellis-256": lq.recipes.watersic(step, mmse=1.0, sweeps=0, quantizer=Trellis(256), **same),
        "unbiased, trellis-256": lq.recipes.UNBIASED(step, sweeps=0, quantizer=Trellis(256), **same),
        "E8": lq.recipes.watersic(step, mmse=1.0, sweeps=0, quantizer=Lattice(E8), **same),
        "Leech": lq.recipes.watersic(step, mmse=1.0, sweeps=0, quantizer=Lattice(Leech24), **same),
        "watersic as published": published,
        "huffman_gptq": lq.recipes.huffman_gptq(plain, order="reversed", damping=0.0, shrink=False),
    }


def with_levels() -> dict[str, Any]:
    """Schemes of a fixed rate, as `with_step`."""
    import lattq as lq
    from lattq.feedback import Cholesky, OpenLoop
    from lattq.quantizers import AbsMax, Format, MinMax

    return {
        "rtn": lq.Scheme(feedback=OpenLoop(), quantizer=AbsMax(8, 128)),
        "gptq": lq.Scheme(feedback=Cholesky("reversed", 0.01), quantizer=AbsMax(8, 128)),
        "gptq, min-max": lq.Scheme(feedback=Cholesky("reversed", 0.01), quantizer=MinMax(8, 128)),
        "nf4": lq.Scheme(feedback=OpenLoop(), quantizer=Format.named("nf4")),
        "nestquant": lq.recipes.nestquant(7, scales=4, damping=0.01, index="coded"),
    }


def steps(weight: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Steps of cells of cubes for about each rate, where pivots are equal and where they are not: (rates, 2)."""
    from lattq.bounds import CUBIC_GAP, layer_distortion, two_way_variances

    moments = sigma, np.eye(len(sigma))
    variances = two_way_variances(weight)
    wanted = [[layer_distortion(one, rate - CUBIC_GAP, *variances) for one in moments] for rate in RATES]
    return np.sqrt(12 * np.array(wanted))


def measure(folder: Path) -> dict[str, list[int]]:
    """Write weights, second moments and steps of every layer, for both builds, and return the shapes."""
    shapes = {}
    for model, path in models().items():
        for name, weight, sigma in layers_of(path, WINDOWS):
            label, wide = f"{model} {name}", weight.astype(np.float64)
            np.savez(folder / f"{len(shapes):03}", label=label, weight=wide, sigma=sigma, steps=steps(wide, sigma))
            shapes[label] = list(weight.shape)
    return shapes


def schemes(steps: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Names and schemes for a layer."""
    for rate, (step, plain) in zip(RATES, steps.tolist(), strict=True):
        yield from ((f"{name}, {rate} bits", scheme) for name, scheme in with_step(step, plain).items())
    yield from with_levels().items()


def measured(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Bits a weight and distortion in one build, by layer and scheme."""
    import lattq as lq

    figures = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as held:
            label, weight, sigma, cells = str(held["label"]), held["weight"], held["sigma"], held["steps"]
        figures[label] = {}
        for name, scheme in schemes(cells):
            found = lq.quantize(weight, sigma, scheme)
            figures[label][name] = [found.rate, found.distortion(weight, sigma)]
        print(label, lq.__file__, file=sys.stderr, flush=True)
    return figures


def compared(here: list[float], before: list[float]) -> dict[str, float]:
    """What both builds take, and bits more of this one at equal distortion."""
    longer, error = here[0] - before[0], math.log2(here[1] / before[1]) / 2
    return {"bits": here[0], "bits before": before[0], "error": error, "more": longer + error}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, most and least of the differences by scheme and size of layers."""
    found = []
    for scheme in dict.fromkeys(row["scheme"] for row in rows):
        for size in SIZES:
            chosen = [row for row in rows if (row["scheme"], row["size"]) == (scheme, size)]
            more, bits = ([row[key] for row in chosen] for key in ("more", "bits"))
            worst = max(chosen, key=lambda row: row["more"])["layer"]
            found.append({
                "scheme": scheme, "size": size, "layers": len(chosen), "bits": float(np.mean(bits)),
                "mean": float(np.mean(more)), "most": max(more), "least": min(more), "worst": worst,
            })  # fmt: skip
    return found


def report(shapes: dict[str, list[int]], here: dict[str, dict], before: dict[str, dict]) -> None:
    """Publish the figures of both builds."""
    sizes = {name: list(SIZES)[math.prod(shape) < LARGE] for name, shape in shapes.items()}
    rows = [
        {"layer": name, "size": sizes[name], "scheme": scheme, **compared(one, before[name][scheme])}
        for name, of_layer in here.items()
        for scheme, one in of_layer.items()
    ]
    table = summary(rows)
    large, claims = next(iter(SIZES)), {}
    for key, said in {"most": "each layer", "mean": "mean of layers"}.items():
        for size, limit in SIZES.items():
            most = max(row[key] for row in table if row["size"] == size)
            claims[f"{said} {size}: at most {limit} bit more, every scheme"] = most <= limit
        trellises = [row[key] for row in table if "trellis" in row["scheme"] and row["size"] == large]
        claims[f"{said} {large}: trellises of 256 states take 0.0015 bit less"] = max(trellises) <= -1.5e-3
    publish("equal_distortion", seed=SEED, claims=claims, shapes=shapes, table=table, rows=rows)


def main(other: Path) -> None:
    """Measure both builds, and publish."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = measure(Path(folder))
        here, before = (rounds[0] for rounds in builds_in_turns(__file__, other, 1, folder).values())
    report(shapes, here, before)


if __name__ == "__main__":
    if sys.argv[1] == "figures":
        print(json.dumps(measured(Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
