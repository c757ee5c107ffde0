"""Bounds and projections of dominant matrices, inverses, and the outlier that only a reference removes.

    python benchmarks/claims/dominance.py [n]

n is the size of the inverses, 4096 by default. Times are processor time on one thread, the lesser of two runs.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from harness import publish  # noqa: E402

from lattq.affine import project  # noqa: E402
from lattq.affine.dominance import certify  # noqa: E402
from lattq.affine.gaps import gaps, inverse_bounds  # noqa: E402
from lattq.affine.inverses import factor, inverse, newton_schulz, newton_schulz_steps, solve_error  # noqa: E402
from lattq.affine.maps import AffineMap  # noqa: E402
from lattq.linalg.hadamard import hadamard_matrix  # noqa: E402
from tests.affine.strategies import mixing  # noqa: E402
from tests.oracles.least_distance import nearest_dominant  # noqa: E402

SEED, MATRICES, CHUNK, LARGEST = 0, 10_000, 1000, 24
EPS = float(np.finfo(np.float64).eps)
RATIOS = (1e-3, 0.1, 0.5, 0.9, 0.99, 1 - 1e-6)
TORCH, SOLVES = "torch.linalg.inv, float64", "factors and 128 solves"


def bounds(chunk: int = 0) -> dict[str, Any]:
    """Violations of every bound; condition numbers to 10²⁰ by row scales over 16 decades and ratios near 1."""
    rng = np.random.default_rng((SEED, chunk))
    broken: dict[str, Any] = dict.fromkeys(("inf", "one", "two", "condition", "determinant", "left out"), 0)
    largest = condition = 0.0
    for k in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        n, ratio = int(rng.integers(2, LARGEST + 1)), float(rng.choice(RATIOS))
        both, kind = bool(k % 2), ("dense", "sparse", "signed")[k % 3]
        core = mixing(n, ratio, k, both=both, kind=kind)
        scale = np.ones(n) if both else 10.0 ** rng.uniform(-8, 8, n) * rng.choice([-1.0, 1.0], n)
        found = certify(scale[:, None] * core)
        exact = np.linalg.inv(core) / scale  # the columns of the inverse; D divides without error to speak of
        room = 1 + 8 * n * EPS * (1 + ratio) / (1 - ratio)
        row, column = np.abs(exact).sum(axis=1).max(), np.abs(exact).sum(axis=0).max()
        broken["inf"] += row > found.inverse_inf * room
        broken["one"] += column > found.inverse_one * room
        broken["two"] += np.linalg.norm(exact, 2) > found.inverse_two * room
        broken["condition"] += np.linalg.cond(core, np.inf) > found.scaled_condition * room
        low, high = found.log_determinant
        logarithm = np.linalg.slogdet(core)[1] + np.log(np.abs(scale)).sum()
        slack = n * (room - 1) * (1 + np.abs(np.log(np.abs(scale))).max())
        broken["determinant"] += not low - slack <= logarithm <= high + slack
        largest = max(largest, found.condition_inf)
        condition = max(condition, row * float(np.abs(scale[:, None] * core).sum(axis=1).max()))
        # the negative control: the largest off-diagonal of each row left out
        sums = gaps(scale[:, None] * core)
        less = sums.rows - (np.abs(core - np.eye(n)).max(axis=1) * np.abs(scale))
        broken["left out"] += row > inverse_bounds(sums._replace(rows=less)).inf * room
    counts = {name: int(n) for name, n in broken.items()}
    return {"violations": counts, "largest_bound": largest, "largest_condition": condition}


def projections(chunk: int = 0) -> dict[str, Any]:
    """Largest distance to a solver of the least distance problem, in units of the largest entry."""
    rng, worst, scaled, certified = np.random.default_rng((SEED, chunk)), 0.0, 0.0, 0
    for k in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        n, ratio = int(rng.integers(2, 7)), float(rng.uniform(0.05, 0.95))
        side, keep = ("rows", "columns", "both")[k % 3], bool(k % 2)
        matrix = rng.standard_t(2, (n, n)) * 10.0 ** rng.uniform(-3, 3, (n, 1))
        unit = np.abs(matrix).max()
        found = project(matrix, ratio, sides=side, keep_diagonal=keep) / unit
        wanted = nearest_dominant(matrix / unit, ratio, side, keep_diagonal=keep)
        worst = max(worst, float(np.abs(found - wanted).max()))
        stated = certify(found)
        ratios = {"rows": stated.row_ratio, "columns": stated.column_ratio}
        certified += ratios.get(side, max(ratios.values())) <= ratio * (1 + 4 * n * EPS)
        if side == "rows" and not keep and certify(matrix).row_ratio > ratio:  # scaling is no projection
            off = matrix * (1 - np.eye(n))
            share = np.minimum(1, ratio * np.abs(np.diag(matrix)) / np.maximum(np.abs(off).sum(axis=1), 1e-300))
            scaled = max(
                scaled, float(np.abs(np.diag(np.diag(matrix)) + off * share[:, None] - wanted * unit).max() / unit)
            )
    return {"worst": worst, "certified": int(certified), "negative_control": scaled}


def inverses(n: int, ratio: float) -> dict[str, Any]:
    """Seconds on one thread, and errors for rows x of signs, as the largest entry.

    The residual is x − (x A⁻¹) A, the difference that of x A⁻¹ from x times torch.linalg.inv in float64.
    """
    import torch

    torch.set_num_threads(1)
    rng, rows = np.random.default_rng(SEED), []
    core, signs = mixing(n, ratio, SEED), rng.choice([-1.0, 1.0], (128, n))
    tensor, wanted = torch.asarray(core), np.zeros(0)

    def record(what: str, run: Callable[[], Any], *, solved: bool = False) -> None:
        nonlocal wanted
        taken, result = [], np.zeros(0)
        for _ in range(2):
            start = time.process_time()
            result = np.asarray(run())
            taken.append(time.process_time() - start)
        mapped = (result if solved else signs.astype(result.dtype) @ result).astype(np.float64)
        wanted = wanted if wanted.size else mapped
        errors = {"residual": np.abs(mapped @ core - signs).max(), "difference": np.abs(mapped - wanted).max()}
        times = {"seconds": min(taken), "over_torch": min(taken) / rows[0]["seconds"] if rows else 1.0}
        rows.append({"what": what, "ratio": ratio, **times, **{name: float(one) for name, one in errors.items()}})
        print(rows[-1], flush=True)

    record(TORCH, lambda: torch.linalg.inv(tensor))
    for dtype in (np.float64, np.float32):
        narrow, x, name = core.astype(dtype), signs.astype(dtype), np.dtype(dtype).name
        record(f"{SOLVES}, {name}", lambda a=narrow, x=x: factor(a).solve_rows(x), solved=True)
        record(f"inverse from factors, {name}", lambda a=narrow: inverse(a))
    factors, steps = factor(core), newton_schulz_steps(ratio, 1e-7)
    off = (core - np.eye(n)).astype(np.float32)
    record(f"Newton–Schulz, {steps} steps, float32", lambda: newton_schulz(off, steps))
    found = {"growth": factors.growth, "pivot_free": factors.pivot_free, "bound_float32": solve_error(n, ratio)}
    return found | {"n": n, "ratio": ratio, "rows": rows}


def outlier(n: int = 256) -> dict[str, Any]:
    """A one-hot channel of height 100, and Gaussian tokens with one channel times 100."""
    rng = np.random.default_rng(SEED)
    rows, rotation = [], hadamard_matrix(n) / np.sqrt(n)
    for ratio in (0.1, 0.5, 0.9, 0.99):
        limit = 100 / (1 + ratio**2)
        least = min(abs(np.linalg.inv(mixing(n, ratio, seed))[0, 0]) * 100 for seed in range(20))
        around = AffineMap(np.ones(n), mixing(n, ratio, SEED, both=True), rotation)
        spread = np.abs(around.on_inputs(100 * np.eye(n)[:1])).max()
        rows.append(
            {
                "ratio": ratio,
                "limit": limit,
                "attained": abs(np.linalg.inv(pair_map(n, ratio))[0, 0]) * 100,
                "least_of_random": float(least),
                "around_hadamard": float(spread),
                "certified": around.certificate(measure=False).dominant,
            }
        )
    x = rng.standard_normal((2048, n))
    x[:, 0] *= 100
    quiet = np.arange(n) > 0
    errors = {}
    for name, matrix in {"identity": np.eye(n), "best N, 0.9": pair_map(n, 0.9), "Hadamard": rotation}.items():
        mapped = x @ np.linalg.inv(matrix)
        step = np.abs(mapped).max(axis=1, keepdims=True) / 7
        back = (step * np.rint(mapped / step)) @ matrix
        errors[name] = float(np.sum((back - x)[:, quiet] ** 2) / np.sum(x[:, quiet] ** 2))
    return {"n": n, "rows": rows, "relative_error_of_other_channels_4_bits": errors}


def pair_map(n: int, ratio: float) -> np.ndarray:
    """The dominant matrix that lowers channel 0 most."""
    found = np.eye(n)
    found[:2, :2] = [[1.0, ratio], [-ratio, 1.0]]
    return found


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts added, the largest of everything else."""
    first = parts[0]
    if "violations" in first:
        counts = {name: sum(part["violations"][name] for part in parts) for name in first["violations"]}
        largest = {key: max(part[key] for part in parts) for key in ("largest_bound", "largest_condition")}
        return {"violations": counts} | largest
    worst = {name: max(part[name] for part in parts) for name in ("worst", "negative_control")}
    return worst | {"certified": sum(part["certified"] for part in parts)}


