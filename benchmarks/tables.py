"""The published results as Markdown tables in README.md and docs/measured.md.

    python benchmarks/tables.py

What stands between their markers is written from the JSON files under results/ and nothing else; a test compares them.
"""

import collections
import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILES = (ROOT / "README.md", ROOT / "docs" / "measured.md")
CLAIMS = (
    "identities",
    "gaussian_gap",
    "real_moments",
    "space_filling",
    "trellis_moments",
    "lattices",
    "bitshift",
    "products",
    "nested",
    "codebooks",
    "codebook_loop",
    "differentiable",
    "language_model",
    "few_tokens",
    "dominance",
    "dominance_toy",
    "affine_layers",
    "affine_model",
    "two_sided",
    "measuring",
    "refine",
    "equal_kl",
    "embeddings",
    "cost",
    "decoding",
    "loop",
    "converting",
    "equal_distortion",
    "loading",
    "speed",
    "packed",
    "forged_files",
    "zoo",
)
RECIPES = (
    *("watersic", "watersic, no sweeps", "watersic as published"),
    *("huffman_gptq", "gptq", "gptq as published", "rtn"),
)


def published(name: str) -> dict[str, Any]:
    """What a claim script wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(headings), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def figures(heading: str, label: Callable[[dict], str], keys: dict[str, str], rows: Iterable[dict]) -> str:
    """A table of three digits, a column for each key; empty where a row lacks it."""
    cells = [[label(row), *(f"{row[key]:.3g}" if key in row else "" for key in keys)] for row in rows]
    return table([heading, *keys.values()], cells)


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


def cells() -> str:
    """Gap of every cell at every rate on white Gaussian weights."""
    rows = published("space_filling")["rows"]
    rates = sorted({row["target"] for row in rows})
    found = {(row["cell"], row["target"]): f"{row['gap']:.4f}" for row in rows}
    names = list(dict.fromkeys(row["cell"] for row in rows))
    return table(
        ["cell", *(f"{rate:g} bits" for rate in rates)], [[name, *(found[name, r] for r in rates)] for name in names]
    )


def trellis_moments() -> str:
    """Mean gaps with the second moments of real models and Gaussian weights."""
    rows = published("trellis_moments")["means"]
    found = {(row["model"], row["recipe"], row["target"]): f"{row['gap']:.3f}" for row in rows}
    rates = sorted({row["target"] for row in rows})
    lines = dict.fromkeys((row["model"], row["recipe"]) for row in rows)
    return table(
        ["Σ of", "recipe", *(f"{rate:g} bits" for rate in rates)],
        [[model, f"`{recipe}`", *(found[model, recipe, rate] for rate in rates)] for model, recipe in lines],
    )


def lattices() -> str:
    """Second moments: simulated, published, and their difference in standard errors; speed."""
    record = published("lattices")
    speeds = {row["lattice"]: f"{row['mvectors_per_second']:.3g}" for row in record["speed"]}
    rows = [
        [
            row["lattice"],
            f"{row['simulated']:.7f} ± {row['standard_error']:.7f}",
            f"{row['table']:.7f}",
            f"{row['deviation_in_standard_errors']:+.1f}",
            f"{row['space_filling_gap']:.4f}",
            speeds.get(row["lattice"], ""),
        ]
        for row in record["second_moments"]
    ]
    headings = ["lattice", "simulated", "published", "standard errors", "gap, bit", "million vectors a second"]
    return table(headings, rows)


def bitshift() -> str:
    """Squared error of the fixed-rate trellis on N(0, 1), 16 bits of memory."""
    rows = [row for row in published("bitshift")["rows"] if row["memory"] == 16]
    found = {(row["code"], row["bits"]): f"{row['distortion']:.5f} ({row['gap']:.3f})" for row in rows}
    codes, bits = dict.fromkeys(row["code"] for row in rows), sorted({row["bits"] for row in rows})
    return table(["code", *(f"{b} bits" for b in bits)], [[f"`{c}`", *(found[c, b] for b in bits)] for c in codes])


def scalar_tables() -> str:
    """Lloyd–Max quantizers of N(0, 1)."""
    rows = [
        [
            str(row["levels"]),
            f"{row['error']:.6g}",
            f"{row['entropy']:.4f}",
            f"{gap_of(row['levels'], row['error']):.3f}",
        ]
        for row in published("codebooks")["scalar"]
    ]
    return table(["levels", "squared error", "entropy of the index, bits", "gap, bit"], rows)


def gap_of(levels: int, error: float) -> float:
    """Bits of an index over the rate–distortion function of N(0, 1)."""
    return float(np.log2(levels) + 0.5 * np.log2(error))


def vector_tables() -> str:
    """Codebooks of vectors on fresh samples."""
    keys = ("fresh_error", "gap", "index_entropy", "limit_gap")
    rows = published("codebooks")["vectors"]
    lines = [
        [str(r["dimension"]), str(r["entries"]), f"{r['bits']:g}", *(f"{r[key]:.4f}" for key in keys)] for r in rows
    ]
    return table(
        ["dimension", "entries", "bits", "squared error", "gap, bit", "entropy, bits", "limit of the gap"], lines
    )


def clustering_speed() -> str:
    """Seconds and errors of k-means, here and elsewhere."""
    rows = sorted(published("codebooks")["speed"], key=lambda row: row["problem"])
    lines = [
        [row["problem"], row["library"], f"{row['seconds']:.3g}", f"{row['error']:.6f}"]
        if "seconds" in row
        else [row["problem"], row["library"], "not run", ""]
        for row in rows
    ]
    return table(["samples", "library", "seconds", "squared error"], lines)


def codebook_gaps() -> str:
    """Mean gaps of GPTVQ as published, of one exact pass and of ours, by model and setting."""
    ways = ("published", "exact", "ours")
    rows = []
    for row in published("codebook_loop")["means"]:
        start = [row["model"], str(row["bits"]), str(row["dimension"]), f"{row['rate']:.3f}"]
        shares = [f"{row['ours']['over_published']:.3f}", f"{row['ours']['largest']:.3f}"]
        rows.append([*start, *(f"{row[way]['gap']:.3f}" for way in ways), *shares])
    headings = ["model", "bits", "d", "rate", "gap, published", "gap, one exact pass", "gap, `gptvq`"]
    return table([*headings, "distortion over published, mean", "largest"], rows)


def descents() -> str:
    """How far sweeps and refits lower the distortion of layers, step by step."""
    found = published("codebook_loop")["descents"]
    names = [*dict.fromkeys(row["model"] for row in found)]
    steps = len(found[0]["steps"])
    rows = []
    for name in names:
        shares = np.array([row["steps"] for row in found if row["model"] == name])
        shares = shares / shares[:, :1]
        rows.append([name, *(f"{share:.3f}" for share in shares.mean(axis=0)[1:]), f"{shares[:, -1].max():.3f}"])
    per_round = (steps - 1) // 2
    labels = [*(f"sweep {i}" for i in range(1, per_round)), "refit"]
    return table(["model", *labels, *labels, "last, largest"], rows)


def codebook_model() -> str:
    """Rate, KL and perplexity of recipes with tables."""
    forms = {"rate": ".3f", "kl": ".4f", "perplexity": ".2f"}
    rows = [
        [f"`{row['recipe']}`", *(format(row[key], form) for key, form in forms.items())]
        for row in published("codebook_loop")["model"]
    ]
    return table(["recipe", "rate", "KL, bits per token", "perplexity"], rows)


def soft_palettes() -> str:
    """Memory of soft palettes beside a dense map of shares."""
    record = published("differentiable")
    passes = ("forward_transient_bytes", "backward_transient_bytes", "forward_seconds", "backward_seconds")
    rows: list[list[str]] = []
    for row in (*record["rows"], record["dense"]):
        cells = [f"{row[key] / (1e6 if 'bytes' in key else 1):.3g}" if key in row else "" for key in passes]
        kept = f"{row['kept_bytes'] / 1e6:.3g}" if "kept_bytes" in row else ""
        rows.append([row["weights"], str(row.get("values", "")), kept, *cells])
    for row in record["unrolled"]:
        label = f"float32, DKM unrolled, iterations: {row['iterations']}"
        rows.append([label, "", f"{row['kept_bytes'] / 1e6:.3g}", "", "", "", ""])
    headings = ["weights", "values", "kept, MB", "forward, MB", "backward, MB", "forward, s", "backward, s"]
    return table(headings, rows)


def speed() -> str:
    """Millions of samples a second of the search."""
    keys = ("segments side by side", "one sequence", "instruction limit")
    rows = [[str(row["states"]), *(f"{row[key]:.3g}" for key in keys)] for row in published("speed")["search"]]
    return table(["states", "side by side", "one sequence", "limit of the instructions"], rows)


def layer() -> str:
    """Where the time of a large layer goes."""
    row = published("speed")["layer"]
    parts = {"factor": "factor", "products": "products", "all of quantize": "quantize", "bytes": "bytes"}
    cells = [f"{row[f'{key}_seconds']:.2f}" for key in parts.values()]
    headings = ["rows × n", *(f"{name}, s" for name in parts), "quantize and bytes over factor and products"]
    return table(headings, [[f"{row['side']} × {row['side']}", *cells, f"{row['over_factor_and_products']:.2f}"]])


def products() -> str:
    """Each scheme near 4.5 bits, and how far it is from its prediction there and at most."""
    rows = published("products")["rows"]
    lines = []
    for name in dict.fromkeys(row["scheme"] for row in rows):
        chosen = [row for row in rows if row["scheme"] == name]
        near = min(chosen, key=lambda row: abs(row["rate"] - 4.5))
        worst = max(abs(row["gap"] - row["predicted_gap"]) for row in chosen)
        span = f"{min(row['rate'] for row in chosen):.1f} … {max(row['rate'] for row in chosen):.1f}"
        cells = [f"{near['rate']:.3f}", f"{near['error']:.5f}", f"{near['gap']:.3f}", f"{near['predicted_gap']:.3f}"]
        lines.append([name, *cells, span if len(chosen) > 1 else "", f"{worst:.3f}"])
    return table(["scheme", "rate", "error", "gap", "predicted", "all rates", "farthest from prediction"], lines)


def sketches() -> str:
    """Products below the critical rate."""
    rows = published("products")["sketches"]
    cells = [[f"{row['keep']:g}", *(f"{row[key]:.4f}" for key in ("rate", "error", "over_gamma"))] for row in rows]
    return table(["coordinates kept", "rate", "error", "over Γ"], cells)


def outliers() -> str:
    """Gaps of products with outliers, as they are and rotated."""
    rows = published("products")["outliers"]
    keys = ["gaussian", "heavy tails", "heavy tails, rotated twice", "one channel x 100"]
    keys += [f"one channel x 100, {times}" for times in ("rotated", "rotated twice")]
    return table(["scheme", *keys], [[row["scheme"], *(f"{row[key]:.3f}" for key in keys)] for row in rows])


def nested() -> str:
    """Distortion and gaps of nested E8 codes with q = 14, by scales, rule and shaping."""
    rows = [
        [
            row["scales"],
            ", ".join(f"{scale:.2f}" for scale in row["times_q"]),
            f"{row['rule']}, {row['shaping']}",
            *(f"{row[key]:.{digits}f}" for key, digits in (("distortion", 5), ("coded_gap", 3), ("raw_gap", 3))),
        ]
        for row in published("nested")["gaps"]
    ]
    return table(["scales", "times q", "rule", "squared error", "gap, coded index", "gap, raw index"], rows)


def packed() -> str:
    """A square matrix times a vector from packed codes, beside float32."""
    keys = {
        "megabytes": "MB",
        "milliseconds": "ms",
        "byte_limit_milliseconds": "limit of the bytes, ms",
        "instruction_limit_milliseconds": "limit of the instructions, ms",
        "times_float32": "times float32",
        "few_times_float32": "times float32, 16 vectors",
    }
    return figures("codes", lambda row: row["format"], keys, published("packed")["products"])


def hadamard() -> str:
    """The fast Walsh–Hadamard transform beside a copy and a product."""
    keys = {
        "transform_milliseconds": "transform, ms",
        "copy_milliseconds": "copy, ms",
        "product_milliseconds": "product, ms",
        "over_a_copy": "copies",
        "times_product": "times faster than the product",
    }
    return figures("type", lambda row: row["type"], keys, published("packed")["transforms"])


def forged_files() -> str:
    """What became of forged and damaged files, by kind."""
    found = published("forged_files")["found"]["outcomes"]
    kinds = list(dict.fromkeys(key.split(": ")[0] for key in found))
    ends = sorted({key.split(": ")[1] for key in found})
    return table(["files", *ends], [[kind, *(str(found.get(f"{kind}: {end}", 0)) for end in ends)] for kind in kinds])


def forged_worst() -> str:
    """The most that any file took."""
    record = published("forged_files")
    names = {"found": "forged and damaged", "largest": "largest without a shape"}
    rows = [[name, record.get(key)] for key, name in names.items()]
    return table(
        ["files", "seconds", "MiB", "over 100 × max(size, 4 bytes × weights)"],
        [
            [name, f"{row['seconds']:.2f}", f"{row['bytes'] / 2**20:.1f}", f"{row['over']:.2f}"]
            for name, row in rows
            if row
        ],
    )


def language_model() -> str:
    """Rate, KL and perplexity of every point, by recipe and rate."""
    forms = {"rate": ".3f", "kl": ".4f", "perplexity": ".2f", "top1": ".1%"}
    rows = sorted(published("language_model")["rows"], key=lambda row: (row["recipe"], row["rate"]))
    cells = [[f"`{row['recipe']}`", *(format(row[key], form) for key, form in forms.items())] for row in rows]
    return table(["recipe", "rate", "KL, bits per token", "perplexity", "same top-1"], cells)


def few_tokens() -> str:
    """KL of the embedded model by recipe and number of calibration tokens."""
    rows = published("few_tokens")["rows"]
    draws = collections.defaultdict(list)
    for row in rows:
        draws[row["recipe"], row["tokens"]].append(row["kl"])
    found = {key: f"{sum(kl) / len(kl):.4f}" for key, kl in draws.items()}
    counts = sorted({row["tokens"] for row in rows})
    rates = {row["recipe"]: f"{row['rate']:.3f}" for row in rows}
    lines = [[f"`{name}`", rate, *(found.get((name, count), "") for count in counts)] for name, rate in rates.items()]
    return table(["recipe", "rate", *(f"{count} tokens" if count > 1 else "1 token" for count in counts)], lines)


def maps() -> str:
    """Mean gains of changes of coordinates, predicted and measured."""
    rows = published("affine_layers")["means"]
    keys = ("predicted", "predicted_from_groups", "gain", "bits", "net")
    found = {(row["model"], row["map"], row["recipe"]): row for row in rows}
    cells = []
    for model, label in dict.fromkeys((row["model"], row["map"]) for row in rows):
        nearest, fed_back = found[model, label, "rtn"], found[model, label, "gptq"]
        numbers = [*(nearest[key] for key in keys), *(fed_back[key] for key in ("gain", "net"))]
        cells.append([model, label, *(f"{round(number, 2) + 0.0:.2f}" for number in numbers)])
    headings = ["layers of", "map", "from powers", "from magnitudes", "`rtn`", "its bits", "`rtn`, net"]
    return table([*headings, "`gptq`", "`gptq`, net"], cells)


def affine_model() -> str:
    """The embedded model in plain integers after each method: what costs nothing at run time, then what does."""
    rows = published("affine_model")["rows"]
    plain = {row["setting"]: row["kl"] for row in rows if row["method"] == "RTN"}
    cells = []
    for row in sorted(rows, key=lambda row: (list(plain).index(row["setting"]), row["operations"] > 0)):
        numbers = f"{row['kl']:.4f}", f"{row['kl'] / plain[row['setting']]:.2f}", f"{row['perplexity']:.2f}"
        cells.append([row["setting"], row["method"], f"{row['rate']:.3f}", f"{row['operations']:,}", *numbers])
    return table(["format", "method", "bits", "operations", "KL, bits per token", "of RTN", "perplexity"], cells)


def two_sided() -> str:
    """The embedded model with and without feedback along rows."""
    rows = published("two_sided")["rows"]
    cells = [
        [row["name"], str(row["seed"]), f"{row['rate']:.3f}"]
        + [f"{row['kl'][kind]:.4f}" for kind in ("novel", "reference")]
        + [f"{row['perplexity']['novel']:.2f}", f"{row['seconds']:.0f} s"]
        for row in rows
    ]
    headings = ["recipe, bits", "seed", "bits", "KL, novel", "KL, reference of Python", "perplexity, novel", "time"]
    return table(headings, cells)


def two_sided_ratios() -> str:
    """KL at the same bytes over that of today's recipe."""
    found = published("two_sided")["ratios"]
    pairs = list(dict.fromkeys(name.rpartition(", ")[0] for name in found))
    kinds = ("novel", "reference")
    cells = [
        [pair, *(f"{found[f'{pair}, {kind}']:.2f}" for kind in kinds)] for pair in pairs if f"{pair}, novel" in found
    ]
    return table(["KL over that of the other", *kinds], cells)


