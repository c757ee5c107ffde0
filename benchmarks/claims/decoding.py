"""How fast payloads become weights, beside an older build, a copy, a table and general compressors.

    python benchmarks/claims/decoding.py OTHER [SIZE]

OTHER is a checkout of the build to compare with. Both builds quantize the same Gaussian matrix, in processes of their
own that take turns, with the same quantizers: one step for scalar codes, and trellises of 256 states. Times are those
of the processor, so that other work on the machine disturbs them less, and the least of a few; two threads decode two
matrices each and are timed by the clock. Compressors get the codes as bytes.
"""

import json
import lzma
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from harness import builds_in_turns, fastest, publish

RATES, FAMILIES, SEED, ROUNDS = (2, 3, 4), ("scalar", "trellis"), 0, 3


def layers(size: int) -> dict[str, Any]:
    """Results of this build, by family and rate."""
    import lattq as lq
    from lattq.quantizers.trellis import TrellisQuantizer
    from lattq.quantizers.uniform import UniformQuantizer

    weight, found = np.random.default_rng(SEED).standard_normal((size, size)), {}
    for family, kind in zip(FAMILIES, (UniformQuantizer, TrellisQuantizer), strict=True):
        for rate in RATES:
            quantizer = kind(np.array([[math.sqrt(2 * math.pi * math.e) / 2**rate]]))
            transform = lq.quantize(np.eye(2), np.eye(2), lq.Scheme(quantizer=lq.quantizers.Uniform(1.0))).transform
            found[f"{family} {rate}"] = lq.Quantized(quantizer.encode(weight), quantizer, transform, quantizer.coder)
    return found


def measured(size: int) -> dict[str, Any]:
    """Figures of one build: bits a weight, squared error, and million weights a second."""
    import lattq as lq

    weight, figures = np.random.default_rng(SEED).standard_normal((size, size)), {}
    for name, layer in layers(size).items():
        blob, count = layer.to_bytes(), size * size / 1e6

        def decode(blob: bytes = blob) -> np.ndarray:
            return lq.Quantized.from_bytes(blob).dequantize(np.float32)

        with ThreadPoolExecutor(2) as pool:
            four = fastest(lambda: [decode() for _ in range(4)], 2, time.perf_counter)
            two = fastest(lambda: list(pool.map(lambda _: decode(), range(4))), 2, time.perf_counter)
        figures[name] = {
            "bits": 8 * len(blob) / size**2,
            "error": float(np.mean((weight - decode()) ** 2)),
            "decode": count / fastest(decode),
            "encode": count / fastest(partial(layer.coder.encode, layer.codes), 1),
            "two threads": four / two,
        }
    return figures


def by_zstd(codes: bytes) -> dict[str, float]:
    """Bits a code and million codes a second of the program's own benchmark, at level 3."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(codes)
        file.flush()
        done = subprocess.run(["zstd", "-b3", "-i1", file.name], capture_output=True, text=True, check=True)
    ratio, _, speed = re.findall(r"x([\d.]+)\), +([\d.]+) MB/s, +([\d.]+) MB/s", done.stdout + done.stderr)[-1]
    return {"bits": 8 / float(ratio), "decode": float(speed)}


def compressed(size: int) -> dict[str, Any]:
    """Size and speed of general compressors on codes as bytes, and of a copy and a table of the same matrix."""
    found = {}
    for rate in RATES:
        step = math.sqrt(2 * math.pi * math.e) / 2**rate
        codes = np.rint(np.random.default_rng(SEED).standard_normal((size, size)) / step).astype(np.int8).tobytes()
        small = lzma.compress(codes)
        count = size * size / 1e6
        found[f"lzma {rate}"] = {
            "bits": 8 * len(small) / size**2,
            "decode": count / fastest(partial(lzma.decompress, small), 1),
        }
        if shutil.which("zstd"):
            found[f"zstd {rate}"] = by_zstd(codes)
    weights, index = np.zeros((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.uint8)
    table = np.arange(256, dtype=np.float32)
    found["copy"] = size * size / 1e6 / fastest(weights.copy)
    found["table"] = size * size / 1e6 / fastest(lambda: table[index])
    return found


def best(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest of each figure; sizes and errors are the same each time."""
    return {name: {key: max(one[name][key] for one in rounds) for key in rounds[0][name]} for name in rounds[0]}


def main(other: Path, size: int) -> None:
    """Measure both builds in turns, and publish."""
    here, before = map(best, builds_in_turns(__file__, other, ROUNDS, str(size)).values())
    beside = compressed(size)
    ratios = {name: here[name]["decode"] / before[name]["decode"] for name in here}
    longer = {name: here[name]["bits"] - before[name]["bits"] for name in here}
    claims = {
        "payloads decode to float32 at least ten times as fast": min(ratios.values()) >= 10,
        "two threads decode 1.8 times as fast as one": min(one["two threads"] for one in here.values()) >= 1.8,
        "files are at most 0.001 bit a weight longer": max(longer.values()) <= 1e-3,
        "files are smaller than lzma's and zstd's of codes as bytes": all(
            here[f"scalar {rate}"]["bits"] < one["bits"]
            for rate in RATES
            for name, one in beside.items()
            if name.endswith(f" {rate}")
        ),
        "faster than lzma at every rate": all(
            here[f"scalar {rate}"]["decode"] > beside[f"lzma {rate}"]["decode"] for rate in RATES
        ),
    }
    publish(
        "decoding", seed=SEED, claims=claims, size=size, here=here, before=before, ratios=ratios, longer=longer,
        beside=beside,
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "figures":
        print(json.dumps(measured(int(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2048)
