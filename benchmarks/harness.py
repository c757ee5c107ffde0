"""What every claim script shares: the machine, the synthetic second moments, and the JSON that a run leaves behind."""

import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
PACKAGES = ("lattq", "numpy", "scipy", "constriction", "torch", "transformers")


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


def seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    """Fastest of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
