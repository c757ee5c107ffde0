"""Products straight from packed codes, and the fast Walsh–Hadamard transform, beside float32 in the same run.

    python benchmarks/claims/packed.py

A square matrix times one vector, on two threads, for which float32 (NumPy's BLAS) reads 4 bytes a weight. Packed codes
read the bytes that the table names; what limits them else is their instructions on vectors of 512 bits, counted in the
compiled inner loops: a shift, a permutation and a multiply-add for 16 weights of four bits, and 331 to decode 512
weights of nested E8 with 125 to multiply them. One limit assumes two of these per cycle and core, the other the bytes
at the speed at which float32 is read. Codebooks of vectors are limited by their look-ups: for each index the entry and
a piece of the vector are read, or a product made before, and for eight indices their bits; two reads per cycle and core
are assumed. Rounds of all formats follow each other, with a pause in which the threads of
BLAS, which wait for more to do without sleeping, give their cores back; of each the fastest run counts.

The transform runs on one core, beside a copy of its input and the product with the Hadamard matrix.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import publish, seconds
from speed import gigahertz

import lattq as lq
from lattq.lattices import E8, D, HierarchicalCode, NestedCode, VoronoiCode
from lattq.linalg.hadamard import fwht, hadamard_matrix
from lattq.packed import PackedMatrix
from lattq.quantizers import UniformQuantizer
from lattq.quantizers.codebook import CodebookQuantizer
from lattq.quantizers.nested import NestedQuantizer
from lattq.transforms.maps import Identity

SEED, SIDE, GROUP, THREADS, ROUNDS, PER_CYCLE = 0, 8192, 128, 2, 6, 2
LENGTH, BATCH = 4096, 4096
FEW = 16  # right-hand sides
CODEBOOKS = {"codebook of 16 numbers": (16, 1), "codebook of 64 pairs": (64, 2), "codebook of 256 fours": (256, 4)}
PER_WEIGHT = {
    "int4": 3 / 16,
    "table of 16 for each row": 3 / 16,
    "nested E8, q = 13": 456 / 512,
    "codebook of 16 numbers": 3 / 16,
    "codebook of 64 pairs": (1 + 1 / 8) / 2,  # products made before
    "codebook of 256 fours": (2 + 1 / 8) / 4,  # entries times pieces
}


def matrices(rng: np.random.Generator) -> dict[str, PackedMatrix]:
    """Random codes in each format."""
    scale = rng.uniform(0.5, 1, (SIDE, SIDE // GROUP)).astype(np.float16).astype(np.float64)
    codes = rng.integers(-8, 8, (SIDE, SIDE), dtype=np.int32)
    uniform = UniformQuantizer(scale, 0.0, -8, 7, GROUP)
    found = {"int4": PackedMatrix.from_quantized(lq.Quantized(codes, uniform, Identity(), uniform.coder))}
    codes += 8
    found["table of 16 for each row"] = PackedMatrix.from_tables(codes, rng.standard_normal((SIDE, 1, 16)))
    codes = rng.integers(0, 13, (SIDE, SIDE), dtype=np.int32)
    codes[:, ::8] += 13 * rng.integers(0, 4, (SIDE, SIDE // 8), dtype=np.int32)
    nested = NestedQuantizer(scale[:, :1], NestedCode(VoronoiCode(E8, 13), (0.3, 0.4, 0.5, 0.8)), 8, index="packed")
    packed = PackedMatrix.from_quantized(lq.Quantized(codes, nested, Identity(), nested.coder))
    found["nested E8, q = 13"] = packed
    digits = rng.integers(0, 4, (SIDE, SIDE // 4, 2, 4), dtype=np.int32)
    found["hierarchical D4, 4²"] = PackedMatrix.from_hierarchical(HierarchicalCode(D(4), 4, 2), digits, scale[:, 0])
    for name, (size, dimension) in CODEBOOKS.items():
        tables = rng.standard_normal((1, 1, size, dimension))
        book = CodebookQuantizer(tables, SIDE)
        codes = np.repeat(rng.integers(0, size, (SIDE, SIDE // dimension), dtype=np.int32), dimension, axis=1)
        found[name] = PackedMatrix.from_quantized(lq.Quantized(codes, book, Identity(), book.coder))
    return found


def fastest(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each, the least of some rounds of all."""
    found = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(0.1)
            found[name] = min(found[name], seconds(run, 3))
    return found


