"""Textbook GPTQ is the loop on reversed columns; WaterSIC's steps c / l_ii are equalization and one step.

    python benchmarks/claims/identities.py

Both oracles are written from the papers, in float64, without lattq. Codes are compared bit for bit.
"""

import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from harness import publish, random_moment  # noqa: E402

import lattq as lq  # noqa: E402
from tests.oracles.textbook_gptq import Rounding, textbook_gptq  # noqa: E402

SEED, ROWS, COLUMNS, GROUP, STEP = 0, 256, 128, 32, 0.2


def absmax(targets: np.ndarray) -> Rounding:
    """Symmetric 4-bit rounding with one float16 step per row, as GPTQ does it."""
    step = (2 * np.abs(targets).max(axis=1) / 15).astype(np.float16).astype(np.float64)
    return lambda column: step * np.clip(np.round(column / step), -8, 7)


def zsic(weight: np.ndarray, sigma: np.ndarray, c: float) -> np.ndarray:
    """Successive cancellation of WaterSIC, algorithm 1 with spacing c / l_ii (Lifar et al. 2026), codes only."""
    lower = np.linalg.cholesky(sigma)
    spacing = c / np.diag(lower)
    rest, codes = weight @ lower, np.zeros(weight.shape, dtype=int)
    for i in range(weight.shape[1] - 1, -1, -1):
        codes[:, i] = np.round(rest[:, i] / (spacing[i] * lower[i, i]))
        rest -= np.outer(spacing[i] * codes[:, i], lower[i])
    return codes


def main() -> None:
    """Draw layers, run both sides, count differences."""
    rng = np.random.default_rng(SEED)
    rows = []
    for spread in (0.3, 1.0, 2.0):
        weight, sigma = rng.normal(size=(ROWS, COLUMNS)), random_moment(spread, COLUMNS, rng)
        textbook = textbook_gptq(weight, sigma, absmax, GROUP)
        loop = lq.quantize(weight, sigma, lq.recipes.gptq(16, group=GROUP, damping=0.0, fit="range"))
        scheme = lq.Scheme(quantizer=lq.quantizers.Uniform(STEP), equalize=lq.transforms.Equalize(exact=True))
        watersic = lq.quantize(weight, sigma, scheme)
        rows.append(
            {
                "spread": spread,
                "gptq_entries_that_differ": int(np.sum(textbook != loop.dequantize(np.float64))),
                "watersic_codes_that_differ": int(np.sum(zsic(weight, sigma, STEP) != watersic.codes)),
                "entries": weight.size,
            }
        )
    publish(
        "identities",
        seed=SEED,
        claims={
            "textbook GPTQ equals the loop on reversed columns, bit for bit": all(
                row["gptq_entries_that_differ"] == 0 for row in rows
            ),
            "WaterSIC with steps c / l_ii equals equalization and one step": all(
                row["watersic_codes_that_differ"] == 0 for row in rows
            ),
        },
        rows=rows,
    )


if __name__ == "__main__":
    main()
