"""Products of two quantized factors: every scheme beside its prediction and beside the bound Γ(R).

    python benchmarks/claims/products.py [--only searched]

Factors of N(0, 1) entries, n = 4096 coordinates that are summed over and 512 vectors on either side, quantized apart;
rates are bytes of files over entries. The gap is the rate less that at which Γ has the measured error. A prediction
comes from the error D of one entry alone: decoded vectors are scaled by Wiener's factor, after which errors that are
uncorrelated with the entries have D / (1 + D), and the product acts like ½ log2 of the inverse (theory 6.1). Scales are
those of the largest magnitude, for which D is known exactly, but for "least error": predicted from other Gaussian
vectors. With `--only` the rows of other schemes stay as they were published.
"""

import argparse
import functools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.special import ndtr

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import RESULTS, publish

import lattq as lq
from lattq import Scheme, bounds
from lattq.bounds import formats as number_formats
from lattq.bounds import product as product_bounds
from lattq.coding import FixedLength
from lattq.feedback import OpenLoop
from lattq.lattices import E8, NestedCode, VoronoiCode
from lattq.lattices.nested import NESTQUANT_SCALES
from lattq.quantizers import AbsMax, Format, Lattice, Nested, Trellis, Uniform
from lattq.transforms import Hadamard, then

SEED, SIZE, VECTORS = 5, 4096, 512
FLOATS = ("e2m1fn", "e2m3fn", "e3m2fn", "e4m3fn", "e5m2")
BLOCKS = ("mxfp4", "nvfp4", "nf4", "mxfp6-e2m3", "mxfp8-e4m3")
SMALL = 96  # vectors of the experiments with outliers
LEAST = "least error"

Case = tuple[str, Scheme, float, float]  # name, scheme, predicted rate and predicted gap


def uncorrelated(rate: float, distortion: float) -> float:
    """Gap of a product whose factors have errors of this mean square, uncorrelated with the entries."""
    return rate - 0.5 * math.log2((1 + distortion) / distortion)


def integers(largest: float) -> Iterator[Case]:
    """Largest magnitude of everything, which is one number and known, of each vector, or of groups of 128."""
    for levels in (8, 16, 23, 32, 64, 128, 256):
        bits = 8 * len(FixedLength(levels).encode(np.zeros((1, 2**20), dtype=np.int32))) / 2**20
        for name, group, size in (("scale per vector", None, SIZE), ("groups of 128", 128, 128)):
            scheme = Scheme(feedback=OpenLoop(), quantizer=AbsMax(levels, group))
            rate = bits + 16 / size
            yield f"INT, {name}", scheme, rate, uncorrelated(rate, bounds.absmax_distortion(levels, size))
        scheme = Scheme(feedback=OpenLoop(), quantizer=AbsMax(levels, None, shared=True))
        yield "INT, one scale", scheme, bits, uncorrelated(bits, (2 * largest / (levels - 1)) ** 2 / 12)


def formats() -> Iterator[Case]:
    """Floating point with a scale per vector, and block formats."""
    for name in FLOATS:
        block = bounds.BlockFormat(bounds.number_format(name), SIZE)
        scheme = Scheme(feedback=OpenLoop(), quantizer=Format(block.number, None))
        yield name.upper(), scheme, block.rate, uncorrelated(block.rate, bounds.block_distortion(block))
    for name in BLOCKS:
        block = bounds.BLOCK_FORMATS[name]
        predicted = uncorrelated(block.rate, bounds.block_distortion(block))
        yield name.upper(), lq.recipes.block_format(name, fit="range"), block.rate, predicted


def searched() -> Iterator[Case]:
    """Steps and scales of least squared error."""
    sample = np.random.default_rng(SEED + 3).standard_normal((128, SIZE))
    cases = [("INT, groups of 128", lq.recipes.rtn(levels)) for levels in (8, 16, 23, 32)]
    cases += [(name.upper(), lq.recipes.block_format(name)) for name in BLOCKS]
    for name, scheme in cases:
        found = lq.quantize(sample, np.eye(SIZE), scheme)
        yield f"{name}, {LEAST}", scheme, found.rate, gap_explained(found.rate, sample, found.dequantize(np.float64))


def gap_explained(rate: float, sample: np.ndarray, found: np.ndarray) -> float:
    """Gap of a product whose factors are correlated with what they decode to as these are."""
    explained = np.mean(sample * found) ** 2 / np.mean(found**2) / np.mean(sample**2)
    return rate - 0.5 * math.log2(1 / (1 - explained))


def dithered() -> Iterator[Case]:
    """A fixed step with subtractive dither, which the entropy coder does not see."""
    for step in (2.0, 1.0, 0.5, 0.183, 0.1, 0.05, 0.02):
        u = (np.arange(64) + 0.5) / 64 - 0.5
        edges = step * (np.arange(-math.ceil(9 / step) - 2, math.ceil(9 / step) + 3)[:, None] - 0.5 - u)
        shares = np.diff(ndtr(edges), axis=0).mean(axis=1)
        shares = shares[shares > 0]
        rate = -float(shares @ np.log2(shares))
        scheme = Scheme(feedback=OpenLoop(), quantizer=Uniform(step, dither=1))
        yield "dithered, entropy coded", scheme, rate, uncorrelated(rate, step**2 / 12)