def refine() -> str:
    """The embedded model after training what is not a code."""
    cells = []
    for row in published("refine")["rows"]:
        kl = [f"{row['kl'][kind]:.4f}" for kind in ("novel", "reference")]
        ratio = [f"{row['ratio'][kind]:.2f}" for kind in ("novel", "reference")]
        cells.append([row["name"], str(row["seed"]), row["stage"], f"{row['rate']:.4f}", *kl, *ratio])
    headings = ["codes", "seed", "trained", "bits", "KL, novel", "KL, reference", "ratio, novel", "ratio, reference"]
    return table(headings, cells)


def equal_kl() -> str:
    """Bits that each recipe takes for the same divergence."""
    found = published("equal_kl")["bits"]
    levels = list(next(iter(found.values())))
    cells = [[name, *("" if bits[kl] is None else f"{bits[kl]:.2f}" for kl in levels)] for name, bits in found.items()]
    return table(["bits at a KL of", *levels], cells)


def embeddings() -> str:
    """MiniLM with errors fed back along rows too, and refined."""
    cells = []
    for row in published("embeddings")["rows"]:
        numbers = [
            text
            for kind in ("novel", "reference")
            for text in (f"{1e4 * row[kind]['distance']:.2f}", f"{row[kind]['kept']:.3f}", f"{row[kind]['ranks']:.4f}")
        ]
        cells.append([row["name"], str(row["seed"]), f"{row['rate']:.3f}", *numbers, f"{row['seconds']:.0f} s"])
    judged = [f"{what}, {kind}" for kind in ("novel", "reference") for what in ("1 - cosine, 1e-4", "ten", "ranks")]
    return table(["recipe, bits", "seed", "bits", *judged, "time"], cells)


