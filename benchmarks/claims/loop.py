"""What `quantize` of one layer costs, in products of matrices of its size, beside an older build.

    python benchmarks/claims/loop.py OTHER [SIZE [ROUNDS]]

OTHER is a checkout of the build to compare with. Both builds quantize the same Gaussian weights in float32 at about
three bits, with the same parts: pivoted MMSE feedback, equalized pivots, one step. The spectrum of the second moment
falls as 1 / k or as 1 / k², in a random basis, and columns differ in scale. Checks of the second moment are included,
bytes are not. Times are those of the processor on one thread, the least of a few, over that of a product of two float32
matrices of the size of the layer in the same process.
"""

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from harness import builds_in_turns, fastest, publish, rescaled, rotated

SEED, ROUNDS, RATE = 0, 3, 3
CELLS = {"scalar": ("Uniform", 0), "scalar, two sweeps": ("Uniform", 2), "trellis, 256 states": ("Trellis", 0)}
MOST = {"scalar": 2.5, "scalar, two sweeps": 6.0, "trellis, 256 states": 3.5}
DECAYS = (1, 2)


def layer(size: int, decay: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Weight, second moment, and the step of about the rate."""
    rng = np.random.default_rng(SEED)
    eigenvalues = np.arange(1.0, size + 1) ** -decay
    scale = np.exp(rng.normal(0, 0.5, size))
    volume = float(np.mean(np.log(eigenvalues)) / 2 + np.mean(np.log(scale)))
    weight = rng.normal(size=(size, size)).astype(np.float32)
    sigma = rescaled(rotated(eigenvalues, rng), scale)
    return weight, (sigma + sigma.T) / 2, math.sqrt(2 * math.pi * math.e) * math.exp(volume) / 2**RATE


def scheme(cell: str, step: float) -> Any:
    """The same parts in every build."""
    import lattq as lq
    from lattq.feedback.rules import MMSE

    name, sweeps = CELLS[cell]
    quantizer = getattr(lq.quantizers, name)(step=step)
    feedback = MMSE(step**2 * quantizer.second_moment, 0.2, "pivoted")
    return lq.Scheme(feedback=feedback, quantizer=quantizer, equalize=lq.transforms.Equalize(), sweeps=sweeps)


def measured(size: int) -> dict[str, Any]:
    """Figures of one build: products, seconds, bits a weight, distortion."""
    import lattq as lq

    figures = {}
    for decay in DECAYS:
        weight, sigma, step = layer(size, decay)
        product = partial(np.matmul, weight, weight)
        for cell in CELLS:
            run = partial(lq.quantize, weight, sigma, scheme(cell, step))
            unit, seconds, again = fastest(product, 3), fastest(run, 3), fastest(product, 3)
            found = run()
            figures[f"{cell}, 1 / k^{decay}"] = {
                "products": seconds / min(unit, again),
                "seconds": seconds,
                "bits": 8 * found.nbytes / size**2,
                "distortion": found.distortion(weight, sigma),
            }
    return figures


def best(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The least of each figure; sizes and errors are the same each time."""
    return {name: {key: min(one[name][key] for one in rounds) for key in rounds[0][name]} for name in rounds[0]}


def main(other: Path, size: int = 2048, rounds: int = ROUNDS) -> None:
    """Measure both builds in turns, and publish."""
    here, before = map(best, builds_in_turns(__file__, other, rounds, str(size)).values())
    faster = {name: before[name]["seconds"] / here[name]["seconds"] for name in here}
    worse = {name: here[name]["distortion"] / before[name]["distortion"] - 1 for name in here}
    claims = {
        f"{cell}: at most {most} products": max(here[f"{cell}, 1 / k^{decay}"]["products"] for decay in DECAYS) <= most
        for cell, most in MOST.items()
    }
    claims["at least twice as fast as the older build"] = min(faster.values()) >= 2
    claims["the same distortion within 0.001 of it"] = max(map(abs, worse.values())) <= 1e-3
    publish(
        "loop", seed=SEED, claims=claims, size=size, rounds=rounds, here=here, before=before, faster=faster, worse=worse
    )


if __name__ == "__main__":
    if sys.argv[1] == "figures":
        print(json.dumps(measured(int(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
