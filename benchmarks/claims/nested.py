"""Nested lattices on Gaussian vectors: the gap of NestQuant's codes, what packing costs, and that codes are cosets.

    python benchmarks/claims/nested.py

E8, N(0, 1), a million vectors; the gap is rate less ½ log2(1/D) with the index of the scale raw or at its entropy. The
layers of the packed code are files: 512 rows of 4096 weights, rotated and with a float16 scale each.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import publish

import lattq as lq
from lattq.lattices import E8, A, D, NestedCode, VoronoiCode, Z, best_scales
from lattq.lattices.nested import NESTQUANT_SCALES

SEED, VECTORS = 4, 1_000_000
ALL = ((Z(1), 256), (Z(2), 16), (A(2), 256), (D(4), 16), (E8, 2), (E8, 4))
RANDOM = ((Z(2), 255), (A(2), 200), (D(4), 64), (E8, 13), (E8, 14), (E8, 256))


def gaps() -> list[dict]:
    """Published scales and our own, by rule and index."""
    sample = np.random.default_rng(SEED).standard_normal((VECTORS, 8))
    rows = []
    for name, scales in (
        ("published", tuple(scale / 14 for scale in NESTQUANT_SCALES["weights"])),
        ("ours, for a coded index", best_scales(E8, 14, 4)),
        ("ours, for a raw index", best_scales(E8, 14, 4, coded=False)),
    ):
        for rule in ("best", "first"):
            for shaping in ("voronoi", "simplified"):
                found = NestedCode(VoronoiCode(E8, 14, shaping), scales, rule).measure(sample)
                row = {"scales": name, "times_q": [14 * scale for scale in scales], "rule": rule, "shaping": shaping}
                row |= {"distortion": found.distortion, "shares": found.shares, "overload": found.overload}
                rows.append(row | {"coded_gap": found.gap(), "raw_gap": found.gap(coded=False)})
                print(rows[-1], flush=True)
    return rows


def packed() -> list[dict]:
    """Files of one layer: all bytes, those of the codes, and the error."""
    weight = np.random.default_rng(SEED + 1).standard_normal((512, 4096))
    rows = []
    for levels, index in ((13, "packed"), (14, "coded"), (14, "raw")):
        layer = lq.quantize(weight, np.eye(4096), lq.recipes.nestquant(levels, index=index, feedback=False))
        plane = len(layer.coded) if index == "packed" else None
        row = {"q": levels, "index": index, "rate": layer.rate, "code_bytes": plane, "weights": weight.size}
        distortion = layer.distortion(weight, np.eye(4096))
        rows.append(row | {"distortion": distortion, "gap": layer.gap(weight, np.eye(4096), row_variance=1.0)})
        print(rows[-1], flush=True)
    return rows


def bijection() -> list[dict]:
    """Digits that do not come back from their leaders: of all codes where these are few, of a million otherwise."""
    rows = []
    for cases, every in ((ALL, True), (RANDOM, False)):
        for lattice, q in cases:
            code = VoronoiCode(lattice, q)
            if every:
                digits = code.from_index(np.arange(q**code.dimension))
            else:
                digits = np.random.default_rng(SEED).integers(0, q, (1_000_000, code.dimension), dtype=np.int32)
            wrong = int(np.sum(np.any(code.encode(code.decode(digits)) != digits, axis=1)))
            rows.append({"lattice": lattice.name, "q": q, "codes": len(digits), "all": every, "wrong": wrong})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, judge, publish."""
    rows, files, cosets = gaps(), packed(), bijection()
    round_rows = [row for row in rows if row["shaping"] == "voronoi" and row["rule"] == "best"]
    publish(
        "nested",
        seed=SEED,
        claims={
            "q = 14, four scales: gap <= 0.32 bit with a coded index": min(r["coded_gap"] for r in round_rows) <= 0.32,
            "q = 14, four scales: gap <= 0.36 bit with a raw index": min(r["raw_gap"] for r in round_rows) <= 0.36,
            "q = 13, packed: exactly 4 bytes for 8 weights": 2 * files[0]["code_bytes"] == files[0]["weights"],
            "q = 13, packed: squared error <= 0.0070": files[0]["distortion"] <= 0.0070,
            "every code is the coset of its leader": all(row["wrong"] == 0 for row in cosets),
        },
        gaps=rows,
        files=files,
        bijection=cosets,
    )


if __name__ == "__main__":
    main()