def statistics() -> str:
    """Time and memory of measuring both sides."""
    cells = [
        [name, f"{one['ratio']:.2f}", f"{one['megabytes of the model']:.0f}", f"{one['megabytes']:.0f}"]
        for name, one in published("measuring")["costs"].items()
    ]
    return table(["model", "forward passes", "peak of a forward pass, MB", "peak, MB"], cells)


def decoding() -> str:
    """How fast payloads become weights, beside an older build."""
    record = published("decoding")
    keys = {"bits": "{:.4f}", "encode": "{:.0f}", "decode": "{:.0f}", "two threads": "{:.2f}"}
    cells = [
        [name, *(form.format(one[key]) for key, form in keys.items()), f"{record['ratios'][name]:.1f}"]
        for name, one in record["here"].items()
    ]
    headings = [
        "codes, bits",
        "bits",
        "encode, Mweights/s",
        "decode, Mweights/s",
        "two threads",
        "decoding, of the older build's",
    ]
    return table(headings, cells)


def beside_decoding() -> str:
    """What else reads as many numbers: general compressors, a copy and a table."""
    record = published("decoding")["beside"]
    cells = [
        [name, f"{one['bits']:.3f}", f"{one['decode']:.0f}"] for name, one in record.items() if isinstance(one, dict)
    ]
    cells += [[name, "", f"{record[name]:.0f}"] for name in ("copy", "table")]
    return table(["what", "bits a code", "Mnumbers/s"], cells)


