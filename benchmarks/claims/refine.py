"""KL of the embedded language model refined with frozen codes, over that of the one-sided trellis at the same bytes.

    python benchmarks/claims/refine.py [--epochs N] [--only NAME ...] [--seeds SEED ...] [--home DIR]

Every point is a directory on disk, loaded back through `transformers`; its rate is the bytes of what replaces the
quantized weights. Two stages, both for no byte: steps and norms alone, and the dense embedding (the output layer is
tied to it) as well. A third lets rows have gains, which the codes make room for. Judged on an unseen novel, which is
the model's kind of text, and on the reference of the Python language, which is not. "trellis" in `two_sided.json` is
what two-sided points are compared with, at 4^(difference) of the rates; integers are compared with themselves.
"""

import argparse
import json
import pydoc_data.topics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import RESULTS, publish

import lattq as lq
from lattq.llm import Refining, Report, embedded_model, embedded_text, evaluate, quantize_model, refine_model
from lattq.llm.convert.quantize_refined import reserve

SEEDS, SLACK = (0, 1), 0.0045
RATES, LEVELS = (2.0, 2.5, 3.0, 4.0), {"INT4": 16, "INT3": 8}
STAGES = {
    "steps and norms": {"embeddings": False},
    "embeddings too": {},
    "gains of rows too": {"gains": True},
}
NAMES = (*(f"two-sided {rate:g}" for rate in RATES), *(f"gptq {name}" for name in LEVELS))
OTHER = "\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
TEXTS = {"novel": (embedded_text("evaluation"), None), "reference": (OTHER, 100)}
# Ratio of KL to that of the one-sided trellis, on the novel and on the reference; then what we would like.
TARGETS = {
    "two-sided 2": (0.75, 0.95),
    "two-sided 2.5": (0.75, 0.95),
    "two-sided 3": (0.65, 0.8),
    "two-sided 4": (0.85, 1),
}
GOALS = {"two-sided 2": (0.6, 0.8), "two-sided 2.5": (0.6, 0.8), "two-sided 3": (0.55, 0.7)}


def judged(folder: Path) -> dict[str, float]:
    """KL in bits per token on both texts."""
    return {
        name: evaluate(folder, text, reference=embedded_model(), samples=samples).kl_bits_per_token or 0.0
        for name, (text, samples) in TEXTS.items()
    }


def quantized(folder: Path, name: str, seed: int, room: float = 0.0) -> Report:
    """Quantize the embedded model on all calibration windows, unless that has been done."""
    if not folder.is_dir():
        kind, setting = name.split()
        options: dict[str, Any] = (
            {"rate": float(setting) - room} if kind == "two-sided" else {"levels": LEVELS[setting]}
        )
        options |= {"recipe": lq.recipes.two_sided if kind == "two-sided" else lq.recipes.gptq}
        options |= {"seed": seed, "allocation": "loss"}
        quantize_model(embedded_model(), folder, calibration_text=embedded_text("calibration"), **options)
    return Report.from_json((folder / "lattq_report.json").read_text())


def refined(plain: Path, folder: Path, most: float | None, **options: Any) -> dict[str, Any]:
    """Refine a directory, unless that has been done; what was written about it."""
    if not folder.is_dir():
        words: dict[str, Any] = {
            "calibration_text": embedded_text("calibration"),
            "refining": Refining(**options),
            "most_rate": most,
        }
        refine_model(plain, folder, source=embedded_model(), **words)
    found = json.loads((folder / "lattq_refinement.json").read_text())
    told = found["distillation"]
    held_out = {"start": told["start"]["divergence"], "end": told["end"]["divergence"], "best": told["best_epoch"]}
    return {"rate": found["rate"], "bytes": found["stored_bytes"], "seconds": found["seconds"], "held_out": held_out}


