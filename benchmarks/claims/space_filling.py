"""How far each cell stays from the limit on white Gaussian weights, with rates from real bytes.

    python benchmarks/claims/space_filling.py

N(0, 1) weights, 4096 rows and 1024 columns, sigma = I: then successive cancellation has nothing to feed back, and the
gap is that of the quantizer and its coder, side information and headers included. MMSE feedback has the ratio 1 / tau,
where tau = 1 - 4^-R is the power of the reconstruction (theory 2.7); from two bits on it might as well be 1. The
reference is the rate-distortion function of unit variance, a bound. Segments of a trellis have 512 rows unless the
name says otherwise.
"""

import functools
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import RESULTS, publish

import lattq as lq
from lattq.lattices import BW16, E8, Leech24
from lattq.quantizers import Lattice, Trellis, Uniform

SEED, ROWS, COLUMNS = 3, 4096, 1024
RATES = (1.0, 2.0, 3.0, 4.0)
CELLS = {
    "trellis, 4096 states, segments of 4096": (Trellis(4096, segment=4096), 0.032),
    "trellis, 256 states": (Trellis(256), 0.045),
    "trellis, 8 states": (Trellis(8), 0.085),
    "Leech": (Lattice(Leech24), 0.095),
    "BW16": (Lattice(BW16), 0.12),
    "E8": (Lattice(E8), 0.155),
    "Z": (Uniform(), 0.262),
}


def measure(name: str, rate: float, weight: np.ndarray) -> dict:
    """Gap of one cell at one rate."""
    recipe = functools.partial(lq.recipes.watersic, quantizer=CELLS[name][0], mmse=1 / (1 - 4**-rate))
    start = time.perf_counter()
    layer = lq.at_rate(rate, recipe, weight, np.eye(COLUMNS))
    seconds = time.perf_counter() - start
    gap = layer.gap(weight, np.eye(COLUMNS), row_variance=1.0, column_variance=1.0)
    row = {"cell": name, "target": rate, "rate": layer.rate, "bytes": layer.nbytes, "gap": gap, "seconds": seconds}
    same = lq.Quantized.from_bytes(layer.to_bytes())
    row["restored"] = bool((same.codes == layer.codes).all())
    print(f"{name:40s} {layer.rate:.4f} bit  gap {gap:.4f}  {seconds:.0f} s", flush=True)
    return row


def main() -> None:
    """Measure, judge, draw, publish."""
    weight = np.random.default_rng(SEED).standard_normal((ROWS, COLUMNS))
    rows = [measure(name, rate, weight) for name in CELLS for rate in RATES]
    draw(rows)

    def worst(name: str) -> float:
        low = 2.0 if name == "Z" else 1.0  # the cube's price of low rates is another claim
        return max(row["gap"] for row in rows if row["cell"] == name and row["target"] >= low)

    publish(
        "space_filling",
        seed=SEED,
        claims={
            f"{name}: gap <= {limit} bit at {'2, 3' if name == 'Z' else '1, 2, 3'}, 4 bits": worst(name) <= limit
            for name, (_, limit) in CELLS.items()
        }
        | {
            "never below the bound": min(row["gap"] for row in rows) > 0,
            "all bytes restore the codes": all(row["restored"] for row in rows),
        },
        rows=rows,
    )


def draw(rows: list[dict]) -> None:
    """Gap against the rate."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for name in CELLS:
        points = [(row["rate"], row["gap"]) for row in rows if row["cell"] == name]
        axis.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
    axis.set(xlabel="bits per weight (bytes)", ylabel="gap to the bound, bits per weight", ylim=(0, None))
    axis.legend(fontsize=7)
    figure.savefig(RESULTS / "space_filling.png", dpi=110)


if __name__ == "__main__":
    main()