def loop() -> str:
    """What one layer costs in products of matrices of its size, beside an older build."""
    record = published("loop")
    cells = [
        [
            name,
            *(f"{record[build][name]['products']:.1f}" for build in ("here", "before")),
            f"{record['faster'][name]:.1f}",
            f"{one['bits']:.4f}",
            f"{record['worse'][name]:+.1e}",
        ]
        for name, one in record["here"].items()
    ]
    headings = [
        "cell, spectrum",
        "products",
        "older build",
        "times as fast",
        "bits",
        "distortion, of the older build's",
    ]
    return table(headings, cells)


def converting() -> str:
    """What it takes to meet a rate."""
    record = published("converting")
    cells = [
        [build, *(f"{record[name][key]:.1f}" for key in ("seconds", "at a step")), f"{record[name]['kl']:.5f}"]
        for name, build in (("here", "this build"), ("before", "older build"))
    ]
    return table(["build", "at a rate, s", "at its step, s", "KL"], cells)


def layers_at_rates() -> str:
    """Time of `at_rate` over that of one run, on the mean over recipes and rates."""
    ratios: dict[str, list[float]] = {}
    for name, one in published("converting")["layers"].items():
        ratios.setdefault(name.split(",")[0].rpartition(".layers.")[2], []).append(one)
    cells = [[name, f"{sum(found) / len(found):.2f}", f"{max(found):.2f}"] for name, found in ratios.items()]
    return table(["layer", "mean", "largest"], cells)


