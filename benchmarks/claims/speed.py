"""Speed of the trellis: the search, a whole layer, and back to weights.

    python benchmarks/claims/speed.py

The search is timed on one core, metrics and traceback included. Side by side, a butterfly updates two states of 32
sequences with 18 vector instructions (4 loads, 4 additions, 2 subtractions, 2 comparisons, 2 selections, 4 stores): a
core that retires two 512-bit ones per cycle needs 9 cycles for 64 updates, which is the limit the table compares with.
A layer of 4096 x 4096 weights is quantized and encoded on one core, beside its pivoted Cholesky factor and the matrix
products of the loop alone. Decoding runs in two processes, as the layers of a model do.
"""

import sys
import time
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import publish, seconds

import lattq as lq
from lattq.quantizers import Trellis
from lattq.trellis import TrellisCode

SEED, SIDE, STEP = 0, 4096, 0.35
SEGMENTS, LENGTH = 1024, 512
INSTRUCTIONS_PER_CYCLE = 2


def gigahertz() -> float:
    """Clock of this core from a generator whose steps wait for each other: a multiplication and a shift and an xor."""
    from numba import njit

    @njit
    def chain(count: int, start: int) -> int:
        x = start
        for _ in range(count):
            x = (x * 6364136223846793005) ^ (x >> 7)  # 3 cycles, beside which the shift is free, and 1
        return x

    return 4 * 50_000_000 / seconds(lambda: chain(50_000_000, 5)) / 1e9


def search_rows(clock: float) -> list[dict]:
    """Millions of samples per second, side by side and one sequence at a time."""
    rng = np.random.default_rng(SEED)
    many = (8 * rng.standard_normal((SEGMENTS, LENGTH))).astype(np.float32)
    found = []
    for states in (8, 64, 256, 4096):
        code, count = TrellisCode(states), max(min(SEGMENTS, 32768 // states), 32)
        part, one = many[:count], many[: max(count // 16, 4)].reshape(1, -1)
        row: dict[str, float] = {"states": states}
        for name, x in (("segments side by side", part), ("one sequence", one)):
            row[name] = x.size / seconds(lambda x=x, code=code: code.nearest(x), 15) / 1e6
        row["instruction limit"] = clock * 1e3 * INSTRUCTIONS_PER_CYCLE / (18 * states / 2 / 32)
        print({key: round(value, 1) for key, value in row.items()}, flush=True)
        found.append(row)
    return found


def products(unit: np.ndarray, error: np.ndarray, target: np.ndarray) -> None:
    """The matrix products of the loop and nothing else."""
    n = len(unit)
    if n == 1:
        return
    half = n // 2
    products(unit[half:, half:], error[half:], target[half:])
    target[:half] += unit[:half, half:] @ error[half:]
    products(unit[:half, :half], error[:half], target[:half])


def layer_row() -> tuple[dict, list[bytes]]:
    """One large layer, encoded to bytes, beside its factor and its products."""
    rng = np.random.default_rng(SEED)
    samples = rng.standard_normal((2 * SIDE, SIDE)).astype(np.float32) * np.linspace(2, 0.2, SIDE, dtype=np.float32)
    sigma = (samples.T @ samples).astype(np.float64) / len(samples)
    weight = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
    recipe = lq.recipes.watersic(STEP, quantizer=Trellis(256))
    lq.quantize(weight[:600, :64], sigma[:64, :64], recipe).to_bytes()  # compiled
    with threadpool_limits(1):
        start = time.perf_counter()
        factor = lq.linalg.ldl(sigma, order="pivoted")
        factored = time.perf_counter()
        products(factor.unit.T.astype(np.float32), weight.T.copy(), np.zeros((SIDE, SIDE), np.float32))
        multiplied = time.perf_counter()
        layer = lq.quantize(weight, sigma, recipe)
        looped = time.perf_counter()
        blob = layer.to_bytes()
        end = time.perf_counter()
    row = {
        "side": SIDE,
        "rate": layer.rate,
        "factor_seconds": factored - start,
        "products_seconds": multiplied - factored,
        "quantize_seconds": looped - multiplied,
        "bytes_seconds": end - looped,
        "over_factor_and_products": (end - multiplied) / (multiplied - start),
    }
    print({key: round(value, 3) for key, value in row.items()}, flush=True)
    payload = layer.payload
    assert len(blob) > len(payload)
    return row, [payload, payload]


def decode(payload: bytes) -> float:
    """Seconds from bytes to float32 weights."""
    start = time.perf_counter()
    lq.Quantized.from_payload(payload).dequantize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, judge, publish."""
    clock = gigahertz()
    with threadpool_limits(1):
        searches = search_rows(clock)
    row, payloads = layer_row()
    alone = min(decode(payloads[0]) for _ in range(2))
    pool = Parallel(2)
    list(pool(delayed(decode)(payload) for payload in payloads) or [])  # processes started
    start = time.perf_counter()
    list(pool(delayed(decode)(payload) for payload in payloads) or [])
    both = time.perf_counter() - start
    decoding = {"one process": SIDE**2 / alone / 1e6, "two processes": 2 * SIDE**2 / both / 1e6}
    print(clock, decoding, flush=True)
    by_states = {found["states"]: found for found in searches}
    publish(
        "speed",
        seed=SEED,
        claims={
            "256 states, segments side by side: >= 50 million samples a second": by_states[256]["segments side by side"]
            >= 50,
            "256 states, one sequence: >= 15": by_states[256]["one sequence"] >= 15,
            "8 states, segments side by side: >= 300": by_states[8]["segments side by side"] >= 300,
            "4096 x 4096 layer: <= 3 times its factor and products": row["over_factor_and_products"] <= 3,
            "decoding in two processes: >= 15 million weights a second": decoding["two processes"] >= 15,
        },
        gigahertz=clock,
        search=searches,
        layer=row,
        decode_mweights_per_second=decoding,
    )


if __name__ == "__main__":
    main()
