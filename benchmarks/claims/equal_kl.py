"""Divergence of the embedded model against real bits, recipe by recipe, and the bits that each takes for the same.

    python benchmarks/claims/equal_kl.py

Nothing is measured here: the points are those of `language_model.py`, `two_sided.py` and `refine.py`, means over seeds,
on the unseen novel. Bits at a divergence are read off between two points, where its logarithm is a line; a recipe that
does not reach it has none.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib.pyplot as plt
import numpy as np
from harness import RESULTS, publish

Curve = list[tuple[float, float]]
CURVES = {"rtn": "rtn", "gptq": "gptq", "watersic": "watersic", "watersic, trellis": "trellis, one-sided"}
LEVELS = (0.1, 0.03, 0.01, 0.003)  # bits per token
CLAIMS = {"two-sided": "trellis, one-sided", "two-sided, refined": "two-sided"}


def curves() -> dict[str, Curve]:
    """Rates and divergences of each recipe, by rate."""
    found: dict[str, Curve] = {}
    for row in rows_of("language_model"):
        if row["recipe"] in CURVES:
            found.setdefault(CURVES[row["recipe"]], []).append((row["rate"], row["kl"]))
    points: dict[tuple[str, str], Curve] = {}
    for row in rows_of("two_sided"):
        kind, _, rate = row["name"].partition(" ")
        if kind == "two-sided" and rate.replace(".", "").isdigit():
            points.setdefault(("two-sided", rate), []).append((row["rate"], row["kl"]["novel"]))
    for row in rows_of("refine"):
        kind, _, rate = row["name"].partition(" ")
        if kind == "two-sided" and row["stage"] == "embeddings too":
            points.setdefault(("two-sided, refined", rate), []).append((row["rate"], row["kl"]["novel"]))
    for (name, _), several in points.items():
        rate, kl = np.mean(several, axis=0)
        found.setdefault(name, []).append((float(rate), float(kl)))
    return {name: sorted(curve) for name, curve in found.items()}


def rows_of(name: str) -> Iterator[dict]:
    """What a claim script found."""
    yield from json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def bits_at(curve: Curve, kl: float) -> float | None:
    """Rate at which a curve falls to a divergence; None outside of its points."""
    rates, logs = np.array(curve).T
    logs = np.log(logs)
    if not logs.min() <= np.log(kl) <= logs.max():
        return None
    return float(np.interp(-np.log(kl), -logs, rates))


def draw(found: dict[str, Curve]) -> None:
    """All curves."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, curve in found.items():
        rates, kls = zip(*curve, strict=True)
        axes.semilogy(rates, kls, "o-", label=name, markersize=4)
    axes.set(xlabel="bits per weight (files)", ylabel="KL to the unquantized model, bits per token")
    axes.grid(which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(RESULTS / "equal_kl.png", dpi=110)


def main() -> None:
    """Collect, draw, judge, publish."""
    found = curves()
    draw(found)
    bits = {name: {f"{kl:g}": bits_at(curve, kl) for kl in LEVELS} for name, curve in found.items()}
    claims = {
        f"{name} takes fewer bits than {other} at every divergence that both reach": all(
            own < theirs
            for own, theirs in zip(bits[name].values(), bits[other].values(), strict=True)
            if own is not None and theirs is not None
        )
        for name, other in CLAIMS.items()
        if name in bits
    }
    publish("equal_kl", seed=0, claims=claims, curves=found, bits=bits)


if __name__ == "__main__":
    main()