def equal_distortion() -> str:
    """Bits more than an older build took, at equal distortion."""
    rows = published("equal_distortion")["table"]
    cells = [
        [
            row["scheme"],
            row["size"],
            str(row["layers"]),
            f"{row['bits']:.3f}",
            *(f"{row[key]:+.4f}" for key in ("mean", "most", "least")),
        ]
        for row in rows
    ]
    return table(["scheme", "layers", "how many", "bits", "more, mean", "most", "least"], cells)


def loading() -> str:
    """What a load takes, beside reading the dense file."""
    cells = [
        [
            f"{row['model']}, {'dense' if row['what'] == 'dense' else row['what'] + ' codes'}",
            row["dtype"],
            str(row["cores"]),
            *(f"{row[key]:.3g}" for key in ("processor", "read processor", "ratio", "seconds", "read seconds")),
            *(f"{row[key] / 1e6:.0f}" for key in ("memory", "dense", "file")),
        ]
        for row in published("loading")["rows"]
    ]
    times = ["load, s of the processor", "reading", "ratio", "load, s of the clock", "reading"]
    return table(["model", "dtype", "cores", *times, "peak, MB", "dense, MB", "file, MB"], cells)


def loop_of_two_sides() -> str:
    """Time of the loop along fronts over that along columns."""
    rows = published("measuring")["loop"]
    cells = [[row["cell"], str(row["height"]), *(f"{row[key]:.2f}" for key in ("one", "two", "ratio"))] for row in rows]
    return table(["cell", "rows of a block of G", "one side, s", "both, s", "ratio"], cells)


