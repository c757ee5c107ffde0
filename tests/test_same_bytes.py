"""Files and weights are the same bits in every process, on any number of threads, and compiled for any processor."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lattq as lq
from lattq.lattices import E8
from lattq.quantizers import Lattice, Trellis
from tests.schemes import every_scheme
from tests.strategies import moment

ROWS, COLUMNS, LANE = 150, 24, 64  # streams of up to 32 lanes, which are decoded sixteen at once, and of one
SCRIPT = f"""
import hashlib, json, pickle, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import lattq as lq
from lattq.coding import interleaved
interleaved.LANE = {LANE}

def arrays(layer):
    for name in sys.argv[3:]:
        if name == "codes":
            yield layer.codes.astype(np.int64)
        else:
            yield layer.dequantize(name, np.empty(layer.shape, np.uint16 if name == "bfloat16" else name))

def bits(item):
    blob = lq.Quantized(**item[1]).to_bytes()
    found = [blob, *(one.tobytes() for one in arrays(lq.Quantized.from_bytes(blob)))]
    return item[0], [hashlib.sha256(one).hexdigest() for one in found]

with open(sys.argv[1], "rb") as file, ThreadPoolExecutor(int(sys.argv[2])) as pool:
    print(json.dumps(dict(pool.map(bits, pickle.load(file).items()))))
"""
ARRAYS = ("float64", "float32", "float16", "bfloat16", "codes")
KERNELS = {
    *("rans.decode_columns", "rans.decode_plain", "rans_fronts.decode_fronts"),
    *("rans_encode.encode", "rans_encode.encode_columns", "rans_encode.encode_fronts"),
}
# The coders of all streams: strips of columns, with and without parities, fronts of both, and integers in a row.
EACH_KERNEL = ("watersic", "trellis", "lattice in few rows", "gptq", "trellis in fronts", "lattice in fronts")


@pytest.fixture(scope="module")
def layers() -> dict[str, lq.Quantized]:
    """A layer of every scheme, and of sequences along fronts."""
    rng = np.random.default_rng(0)
    scales = np.exp(rng.standard_normal(ROWS))[:, None]  # rows of several classes
    weight, sigma = rng.standard_normal((ROWS, COLUMNS)) * scales, moment(np.geomspace(1, 30, COLUMNS), 0)
    found = {name: lq.quantize(weight, sigma, scheme) for name, scheme in every_scheme(COLUMNS).items()}
    metric = lq.Metric(sigma, np.stack([moment(np.geomspace(1, 9, 50), seed) for seed in range(3)]))
    for name, cell in {"trellis": Trellis(8), "lattice": Lattice(E8)}.items():
        found[f"{name} in fronts"] = lq.quantize(weight, metric, lq.recipes.watersic(0.3, quantizer=cell))
    return found


def in_a_process(file: Path, threads: int, *wanted: str, **settings: str) -> str:
    """What a new process says of the layers of a file, as many at once as it has threads."""
    own = {"PYTHONPATH": str(Path(lq.__file__).parents[1]), **settings}
    command = [sys.executable, "-c", SCRIPT, str(file), str(threads), *wanted]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def written(layers: dict[str, lq.Quantized], file: Path) -> Path:
    """The fields of layers, from which a process encodes them anew."""
    names = [field.name for field in dataclasses.fields(lq.Quantized)]
    file.write_bytes(pickle.dumps({k: {name: getattr(x, name) for name in names} for k, x in layers.items()}))
    return file


def test_threads_and_processes_write_and_read_the_same_bits(layers: dict[str, lq.Quantized], tmp_path: Path):
    file, found = written(layers, tmp_path / "layers"), set()
    for threads in (1, 1, 2, 4):
        counts = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        found.add(in_a_process(file, threads, *ARRAYS, **counts))
    assert len(found) == 1
    assert found.pop().count('"') > 10 * len(layers)


def test_every_processor_writes_and_reads_the_same_bits(layers: dict[str, lq.Quantized], tmp_path: Path):
    """Compiled anew for the least processor of its kind, by code that no cache holds."""
    file = written({name: layers[name] for name in EACH_KERNEL}, tmp_path / "layers")
    least = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert in_a_process(file, 1, "float32", **least) == in_a_process(file, 1, "float32")
    compiled = {path.name.partition("-")[0] for path in (tmp_path / "cache").rglob("rans*.nbi")}
    assert compiled >= KERNELS
