"""Tiny random models of many classes, quantized and loaded again.

    python benchmarks/claims/zoo.py

Each class is quantized with its default layers at one step, loaded, and compared with a dense model of the same class
that has the decoded weights; the reported rate is compared with the sizes of the files. What stays dense is listed.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.architectures import Outcome, outcome
from benchmarks.classes import ZOO
from benchmarks.harness import publish

SEED, ROUNDING = 0, 1e-4
AT_LEAST = {"experts": 6, "vision": 4, "encoder": 8, "state space": 6}


def measured(name: str) -> Outcome:
    """One class in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = outcome(name, Path(folder))
    print(found, flush=True)
    return found


def main() -> None:
    """Measure, judge, publish."""
    torch.set_num_threads(1)
    rows = [measured(name) for name in ZOO]
    done = [row for row in rows if row.error is None]
    counts = {kind: sum(row.kind == kind for row in done) for kind in AT_LEAST}
    publish(
        "zoo",
        seed=SEED,
        claims={
            f"{len(done)} classes are quantized: >= 40": len(done) >= 40,
            "among them >= 6 with experts, 4 with vision, 8 encoders, 6 with state spaces": all(
                counts[kind] >= least for kind, least in AT_LEAST.items()
            ),
            "loaded models compute with the decoded weights": all(row.largest_difference < ROUNDING for row in done),
            "the reported rates are those of the files": all(
                abs(row.rate / row.counted_rate - 1) < 1e-9 for row in done
            ),
            "every byte of a weight file is header, payload or of a tensor that is listed": all(
                row.unlisted == 0 for row in done
            ),
        },
        rows=[dataclasses.asdict(row) for row in rows],
    )


if __name__ == "__main__":
    main()