def kronecker_factors() -> str:
    """KL in the loop, by how the factors were measured."""
    rows = published("measuring")["in_the_loop"]
    return table(
        ["factors", "bits", "KL"], [[one["factors"], f"{one['rate']:.3f}", f"{one['kl']:.5f}"] for one in rows]
    )


def trained_maps() -> str:
    """What is certain of trained maps."""
    cells = []
    for row in published("affine_model")["rows"]:
        if row["largest_ratio"] is not None:
            share = f"{row.get('mean_dominant_rows', row['dominant_rows']):.0%}"
            numbers = [share, f"{row['largest_ratio']:.2f}", f"{row['condition']:.1f}"]
            cells.append([row["setting"], row["method"], *numbers])
    return table(["format", "method", "dominant rows", "largest ratio", "worst κ₂"], cells)


def toy() -> str:
    """Errors of trained maps of one synthetic layer, and what can be certified of them."""
    forms = {"dominant_rows": ".0%", "median_ratio": ".2f", "largest_ratio": ".1f", "condition_relative": ".1f"}
    cells = []
    for row in published("dominance_toy")["rows"]:
        earlier = f"{row['earlier']:.4f}" if "earlier" in row else ""
        stated = [format(row[key], form) if key in row else "" for key, form in forms.items()]
        cells.append([row["what"], f"{row['error']:.4f}", earlier, *stated])
    headings = ["map", "error", "earlier draw", "dominant rows", "median ratio", "largest ratio"]
    return table([*headings, "κ, relative to T0"], cells)