def measure(name: str, seed: int, epochs: int, home: Path, stages: list[str]) -> list[dict[str, Any]]:
    """The plain model and all stages of one recipe."""
    first = quantized(home / "whole", name, seed)
    row: dict[str, Any] = {"name": name, "seed": seed}
    rows = [{**row, "stage": "plain", "rate": first.rate, "bytes": first.stored_bytes, "kl": judged(home / "whole")}]
    for stage in stages:
        plain, most, gains = home / "whole", None, "gains" in STAGES[stage]
        if gains and name.startswith("two-sided"):
            given = {"recipe": lq.recipes.two_sided, "modules": None, "include": None, "exclude": ()}
            plain, most = home / "low", float(name.split()[1]) + SLACK
            quantized(plain, name, seed, reserve(embedded_model(), given))
        told = refined(plain, home / stage, most, epochs=epochs, seed=seed, **STAGES[stage])
        rows.append({**row, "stage": stage, **told, "kl": judged(home / stage)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with its KL over that of the one-sided trellis, or of itself, at the same bytes."""
    plain = {(row["name"], row["seed"]): row for row in rows if row["stage"] == "plain"}
    for row in json.loads((RESULTS / "two_sided.json").read_text())["rows"]:
        kind, _, rate = row["name"].partition(" ")
        if kind == "trellis":
            plain[f"two-sided {rate}", row["seed"]] = row
    found = []
    for row in rows:
        other = plain[row["name"], row["seed"]]
        factor = 4 ** (row["rate"] - other["rate"])
        found.append(row | {"ratio": {kind: row["kl"][kind] / other["kl"][kind] * factor for kind in TEXTS}})
    return found


def mean_ratio(rows: list[dict[str, Any]], name: str, stage: str, kind: str) -> float | None:
    """Over seeds; None if there is no row."""
    found = [row["ratio"][kind] for row in rows if row["name"] == name and row["stage"] == stage]
    return sum(found) / len(found) if found else None


def main() -> None:
    """Measure, judge, publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=Refining().epochs)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, help="the other rows stay as published")
    parser.add_argument("--stages", nargs="*", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--home", type=Path, help="where directories stay, so that an interrupted run continues")
    options = parser.parse_args()
    path, rows = RESULTS / "refine.json", []
    if path.exists():
        rows = json.loads(path.read_text())["rows"]
    for seed in options.seeds:
        for name in options.only:
            with tempfile.TemporaryDirectory() as temporary:
                home = Path(temporary) if options.home is None else options.home / f"{name}, {seed}"
                new = measure(name, seed, options.epochs, home, options.stages)
            made = {(row["name"], row["seed"], row["stage"]) for row in new}
            rows = [row for row in rows if (row["name"], row["seed"], row["stage"]) not in made] + new
            save(rows, options.epochs)


def save(rows: list[dict[str, Any]], epochs: int) -> None:
    """Publish what there is."""
    rows = sorted(with_ratios(rows), key=lambda row: (NAMES.index(row["name"]), row["seed"]))
    free = [row for row in rows if row["stage"] in ("steps and norms", "embeddings too")]
    before = {(row["name"], row["seed"]): row for row in rows if row["stage"] == "plain"}
    claims = {
        "steps, norms and embeddings take no byte: at most 0.005 bit more": all(
            row["rate"] <= before[row["name"], row["seed"]]["rate"] + 0.005 for row in free
        ),
        "with embeddings never a larger KL than before, on either text": all(
            row["kl"][kind] <= before[row["name"], row["seed"]]["kl"][kind]
            for row in free
            for kind in TEXTS
            if row["stage"] == "embeddings too"
        ),
    }
    for name, wanted in TARGETS.items():
        for number, kind in enumerate(TEXTS):
            found = mean_ratio(rows, name, "embeddings too", kind)
            if found is None:
                continue
            claims[f"{name} with embeddings: at most {wanted[number]:g} of the KL of the one-sided trellis, {kind}"] = (
                found <= wanted[number]
            )
            if name in GOALS:
                goal = GOALS[name][number]
                claims[f"goal, {name} with embeddings: at most {goal:g}, {kind}"] = found <= goal
    publish("refine", seed=SEEDS[0], claims=claims, epochs=epochs, rows=rows)


if __name__ == "__main__":
    main()