def code_of(scheme: Scheme) -> NestedCode:
    """The nested code of a scheme."""
    assert isinstance(scheme.quantizer, Nested)
    return scheme.quantizer.code


def nested() -> Iterator[Case]:
    """NestQuant at several q, the published scales too; predicted from other Gaussian vectors."""
    sample = np.random.default_rng(SEED + 1).standard_normal((200_000, 8))
    for levels in (4, 6, 8, 10, 12, 14, 19, 32, 64, 128):
        scheme = lq.recipes.nestquant(levels, feedback=False)
        yield "NestQuant E8", scheme, *nested_prediction(code_of(scheme), sample)
    scheme = lq.recipes.nestquant(14, index="raw", feedback=False)
    rate, gap = nested_prediction(code_of(scheme), sample)
    coded = code_of(scheme).measure(sample)
    yield "NestQuant E8, raw index", scheme, rate + coded.rate - coded.coded_rate, gap + coded.rate - coded.coded_rate
    scheme = lq.recipes.nestquant(14, scales="weights", feedback=False)
    code = NestedCode(VoronoiCode(E8, 14), tuple(scale / 14 for scale in NESTQUANT_SCALES["weights"]))
    yield "NestQuant E8, published scales", scheme, *nested_prediction(code, sample)


def nested_prediction(code: NestedCode, sample: np.ndarray) -> tuple[float, float]:
    """Rate and gap with a coded index and 16 bits for each vector; coarse codes have errors that are correlated."""
    found, rate = code.decode(*code.encode(sample)), code.measure(sample).coded_rate + 16 / SIZE
    return rate, gap_explained(rate, sample, found)


def entropy_coded() -> Iterator[Case]:
    """Cubes, E8 and a trellis, shrunk as their rate asks for."""
    cells = {"Z, entropy coded": Uniform(), "E8, entropy coded": Lattice(E8), "trellis, 256 states": Trellis(256)}
    for name, cell in cells.items():
        limit = bounds.space_filling_gap(cell.second_moment)
        for rate in (1.0, 1.5, 2.0, 3.0, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0):
            gap = bounds.entropy_coded_scalar(rate).gap if name[0] == "Z" else limit
            step = math.sqrt(4.0 ** -(rate - gap) / cell.second_moment)
            recipe = functools.partial(lq.recipes.watersic, quantizer=cell, sweeps=0, mmse=1 / (1 - 4.0**-rate))
            yield name, recipe(step), rate, gap


def measured(case: Case, a: np.ndarray, b: np.ndarray) -> dict:
    """One scheme on both factors."""
    name, scheme, rate, gap = case
    found = lq.matmul.approximate(a, b, scheme)
    row = {"scheme": name, "rate": (found.rate_a + found.rate_b) / 2, "error": found.error(a, b)}
    row |= {"gap": found.gap(a, b), "predicted_rate": rate, "predicted_gap": gap}
    print({key: value if isinstance(value, str) else round(value, 4) for key, value in row.items()}, flush=True)
    return row


def sketched(a: np.ndarray, b: np.ndarray) -> list[dict]:
    """The trellis on a fraction of the coordinates, at the rate where its own curve touches the line from (0, 1)."""
    step = math.sqrt(4.0**-0.9 / Trellis(256).second_moment)
    recipe = functools.partial(lq.recipes.watersic, quantizer=Trellis(256), mmse=1 / (1 - 4.0**-0.95))
    rows = []
    for keep in (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0):
        found = lq.matmul.approximate(a, b, recipe(step), keep=keep)
        rate, error = (found.rate_a + found.rate_b) / 2, found.error(a, b)
        rows.append({"keep": keep, "rate": rate, "error": error, "over_gamma": error / bounds.product_distortion(rate)})
        print(rows[-1], flush=True)
    return rows