def dominance() -> str:
    """How many of the random matrices break a bound, and how far projections are from a solver's."""
    record = published("dominance")
    names = {
        "inf": "‖A⁻¹‖∞, by Varah",
        "one": "‖A⁻¹‖₁, by Varah",
        "two": "‖A⁻¹‖₂",
        "condition": "κ∞(I + N)",
        "determinant": "log det",
        "left out": "‖A⁻¹‖∞, one entry of each row left out",
    }
    rows = [[f"bound on {name}", f"{record['bounds']['violations'][key]} broken"] for key, name in names.items()]
    near = record["projections"]
    distances = {"worst": "projection", "negative_control": "rows scaled into the cone instead"}
    rows += [[f"{name}, farthest from the solver", f"{near[key]:.1e}"] for key, name in distances.items()]
    return table([f"{record['matrices']} random matrices", ""], rows)


def inverses() -> str:
    """Time and error of inverses and solves beside those of torch."""
    found = published("dominance")["inverses"]
    rows = [row for part in found for row in part["rows"]]
    cells = [
        [f"{row['ratio']:g}", row["what"], *(f"{row[key]:{form}}" for key, form in forms.items())]
        for forms in [{"seconds": ".2f", "over_torch": ".2f", "residual": ".1e", "difference": ".1e"}]
        for row in rows
    ]
    headings = ["ρ", f"n = {found[0]['n']}", "seconds", "over torch", "residual", "difference from torch"]
    return table(headings, cells)