def product_rows(clock: float) -> tuple[list[dict], bool]:
    """Times of one vector and of a few; whether the number of threads changed a bit."""
    rng = np.random.default_rng(SEED)
    packed, dense = matrices(rng), rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    x = rng.standard_normal((SIDE, FEW)).astype(np.float32)
    one = np.ascontiguousarray(x[:, 0])
    same = all(np.array_equal(m.matvec(one), m.matvec(one, threads=THREADS)) for m in packed.values())
    single = {name: lambda m=m: m.matvec(one, threads=THREADS) for name, m in packed.items()}
    several = {name: lambda m=m: m.matmul(x, threads=THREADS) for name, m in packed.items()}
    with threadpool_limits(THREADS):
        times = fastest({"float32": lambda: dense @ one, **single}, ROUNDS)
        few = fastest({"float32": lambda: dense @ x, **several}, 2)
    rows = []
    for name, taken in times.items():
        moved = dense.nbytes if name == "float32" else packed[name].nbytes
        row = {
            "format": name,
            "megabytes": moved / 1e6,
            "milliseconds": taken * 1e3,
            "gigabytes_per_second": moved / taken / 1e9,
        }
        row["byte_limit_milliseconds"] = 1e3 * times["float32"] * moved / dense.nbytes
        if name in PER_WEIGHT:
            row["instruction_limit_milliseconds"] = PER_WEIGHT[name] * SIDE**2 / PER_CYCLE / THREADS / clock / 1e6
        row |= {"times_float32": times["float32"] / taken, "few_times_float32": few["float32"] / few[name]}
        rows.append(row)
        print(row, flush=True)
    return rows, same


def transform_rows() -> list[dict]:
    """Transform, copy and product, one core."""
    rows = []
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(SEED).standard_normal((BATCH, LENGTH)).astype(dtype)
        matrix = hadamard_matrix(LENGTH).astype(dtype)
        with threadpool_limits(1):
            times = fastest({"copy": x.copy, "transform": lambda x=x: fwht(x, orthonormal=True)}, ROUNDS)
            times["product"] = seconds(lambda x=x, matrix=matrix: x @ matrix, 2)
        row = {"type": np.dtype(dtype).name, **{f"{name}_milliseconds": 1e3 * t for name, t in times.items()}}
        rows.append(
            row
            | {
                "over_a_copy": times["transform"] / times["copy"],
                "times_product": times["product"] / times["transform"],
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, judge, publish."""
    clock = gigahertz()
    transforms = transform_rows()
    rows, same = product_rows(clock)
    speedup = {row["format"]: row["times_float32"] for row in rows}
    publish(
        "packed",
        seed=SEED,
        claims={
            "int4 in groups of 128: >= 2 times float32": speedup["int4"] >= 2,
            "table of 16 for each row: >= 2 times float32": speedup["table of 16 for each row"] >= 2,
            "nested E8, q = 13: >= 1 times float32": speedup["nested E8, q = 13"] >= 1,
            **{f"{name}: >= 1 times float32": speedup[name] >= 1 for name in CODEBOOKS},
            "the same bits on one thread and on two": same,
            "transform of 4096 rows of 4096: >= 5 times a float32 product": transforms[0]["times_product"] >= 5,
        },
        gigahertz=clock,
        products=rows,
        transforms=transforms,
    )


if __name__ == "__main__":
    main()