def main() -> None:
    """Run all parts."""
    n, chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 4096, range(MATRICES // CHUNK)
    with threadpool_limits(1):
        inverses(64, 0.5)  # to warm up
        publish_parts(
            merged([*map(bounds, chunks)]),
            merged([*map(projections, chunks)]),
            [inverses(n, ratio) for ratio in (0.5, 0.9)],
            outlier(),
        )


def publish_parts(held: dict, near: dict, inverted: list[dict], high: dict) -> None:
    """Write what was found, with the claims."""
    rows = [row for part in inverted for row in part["rows"]]
    errors = high["relative_error_of_other_channels_4_bits"]
    publish(
        "dominance",
        seed=SEED,
        claims={
            "no bound is broken by 10000 matrices": not any(
                count for name, count in held["violations"].items() if name != "left out"
            ),
            "among them condition numbers above 1e16": held["largest_condition"] > 1e16,
            "bounds with an entry left out are broken": held["violations"]["left out"] > 0,
            "projections equal the solver's to 1e-8": near["worst"] <= 1e-8,
            "all projections are certified": near["certified"] == MATRICES,
            "rows scaled into the cone are not the projection": near["negative_control"] > 1e-2,
            "factors exchange nothing and grow by at most 2": all(
                part["pivot_free"] and part["growth"] <= 2 for part in inverted
            ),
            "float32 differs from torch.linalg.inv in float64 by less than 1e-4": all(
                row["difference"] <= 1e-4 for row in rows if "float32" in row["what"]
            ),
            "float64 differs by less than 1e-12": all(
                row["difference"] <= 1e-12 for row in rows if "float64" in row["what"]
            ),
            "factors and solves take less than two thirds of the time of torch.linalg.inv, in float64": all(
                row["over_torch"] < 2 / 3 for row in rows if row["what"] == f"{SOLVES}, float64"
            ),
            "a one-hot outlier keeps 1 / (1 + ρ²) of its height around the identity, and no less": all(
                row["least_of_random"] >= row["limit"] and abs(row["attained"] / row["limit"] - 1) < 1e-12
                for row in high["rows"]
            ),
            "around a Hadamard matrix it keeps less than half of that up to ρ = 0.9, certified": all(
                row["around_hadamard"] < row["limit"] / 2 and row["certified"]
                for row in high["rows"]
                if row["ratio"] <= 0.9
            ),
            "and in 4 bits the other channels lose less than a fifth of what they lose around the identity": (
                errors["Hadamard"] < 0.2 * min(errors["identity"], errors["best N, 0.9"])
            ),
        },
        matrices=MATRICES,
        bounds=held,
        projections=near,
        inverses=inverted,
        outlier=high,
    )


if __name__ == "__main__":
    main()