def loud_channel() -> str:
    """What a dominant matrix leaves of a one-hot outlier of height 100."""
    keys = {
        "limit": "100 / (1 + ρ²)",
        "attained": "by the best N",
        "least_of_random": "by the best of 20 random N",
        "around_hadamard": "around a Hadamard matrix",
    }
    return figures("ρ", lambda row: f"{row['ratio']:g}", keys, published("dominance")["outlier"]["rows"])


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
    return figures("rows × n", lambda row: f"{row['rows']} × {row['columns']}", keys, published("cost")["rows"])


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

    white = {(row["cell"], row["target"]): row["gap"] for row in published("space_filling")["rows"]}
    layer = published("cost")["rows"][-1]
    size, seconds = f"{layer['rows']} × {layer['columns']}", f"{layer['watersic_seconds']:.1f} s"
    tables = [row for row in published("codebook_loop")["model"] if row["wanted"].get("bits") == 2]
    pairs = {row["recipe"]: f"{row['kl']:.3f} at {row['rate']:.2f} bits" for row in tables}
    plain = {row["method"]: row["kl"] for row in published("affine_model")["rows"] if row["setting"] == "w3g128"}
    sides = published("two_sided")["ratios"]
    speeds = [one["decode"] for one in published("decoding")["here"].values()]
    lines = (
        f"Textbook GPTQ and WaterSIC's steps are this library's loop: {differ} of {entries} entries differ.",
        f"White Gaussian weights at 3 bits, gap in real bytes: trellis of 256 states "
        f"{white['trellis, 256 states', 3.0]:.3f}, Leech {white['Leech', 3.0]:.3f}, E8 {white['E8', 3.0]:.3f}, "
        f"cube {white['Z', 3.0]:.3f}.",
        f"Divergence of the embedded model, bits per token: with the trellis {point('watersic, trellis', 2.0, 'loss')} "
        f"and {point('watersic, trellis', 3.0, 'loss')}; `watersic` {point('watersic', 2.0, 'loss')} and "
        f"{point('watersic', 3.0, 'loss')}; `gptq` {point('gptq', 8)} (INT3) and {point('gptq', 16)} (INT4), as "
        f"published {point('gptq as published', 8)} and {point('gptq as published', 16)}.",
        f"Errors that cancel along rows too, as they count for the predictions, same bytes: "
        f"{sides['two-sided 3 of trellis 3, novel']:.2f} of that trellis's divergence at 3 bits, "
        f"{sides['two-sided 2 of trellis 2, novel']:.2f} at 2 bits.",
        f"Plain INT3 in groups of 128, same model: {plain['RTN']:.3f} rounded to nearest, "
        f"{plain['AffineQuant as published, 0.01']:.3f} by AffineQuant as published, with dense matrices at run time, "
        f"{plain['ours']:.3f} by trained maps, ranges and weights, with nothing more than the first.",
        f"Look-up tables of pairs, two bits, same model: GPTVQ as published {pairs['gptvq_published, d = 2']}, `gptvq` "
        f"{pairs['gptvq, d = 2']}, the same bytes.",
        f"A {size} layer takes {seconds} on one core; bytes decode at {min(speeds):.0f} to {max(speeds):.0f} million "
        f"weights a second.",
    )
    return "".join(f"- {line}\n" for line in lines)


def zoo() -> str:
    """What became of each class."""
    cells = []
    for row in published("zoo")["rows"]:
        dense = ", ".join(f"{share:.0%} {why}" for why, share in row["dense"].items() if share >= 0.005)
        numbers = [f"{row['quantized_share']:.0%}", f"{row['rate']:.3f}", f"{row['largest_difference']:.0e}", dense]
        cells.append(
            [f"`{row['name']}`", row["kind"], *(numbers if row["error"] is None else ["", "", "", row["error"]])]
        )
    headings = ["class", "kind", "weights quantized", "bits, from the files", "difference", "dense, of the weight file"]
    return table(headings, cells)


BLOCKS: dict[str, Callable[[], str]] = {
    "gaps": gaps,
    "highlights": highlights,
    "surrogates": surrogates,
    "cells": cells,
    "trellis moments": trellis_moments,
    "lattices": lattices,
    "bitshift": bitshift,
    "scalar tables": scalar_tables,
    "vector tables": vector_tables,
    "clustering speed": clustering_speed,
    "codebook gaps": codebook_gaps,
    "descents": descents,
    "codebook model": codebook_model,
    "soft palettes": soft_palettes,
    "speed": speed,
    "layer": layer,
    "products": products,
    "sketches": sketches,
    "outliers": outliers,
    "nested": nested,
    "packed": packed,
    "hadamard": hadamard,
    "forged files": forged_files,
    "forged worst": forged_worst,
    "language model": language_model,
    "few tokens": few_tokens,
    "maps": maps,
    "affine model": affine_model,
    "two sided": two_sided,
    "two sided ratios": two_sided_ratios,
    "statistics": statistics,
    "loop of two sides": loop_of_two_sides,
    "kronecker factors": kronecker_factors,
    "refine": refine,
    "equal kl": equal_kl,
    "embeddings": embeddings,
    "trained maps": trained_maps,
    "dominance toy": toy,
    "dominance": dominance,
    "inverses": inverses,
    "loud channel": loud_channel,
    "cost": cost,
    "decoding": decoding,
    "beside decoding": beside_decoding,
    "loop": loop,
    "converting": converting,
    "layers at rates": layers_at_rates,
    "equal distortion": equal_distortion,
    "loading": loading,
    "zoo": zoo,
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