def outliers(*, only: bool = False) -> list[dict]:
    """Heavy tails, and one coordinate a hundred times as large, as they are and rotated, beside Gaussian factors.

    One randomized Hadamard transform makes a single large entry ±c everywhere, which is not Gaussian; a second one is.
    """
    rng = np.random.default_rng(SEED + 2)
    gaussian = rng.standard_normal((2, SIZE, SMALL))
    heavy = rng.standard_t(3, (2, SIZE, SMALL))
    loud = rng.standard_normal((2, SIZE, SMALL))
    loud[0, 7] *= 100
    rows = []
    for name, quantizer in (
        ("INT4, scale per vector", AbsMax(16, None)),
        ("INT4, groups of 128", AbsMax(16, 128)),
        (f"INT4, groups of 128, {LEAST}", AbsMax(16, 128, fit="error")),
        ("E2M1", Format(number_formats.E2M1FN, None)),
        ("MXFP4", Format.named("mxfp4")),
        (f"MXFP4, {LEAST}", Format.named("mxfp4", fit="error")),
        ("NF4", Format.named("nf4")),
        (f"NF4, {LEAST}", Format.named("nf4", fit="error")),
        ("NestQuant E8", lq.recipes.nestquant(feedback=False).quantizer),
    ):
        if only and LEAST not in name:
            continue
        block = 8 if name.startswith("Nest") else 1
        plain = Scheme(feedback=OpenLoop(block), quantizer=quantizer)
        once, twice = Hadamard(SEED), then(Hadamard(SEED), Hadamard(SEED + 1))
        row: dict = {"scheme": name}
        for source, (a, b) in (("gaussian", gaussian), ("heavy tails", heavy), ("one channel x 100", loud)):
            row[source] = lq.matmul.approximate(a, b, plain).gap(a, b)
            for times, transform in (("rotated", once), ("rotated twice", twice)):
                scheme = Scheme(transform=transform, feedback=OpenLoop(block), quantizer=quantizer)
                row[f"{source}, {times}"] = lq.matmul.approximate(a, b, scheme).gap(a, b)
        print({key: value if isinstance(value, str) else round(value, 3) for key, value in row.items()}, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, judge, draw, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("searched",))
    only = parser.parse_args().only
    a, b = np.random.default_rng(SEED).standard_normal((2, SIZE, VECTORS))
    largest = math.sqrt(np.abs(a).max() * np.abs(b).max())
    found = [measured(case, a, b) for case in searched()]
    if only:
        before = json.loads((RESULTS / "products.json").read_text())
        rows = in_order([row for row in before["rows"] if LEAST not in row["scheme"]], found)
        sketches = before["sketches"]
        loud = in_order([row for row in before["outliers"] if LEAST not in row["scheme"]], outliers(only=True))
    else:
        cases = [*integers(largest), *formats(), *dithered(), *nested(), *entropy_coded()]
        rows, sketches, loud = in_order([measured(case, a, b) for case in cases], found), sketched(a, b), outliers()
    draw(rows, sketches)
    off = max(rows, key=lambda row: abs(row["gap"] - row["predicted_gap"]))
    print("farthest from its prediction:", off)
    fourteen = min((row for row in rows if row["scheme"] == "NestQuant E8"), key=lambda row: abs(row["rate"] - 4.02))
    (raw,) = (row for row in rows if row["scheme"] == "NestQuant E8, raw index")
    publish(
        "products",
        seed=SEED,
        claims={
            "every scheme within 0.03 bit of its prediction": abs(off["gap"] - off["predicted_gap"]) <= 0.03,
            "no error below Γ": min(row["gap"] for row in rows) > 0 and min(r["over_gamma"] for r in sketches) > 1,
            "sketched trellis within 4 % of Γ below R*": all(
                row["over_gamma"] <= 1.04 for row in sketches if row["rate"] < product_bounds.PRODUCT_CRITICAL_RATE
            ),
            "NestQuant, q = 14, four scales, coded index: gap <= 0.32 bit": fourteen["gap"] <= 0.32,
            "NestQuant, raw index: gap <= 0.36 bit": raw["gap"] <= 0.36,
            "rotations bring outliers within 0.05 bit of Gaussian factors": all(
                abs(row[f"{source}, rotated twice"] - row["gaussian, rotated twice"]) <= 0.05
                for row in loud
                for source in ("heavy tails", "one channel x 100")
            ),
        },
        rows=rows,
        sketches=sketches,
        outliers=loud,
    )


def in_order(plain: list[dict], least: list[dict]) -> list[dict]:
    """Rows of least error after those of the same scheme with the plain rule."""
    rows = []
    for name in dict.fromkeys(row["scheme"] for row in plain):
        rows += [row for row in plain if row["scheme"] == name]
        rows += [row for row in least if row["scheme"] == f"{name}, {LEAST}"]
    return rows


def draw(rows: list[dict], sketches: list[dict]) -> None:
    """Error against the rate beside Γ, and gaps beside predictions."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    grid = np.linspace(0.02, 8.3, 400)
    left.semilogy(grid, bounds.product_distortion(grid), "k-", label="Γ(R)")
    left.semilogy([r["rate"] for r in sketches], [r["error"] for r in sketches], "k.", label="trellis, sketched")
    for place, name in enumerate(dict.fromkeys(row["scheme"] for row in rows)):
        chosen = [row for row in rows if row["scheme"] == name]
        marker = "o" if len(chosen) > 1 else "^"
        x, gaps = [row["rate"] for row in chosen], [row["gap"] for row in chosen]
        left.plot(x, [row["error"] for row in chosen], marker, color=f"C{place % 10}", markersize=3, label=name)
        right.plot(x, gaps, marker, color=f"C{place % 10}", markersize=4)
        right.plot(x, [row["predicted_gap"] for row in chosen], "-", color=f"C{place % 10}", linewidth=0.8)
    left.set(xlabel="bits per entry of both factors", ylabel="error over ‖A‖² ‖B‖² / n", ylim=(1e-5, 1.5))
    right.set(xlabel="bits per entry of both factors", ylabel="bits above Γ (lines: predicted)", ylim=(0, 2.2))
    left.legend(fontsize="x-small", ncols=2)
    figure.savefig(RESULTS / "products.png", dpi=110)


if __name__ == "__main__":
    main()
