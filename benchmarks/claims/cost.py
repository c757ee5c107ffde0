"""What quantization costs: time of one layer against rows and columns, peak memory, encode and decode speed.

    python benchmarks/claims/cost.py

The loop multiplies rows x n² / 2 numbers, and each sweep rows x n² more; the constant is given as a fraction of the
rate of a float32 matrix product of the same sizes, measured in the same run with one BLAS thread.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import publish, seconds

import lattq as lq

SEED, STEP = 0, 0.25
SHAPES = [(512, 512), (1024, 512), (2048, 512), (1024, 1024), (2048, 1024), (1024, 2048), (2048, 2048)]


def moment(n: int, rng: np.random.Generator) -> np.ndarray:
    """Second moment of 4 n correlated samples: well conditioned, with a decaying spectrum."""
    samples = rng.normal(size=(4 * n, n)) * np.linspace(2, 0.2, n)
    return samples.T @ samples / len(samples)


def peak_bytes(run: object) -> int:
    """Largest resident size during a call, less that before it, sampled every 5 ms."""
    process, done, peak = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run()  # pyright: ignore[reportCallIssue]
    finally:
        done.set()
        thread.join()
    return max(peak[0] - before, 0)


def row_of(rows: int, n: int, rng: np.random.Generator) -> dict:
    """Times of the parts on one shape."""
    weight, sigma = rng.normal(size=(rows, n)).astype(np.float32), moment(n, rng)
    square = rng.normal(size=(n, n)).astype(np.float32)
    with threadpool_limits(1):
        gemm = seconds(lambda: weight @ square)
        feedback = lq.feedback.Cholesky()
        factor = seconds(lambda: feedback.factor(weight, sigma), 1)
        plain = feedback.factor(weight, sigma)
        uniform = lq.quantizers.Uniform(STEP)
        loop = seconds(lambda: lq.feedback.successive_cancellation(weight, plain, uniform), 1)
    layer = lq.quantize(weight, sigma, lq.recipes.watersic(STEP))
    start = time.perf_counter()
    codes = layer.coder.encode(layer.codes)
    encode = time.perf_counter() - start
    start = time.perf_counter()
    lq.Quantized.from_payload(layer.payload).dequantize()
    decode = time.perf_counter() - start
    watersic = seconds(lambda: lq.quantize(weight, sigma, lq.recipes.watersic(STEP)), 1)
    peak = peak_bytes(lambda: lq.quantize(weight, sigma, lq.recipes.watersic(STEP)))
    found = {
        "rows": rows,
        "columns": n,
        "rate": layer.rate,
        "gemm_gflops": 2 * rows * n * n / gemm / 1e9,
        "factor_seconds": factor,
        "loop_seconds": loop,
        "loop_over_its_products": loop / (gemm / 2),
        "watersic_seconds": watersic,
        "watersic_over_a_product": watersic / gemm,
        "encode_mweights_per_second": weight.size / encode / 1e6,
        "decode_mweights_per_second": weight.size / decode / 1e6,
        "peak_bytes_per_weight": peak / weight.size,
        "blocks": len(codes[3]),
    }
    print({key: round(value, 3) for key, value in found.items()}, flush=True)
    return found


def main() -> None:
    """Measure all shapes; the claims only say that time grows as it should."""
    rng = np.random.default_rng(SEED)
    rows = [row_of(*shape, rng) for shape in SHAPES]
    small, large = rows[3], rows[6]
    publish(
        "cost",
        seed=SEED,
        claims={
            "time grows no faster than rows n²": large["loop_seconds"] / small["loop_seconds"] <= 8,
            "the loop's constant falls towards that of its matrix products": large["loop_over_its_products"]
            < rows[0]["loop_over_its_products"],
        },
        rows=rows,
    )


if __name__ == "__main__":
    main()
