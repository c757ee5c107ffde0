"""The published results as Markdown tables in README.md and docs/measured.md.

    python benchmarks/tables.py

What stands between their markers is written from the JSON files under results/ and nothing else; a test compares them.
"""

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILES = (ROOT / "README.md", ROOT / "docs" / "measured.md")
CLAIMS = ("identities", "gaussian_gap", "real_moments", "language_model", "cost")
RECIPES = ("watersic", "watersic, no sweeps", "watersic as published", "huffman_gptq", "gptq", "rtn")


def published(name: str) -> dict[str, Any]:
    """What a claim script wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(headings), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mean_gap(rows: list[dict], recipe: str, **only: Any) -> str:
    """Mean of the gaps of a recipe where it was measured, with the true rate if that is not the target."""
    chosen = [row for row in rows if row["recipe"] == recipe and all(row[key] == value for key, value in only.items())]
    if not chosen:
        return ""
    gap, rate = (float(np.mean([row[key] for row in chosen])) for key in ("gap", "rate"))
    return f"{gap:.3f}" if abs(rate - round(rate)) < 0.01 else f"{gap:.3f} at {rate:.2f}"


def gaps() -> str:
    """Mean gaps of all recipes: Gaussian weights, and two real models."""
    gaussian = [{**row, "target": round(row["rate"])} for row in published("gaussian_gap")["rows"]]
    real = published("real_moments")["rows"]
    cases = [
        (f"Gaussian, s = {spread:g}, {rate} bits", gaussian, {"spread": spread, "target": rate})
        for spread in (0.3, 1, 2)
        for rate in (3, 4)
    ] + [
        (f"{model}, {rate} bits", real, {"model": model, "target": rate})
        for model in ("embedded", "MiniLM")
        for rate in (2, 3, 4)
    ]
    rows = [[name, *(mean_gap(rows, recipe, **only) for recipe in RECIPES)] for name, rows, only in cases]
    return table(["weights and Σ", *(f"`{name}`" for name in RECIPES)], rows)


def surrogates() -> str:
    """Advantage of equal pivots over one step, with Gaussian weights and the second moments of real models."""
    rows = published("real_moments")["surrogates"]
    cells = []
    for model in ("embedded", "MiniLM"):
        for basis in ("natural", "rotated"):
            found = [row[basis] for row in rows if row["model"] == model]
            advantages = [one["advantage"] for one in found]
            means = [f"{np.mean([one[key] for one in found]):.3f}" for key in ("huffman_gptq", "watersic", "advantage")]
            cells.append([model, basis, *means, f"{min(advantages):.3f} to {max(advantages):.3f}"])
    return table(["Σ of", "basis", "`huffman_gptq`", "`watersic`", "advantage, mean", "by layer"], cells)


def language_model() -> str:
    """Rate, KL and perplexity of every point, by recipe and rate."""
    forms = {"rate": ".3f", "kl": ".4f", "perplexity": ".2f", "top1": ".1%"}
    rows = sorted(published("language_model")["rows"], key=lambda row: (row["recipe"], row["rate"]))
    cells = [[f"`{row['recipe']}`", *(format(row[key], form) for key, form in forms.items())] for row in rows]
    return table(["recipe", "rate", "KL, bits per token", "perplexity", "same top-1"], cells)


def cost() -> str:
    """Time and memory of one layer against its size."""
    keys = {
        "loop_seconds": "loop, s",
        "loop_over_its_products": "over its products",
        "watersic_seconds": "`watersic`, s",
        "watersic_over_a_product": "over rows × n² at GEMM rate",
        "encode_mweights_per_second": "encode, Mweights/s",
        "decode_mweights_per_second": "decode, Mweights/s",
        "peak_bytes_per_weight": "peak, bytes per weight",
    }
    found = published("cost")["rows"]
    rows = [[f"{row['rows']} × {row['columns']}", *(f"{row[key]:.3g}" for key in keys)] for row in found]
    return table(["rows × n", *keys.values()], rows)


def claims(name: str) -> str:
    """Which claims of a script hold, and where they were tested."""
    record = published(name)
    lines = [f"- {'holds' if holds else '**missed**'}: {claim}\n" for claim, holds in record["claims"].items()]
    where = f"{record['machine']['processor']}, {record['machine']['cores']} cores, {record['date']}"
    return f"`benchmarks/claims/{name}.py`, seed {record['seed']}, {where}:\n\n" + "".join(lines)


def highlights() -> str:
    """What the README says of the other claims."""
    identities = published("identities")["rows"]
    entries = 2 * sum(row["entries"] for row in identities)
    differ = sum(row["gptq_entries_that_differ"] + row["watersic_codes_that_differ"] for row in identities)
    points = {(row["recipe"], tuple(row["wanted"].values())): row for row in published("language_model")["rows"]}

    def point(recipe: str, *wanted: object) -> str:
        row = points[recipe, wanted]
        return f"{row['kl']:.3f} at {row['rate']:.2f} bits"

    layer = published("cost")["rows"][-1]
    size, seconds = f"{layer['rows']} × {layer['columns']}", f"{layer['watersic_seconds']:.1f} s"
    lines = (
        f"Textbook GPTQ and WaterSIC's steps are this library's loop: {differ} of {entries} entries differ.",
        f"Divergence of the embedded model, bits per token: `watersic` {point('watersic', 2.5, 'loss')} and "
        f"{point('watersic', 3.4, 'loss')}, `gptq` {point('gptq', 8)} (INT3) and {point('gptq', 16)} (INT4).",
        f"A {size} layer takes {seconds} on one core; its bytes decode at "
        f"{layer['decode_mweights_per_second']:.0f} million weights a second.",
    )
    return "".join(f"- {line}\n" for line in lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "gaps": gaps,
    "highlights": highlights,
    "surrogates": surrogates,
    "language model": language_model,
    "cost": cost,
    **{f"claims of {name}": functools.partial(claims, name) for name in CLAIMS},
}


def filled(path: Path) -> str:
    """The file with what stands between its markers written anew."""
    text = path.read_text()
    for name, make in BLOCKS.items():
        start, end = f"<!-- {name}: from benchmarks/results -->\n", f"<!-- {name}: end -->"
        head, mark, rest = text.partition(start)
        if mark:
            if end not in rest:
                msg = f"{path} lacks {end!r}"
                raise ValueError(msg)
            text = head + mark + make() + end + rest.partition(end)[2]
    return text


def main() -> None:
    """Fill both files."""
    for path in FILES:
        path.write_text(filled(path))


if __name__ == "__main__":
    main()
